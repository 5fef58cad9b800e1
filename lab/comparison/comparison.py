"""Runs compared fairly: on the same held-out tokens, in units that mean the same, with intervals for chance.

    comparison = compare("positions-*").evaluate(max_tokens=32_768)
    comparison.table(sort="loss")

A run that can't be compared is left out and listed with the reason; it never stops the others.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.comparison.chosen_runs import Chosen, ChosenRuns, choose_runs, group_name
from lab.comparison.compared_run import ComparedRun
from lab.comparison.scorer import Scorer, try_each
from lab.comparison.table import (
    as_html,
    as_text,
    differing_settings,
    facts_table,
    metrics_row,
    sorted_rows,
    write_table,
)
from lab.data.packing import TokenData
from settings.errors import ConfigError
from settings.messages import left_out_remarks

if TYPE_CHECKING:
    import ipywidgets

    from lab.comparison.disagreement import Disagreement
    from lab.comparison.plots import CurveData, CurveView
    from lab.display.style import Picture
    from lab.evaluation.extrapolation import Extrapolation
    from lab.evaluation.paired import Paired, PairedTests
    from lab.evaluation.probes import Answers
    from lab.evaluation.scores import Scores


def compare(runs: Chosen = None, folder: Path | str | None = None) -> "Comparison":
    """The runs of `folder` (None: trained/) that are chosen: by name, by a glob such as "factored-*", by a query over
    all runs such as "parameters < 1e6 and architecture == 'llama'", or by a list of these; None: all.

    Raises RunError where a name or a glob chooses no run, ConfigError for a query that can't be asked.
    """
    return Comparison(choose_runs(runs, folder and Path(folder)))


class Comparison:
    """Runs side by side: a table, tests and pictures of them. Only `evaluate` changes a comparison.

    chosen: the runs, and those left out with the reason. evaluated: the scores of the last evaluation, by run. skills:
    its answers about stories, by run and skill.
    """

    def __init__(self, chosen: ChosenRuns):
        self.chosen = chosen
        self.evaluated: Mapping[str, Scores] = {}
        self.skills: Mapping[str, Mapping[str, Answers]] = {}
        self._scorer = Scorer()

    @property
    def runs(self) -> Mapping[str, ComparedRun]:
        return self.chosen.runs

    @property
    def left_out(self) -> Mapping[str, str]:
        return self.chosen.left_out

    @property
    def in_nats(self) -> bool:
        """Whether all runs read the same tokens. Then losses per token compare, else bits per byte alone."""
        return self.chosen.in_nats

    @property
    def configurations(self) -> dict[str, list[str]]:
        """The runs by configuration: those that differ in their seed alone stand together."""
        return self.chosen.configurations

    def load_data(self, name: str) -> TokenData:
        """The tokens that a run was trained on and is scored on."""
        return self._scorer.load_data(self.runs[name])

    def score(self, name: str, max_tokens: int | None = None, top: Sequence[int] | None = None) -> "Scores":
        """Scores a run on its first max_tokens held-out tokens; the same arguments again give the same object.

        top: the k of the top-k accuracies (None: 1, 5, 10). Raises the errors of reading the run.
        """
        return self._scorer.score(self.runs[name], max_tokens, top)

    def evaluate(self, max_tokens: int | None = None, top: Sequence[int] | None = None, stories: int = 0):
        """Scores every run on its first max_tokens held-out tokens (None: all). The table has the metrics afterwards.

        top: the k of the top-k accuracies (None: 1, 5, 10). stories: on tales, how many held-out ones to ask about for
        the skills. Where tokenizers differ, the runs are scored on the documents that all of them read to the end. A
        run that can't be scored is left out from then on, with the reason. Returns the comparison itself. Raises
        ConfigError for impossible arguments, DataError where max_tokens holds no whole document.
        """
        from lab.evaluation.evaluate import check_limits
        from lab.evaluation.paired import common_documents

        check_limits(max_tokens, () if top is None else top)
        evaluated, failed = try_each(self.runs, lambda compared: self._scorer.score(compared, max_tokens, top))
        chosen, skills = self.chosen.without(failed), {}
        if evaluated and chosen.same_text and not chosen.in_nats:
            common = common_documents(list(evaluated.values()))
            evaluated = {name: found.of_documents(common) for name, found in evaluated.items()}
        if stories:
            skills, failed = try_each(chosen.runs, lambda compared: self._scorer.answer_questions(compared, stories))
            chosen = chosen.without(failed)
        self.chosen, self.skills = chosen, skills
        self.evaluated = {name: evaluated[name] for name in chosen.runs}
        return self

    # --- the table ------------------------------------------------------------------------------------------------

    def table(self, sort: str | None = None) -> pd.DataFrame:
        """A row for each run: what it reached, what it is and cost, the settings that differ; plain numbers.

        flops and seconds are those of the whole training, memory is in bytes, losses in nats per token. *_error is a
        standard error; *_low and *_high are the ends of a skill's 95 % interval, *_asked its number of questions. A
        loss is NaN where losses mean different things. sort: a column; "-column" for falling values.
        """
        if not self.runs:
            return pd.DataFrame(index=pd.Index([], name="run"))
        table = facts_table(self.runs).join(differing_settings(self.runs))
        if not self.chosen.same_validation:
            table["validation_loss"] = math.nan
        if self.evaluated:
            rows = {
                name: metrics_row(scores, self.skills.get(name, {}), self.in_nats)
                for name, scores in self.evaluated.items()
            }
            table = pd.DataFrame(rows).T.join(table)
        return sorted_rows(table.rename_axis("run"), sort)

    @property
    def remarks(self) -> list[str]:
        """Sentences below the table: why cells are blank, on how much text was measured, which runs are left out."""
        found = self._remarks_on_losses()
        if self.evaluated:
            counts = sorted({(len(scores), scores.n_documents) for scores in self.evaluated.values()})
            on = "; ".join(f"{tokens:,} held-out tokens in {documents:,} documents" for tokens, documents in counts)
            found.append(f"metrics on {on}; ±: one standard error, from resampled documents; nats per token")
        if self.skills:
            found.append(
                "skills: the share of right answers of so many (95 % interval); chance is 50 %, and an interval that "
                "holds it tells nothing"
            )
        for name, compared in self.runs.items():
            if not len(compared.log):
                found.append(f"{name} was trained elsewhere: the text, the steps and the time of it are not known")
                continue
            step, steps = int(compared.log["step"].iloc[-1]), compared.run.train_config.steps
            if step < steps:
                found.append(f"{name} was stopped at step {step:,} of {steps:,}")
        return [*found, *left_out_remarks(self.left_out)]

    def _remarks_on_losses(self) -> list[str]:
        if self.chosen.same_validation:
            return []
        if self.in_nats:
            return [
                "the validation losses of these trainings were measured on different numbers of tokens "
                "(train.evaluation_tokens) and are left blank; .evaluate() measures all of them on the same ones"
            ]
        same = self.chosen.same_text
        names = {name: c.run.train_config.data.label if same else c.text_name for name, c in self.runs.items()}
        texts = sorted({f"{names[name]} by {c.run.tokenizer.name}" for name, c in self.runs.items()})
        own = "" if same else ", each run's on its own held-out text"
        remedy = "" if self.evaluated else "; .evaluate() measures them"
        return [
            f"different data or tokenizers ({'; '.join(texts)}): losses per token mean different things and are "
            f"left blank; runs like these compare in bits per byte alone{own}{remedy}"
        ]

    def __repr__(self) -> str:
        return as_text(self.table(), self.remarks)

    def _repr_html_(self) -> str:
        return as_html(self.table(), self.remarks)

    def export(self, path: Path | str, sort: str | None = None) -> None:
        """Writes the table as .csv (plain numbers), .md or .tex (for readers, with the remarks)."""
        write_table(self.table(sort), self.remarks, path)

    # --- two against each other -----------------------------------------------------------------------------------

    def paired(self, a: str | Sequence[str], b: str | Sequence[str], max_tokens: int | None = None) -> "Paired":
        """The difference in loss between two configurations on the same documents, with its confidence interval.

        a, b: a run's name, or those of several seeds of one configuration. In nats per token where both read the same
        tokens, else in bits per byte. Raises ConfigError where the two did not read the same text, or where several
        runs of one side differ in more than their seed.
        """
        from lab.evaluation.paired import paired

        sides = [self.chosen.one_side(side) for side in (a, b)]
        first, second = (self.load_data(side[0]) for side in sides)
        if first.validation.fingerprint != second.validation.fingerprint:
            raise ConfigError(
                f"the held-out documents of {sides[0][0]} are not those of {sides[1][0]}: {text_of(first)} and "
                f"{text_of(second)}. A paired test needs the same ones; compare runs of the same text"
            )
        scores = [[self.score(name, max_tokens) for name in side] for side in sides]
        labels = [group_name(side) for side in sides]
        what = "stories" if first.config.sources == ("tales",) else "documents"
        in_nats = first.tokenizer.fingerprint == second.tokenizer.fingerprint
        return paired(*scores, labels=labels, documents=what, in_nats=in_nats)

    def against_best(self, max_tokens: int | None = None) -> "PairedTests":
        """Tests the configuration of the lowest loss against each other one, the nearest first, seeds averaged.

        Runs that can't be scored are named in the result. Raises ConfigError where there are no two configurations, or
        where they did not read the same text.
        """
        from lab.evaluation.evaluate import check_limits
        from lab.evaluation.paired import PairedTests

        check_limits(max_tokens, ())
        scores, failed = try_each(self.runs, lambda compared: self._scorer.score(compared, max_tokens))
        groups = self.chosen.without(failed).configurations
        if len(groups) < 2:
            found = ", ".join(groups) or "none"
            raise ConfigError(f"a paired test needs two configurations that can be scored, not {found}; choose more")
        means = {group: np.mean([scores[name].bits_per_byte for name in names]) for group, names in groups.items()}
        best, *others = (groups[group] for group in sorted(means, key=means.get))
        return PairedTests(tests=tuple(self.paired(best, other, max_tokens) for other in others), left_out=failed)

    def disagreement(
        self, a: str, b: str, n: int = 5, max_tokens: int | None = None, length: int = 40
    ) -> "Disagreement":
        """The n stretches of held-out text, `length` tokens each, where the losses of two runs differ most.

        Raises ConfigError where the two don't read the same tokens.
        """
        from lab.comparison.disagreement import disagreement

        first, second = (self.load_data(*self.chosen.one_side(name)) for name in (a, b))
        read = [(data.validation.fingerprint, data.tokenizer.fingerprint) for data in (first, second)]
        if read[0] != read[1]:
            raise ConfigError(
                f"{a} reads {text_of(first)} by {first.tokenizer.name}, {b} {text_of(second)} by "
                f"{second.tokenizer.name}: token by token they can't be compared; compare runs of the same tokens"
            )
        sides = [(name, self.score(name, max_tokens)) for name in (a, b)]
        return disagreement(*sides, first.tokenizer, n, length)

    # --- longer than the training ---------------------------------------------------------------------------------

    def extrapolation(self, factors: Sequence[int] | None = None, max_tokens: int = 65_536) -> "Extrapolation":
        """The losses of every run on windows of `factors` times its training length, over the first max_tokens held-out
        tokens. factors: None is 1, 2, 4, 8.

        Runs that can't be read are named in the result. Raises ConfigError for impossible factors, and where the
        longest window exceeds max_tokens.
        """
        from lab.evaluation.extrapolation import (
            FACTORS,
            Extrapolation,
            check_lengths,
            load_long_model,
            losses_by_length,
        )

        def measure(compared: ComparedRun) -> dict[int, np.ndarray]:
            held_out = self._scorer.load_data(compared).validation
            return losses_by_length(load_long_model(compared.run, factors), held_out, factors, max_tokens)

        factors = FACTORS if factors is None else tuple(factors)
        check_lengths(factors, max_tokens, (compared.run.model_config for compared in self.runs.values()))
        found, failed = try_each(self.runs, measure)
        chosen = self.chosen.without(failed)
        unit_factors = {name: chosen.unit_factor(self.load_data(name).validation) for name in chosen.runs}
        losses = {
            group: {
                name: {length: values * unit_factors[name] for length, values in found[name].items()}
                for name in names
            }
            for group, names in chosen.configurations.items()
        }
        contexts = {compared.run.model_config.context_length for compared in chosen.runs.values()}
        return Extrapolation(losses=losses, trained=tuple(sorted(contexts)), unit=chosen.unit, left_out=failed)

    # --- pictures: they change nothing ----------------------------------------------------------------------------

    def curves(
        self, x: str = "steps", y: str = "loss", *, log_x: bool = False, log_y: bool = False,
        smoothing: int | None = None,
    ) -> "Picture":
        """Loss over "steps", "tokens", "seconds" or "flops", a line for each configuration.

        y: "loss" of the training, or "validation_loss". A line is the median of `smoothing` steps (None: a fortieth of
        the run, 1: as logged), with the raw values faintly behind it. Runs that differ in their seed alone are one
        line, their mean, in a band from the lowest to the highest. On tales the dashed line is the floor. Where data
        or tokenizers differ, the unit is bits per byte; the picture then leaves out the runs whose data can't be read,
        and names them. Raises ConfigError for an unknown axis, or for validation losses that can't be compared.
        """
        from lab.comparison.plots import CurveView, curves

        view = CurveView(x=x, y=y, log_x=log_x, log_y=log_y, smoothing=smoothing)
        return curves(self.curve_data(view), view)

    def curves_widget(self) -> "ipywidgets.VBox":
        """The curves with a choice of axes, scales and smoothing, and the values where the mouse or a slider is.

        The static twin: `curves`.
        """
        from lab.comparison.panel import curves_panel

        return curves_panel(self.curve_data)

    def pareto(self, against: str = "parameters") -> "Picture":
        """Loss against "parameters", "seconds" or "flops". The line joins the runs that no other run beats in both.

        The loss is that of the evaluation if there is one, else the validation loss of the training. Raises ConfigError
        where there is none that may be compared.
        """
        from lab.comparison.plots import pareto

        table = self.table()
        metric = next((name for name in ("loss", "validation_loss", "bits_per_byte")
                       if name in table and table[name].notna().any()), None)
        if metric is None:
            raise ConfigError("these runs have no loss that may be compared yet; .evaluate() first")
        return pareto(table, against, metric)

    def curve_data(self, view: "CurveView") -> "CurveData":
        """The numbers that `curves` draws, in the unit that all lines share. Raises ConfigError for validation losses
        that can't be drawn together."""
        from lab.comparison.plots import CurveData, Line

        if view.y == "validation_loss" and not self.chosen.same_validation:
            raise ConfigError(
                "these trainings were validated on different tokens, so their validation losses can't be drawn "
                "together; draw y='loss', or .evaluate() all of them on the same tokens"
            )
        failed = {} if self.in_nats else try_each(self.runs, self._scorer.load_data)[1]
        chosen = self.chosen.without(failed)  # before the unit: the runs that remain may share one
        smoothing = 1 if view.y == "validation_loss" else view.smoothing
        lines = [
            Line(group, [self._logged(chosen, name, view) for name in names], smoothing)
            for group, names in chosen.configurations.items()
        ]
        floors, unknown = self._floors(chosen)
        remarks = [*left_out_remarks(failed), *(f"no floor of {name}: {why}" for name, why in unknown.items())]
        return CurveData(lines=lines, unit=chosen.unit, floors=floors, remarks=remarks)

    def _logged(self, chosen: ChosenRuns, name: str, view: "CurveView") -> tuple[np.ndarray, np.ndarray]:
        at, values = chosen.runs[name].logged(view.x, view.y)
        if chosen.in_nats:
            return at, values
        return at, values * chosen.unit_factor(self.load_data(name).train)

    def floors(self) -> dict[str, float]:
        """The entropy of each grammar that wrote a text, in the unit that all runs share. A text that can't be read has
        none."""
        return self._floors(self.chosen)[0]

    def _floors(self, chosen: ChosenRuns) -> tuple[dict[str, float], dict[str, str]]:
        """The floors by name, and by run why the floor of its text is unknown."""
        on_tales = {name: one for name, one in chosen.runs.items() if one.data_settings.sources == ("tales",)}
        texts, failed = try_each(on_tales, self._scorer.load_data)
        floors, seeds = {}, {}
        for data in texts.values():
            if data.floor is not None:
                seeds[data.validation.fingerprint] = data.config.seed
                floors[data.validation.fingerprint] = data.floor * chosen.unit_factor(data.validation)
        named = {f"floor of seed {seeds[text]}" if len(floors) > 1 else "floor": floors[text] for text in floors}
        return named, failed


def text_of(data: TokenData) -> str:
    return f"{data.config.label} [{data.validation.fingerprint}]"
