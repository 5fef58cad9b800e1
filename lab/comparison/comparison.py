"""Runs compared fairly: on the same held-out tokens, in units that mean the same, with what chance alone can do.

    comparison = compare("positions-*").evaluate(max_tokens=32_768)
    comparison.table(sort="loss")

A run that can't be compared is left out and listed with the reason; it never stops the others.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lab.comparison import table as comparison_table
from lab.comparison.compared import Chosen, Compared, open_runs
from lab.comparison.scored_runs import ScoredRuns
from lab.data.packing import TokenData
from settings.errors import ConfigError, RunError
from settings.messages import suggest

if TYPE_CHECKING:
    import ipywidgets

    from lab.comparison.disagreement import Disagreement
    from lab.comparison.plots import Line
    from lab.display.style import Picture
    from lab.evaluation.extrapolation import Extrapolation
    from lab.evaluation.paired import Paired

PER_TOKEN = ("loss", "perplexity", "top_")  # metrics that mean another thing with another tokenizer or other data


def compare(runs: Chosen = None, folder: Path | str | None = None) -> "Comparison":
    """The runs of `folder` (None: trained/) that are chosen: by name, by a glob such as "factored-*", by a query over
    all runs such as "parameters < 1e6 and architecture == 'llama'", or by a list of these; None: all.

    Raises RunError where a name or a glob chooses no run, ConfigError for a query that can't be asked.
    """
    return Comparison(*open_runs(runs, folder and Path(folder)))


class Comparison(ScoredRuns):
    """Runs beside each other. runs: by name. left_out: the others, each with the reason."""

    @property
    def configurations(self) -> dict[str, list[str]]:
        """The names of the runs that differ in their seed alone, by what they have in common; by all of the names
        where others have the same in common. A copy of a run is no further seed: it stands by itself. Neither is a
        run of the same settings on another text."""
        groups: dict[tuple, list[str]] = {}
        copies: Counter = Counter()
        texts: dict[tuple, set] = {}
        for compared in self.runs.values():
            texts.setdefault(compared.configuration, set()).update(known_texts([compared]))
        for name, compared in self.runs.items():
            several = len(texts[compared.configuration]) > 1
            alike = compared.configuration, tuple(known_texts([compared])) if several else ()
            run = *alike, compared.run.train_config.seed
            groups.setdefault((*alike, copies[run]), []).append(name)
            copies[run] += 1
        labels = [group_name(names) for names in groups.values()]
        return {
            label if labels.count(label) == 1 else ", ".join(names): names
            for label, names in zip(labels, groups.values())
        }

    # --- the table ------------------------------------------------------------------------------------------------

    def table(self, sort: str | None = None) -> pd.DataFrame:
        """A row for each run: what it reached, what it is and took, the settings that differ; bare numbers.

        flops and seconds are the whole training's, memory is in bytes, losses in nats per token. *_error is a standard
        error; *_low and *_high are the ends of a skill's 95 % interval, *_asked its number of questions. Losses are NaN
        where they would compare what can't be compared. sort: a column; "-column" for falling.
        """
        if not self.runs:
            return pd.DataFrame(index=pd.Index([], name="run"))
        table = comparison_table.facts(self.runs).join(comparison_table.differing_settings(self.runs))
        if not self.same_validation:
            table["validation_loss"] = math.nan
        if self.evaluated:
            table = pd.DataFrame({name: self._metrics(name) for name in self.runs}).T.join(table)
        return comparison_table.ordered(table.rename_axis("run"), sort)

    def _metrics(self, name: str) -> dict[str, float]:
        found, row = self.evaluated[name], {}
        errors = found.standard_errors()
        for metric, value in found.metrics.items():
            known = self.in_nats or not metric.startswith(PER_TOKEN)
            values = (value, errors[metric]) if known else (math.nan, math.nan)
            row |= dict(zip((metric, metric + comparison_table.ERROR), values))
        for skill, answers in self.skills.get(name, {}).items():
            values = (answers.share, *answers.interval, answers.asked)
            row |= dict(zip((f"skill {skill}{end}" for end in ("", *comparison_table.ENDS)), values))
        return row

    @property
    def remarks(self) -> list[str]:
        """What one must know to read the table: what is blank and why, what is measured on what, who is left out."""
        found = []
        if not self.in_nats:
            same = self.same_text
            names = {name: c.run.train_config.data.source if same else c.text_name for name, c in self.runs.items()}
            texts = sorted({f"{names[name]} by {c.run.tokenizer.name}" for name, c in self.runs.items()})
            own = "" if self.same_text else ", each run's on its own held-out text"
            remedy = "" if self.evaluated else "; .evaluate() measures them"
            found.append(
                f"different data or tokenizers ({'; '.join(texts)}): losses per token mean different things and are "
                f"left blank; runs like these compare in bits per byte alone{own}{remedy}"
            )
        elif not self.same_validation:
            found.append(
                "the validation losses of these trainings were measured on different numbers of tokens "
                "(train.evaluation_tokens) and are left blank; .evaluate() measures all of them alike"
            )
        if self.evaluated:
            counts = sorted({(len(scores), scores.n_documents) for scores in self.evaluated.values()})
            on = "; ".join(f"{tokens:,} held-out tokens in {documents:,} documents" for tokens, documents in counts)
            found.append(f"metrics on {on}; ±: one standard error, the documents drawn anew; nats per token")
        if self.skills:
            found.append(
                "skills: the share of right answers of so many (95 % interval); chance is 50 %, and an interval that "
                "holds it tells nothing"
            )
        for name, compared in self.runs.items():
            step, steps = int(compared.log["step"].iloc[-1]), compared.run.train_config.steps
            if step < steps:
                found.append(f"{name} was stopped at step {step:,} of {steps:,}")
        return [*found, *(f"left out: {name}: {reason}" for name, reason in self.left_out.items())]

    def __repr__(self) -> str:
        return comparison_table.as_text(self.table(), self.remarks)

    def _repr_html_(self) -> str:
        return comparison_table.as_html(self.table(), self.remarks)

    def export(self, path: Path | str, sort: str | None = None) -> None:
        """The table as .csv (bare numbers), .md or .tex (as shown, with the remarks)."""
        comparison_table.export(self.table(sort), self.remarks, path)

    # --- two against each other -----------------------------------------------------------------------------------

    def paired(self, a: str | Sequence[str], b: str | Sequence[str], max_tokens: int | None = None) -> "Paired":
        """The difference in loss between two configurations on the same documents, with its confidence interval.

        a, b: a run's name, or those of several seeds of one configuration. In nats per token where both read the same
        tokens, else in bits per byte. Raises ConfigError where the two did not read the same text, or where several
        runs of one side differ in more than their seed.
        """
        from lab.evaluation.paired import paired

        sides = [self._seeds(side) for side in (a, b)]
        first, second = (self.data(side[0]) for side in sides)
        if first.validation.fingerprint != second.validation.fingerprint:
            raise ConfigError(
                f"{sides[0][0]} was held out other documents than {sides[1][0]}: {text_of(first)} and "
                f"{text_of(second)}. A paired test needs the same ones; compare runs of the same text"
            )
        scores = [[self.scores(name, max_tokens) for name in side] for side in sides]
        labels = [group_name(side) for side in sides]
        what = "stories" if first.config.source == "tales" else "documents"
        in_nats = first.tokenizer.fingerprint == second.tokenizer.fingerprint
        return paired(*scores, labels=labels, documents=what, in_nats=in_nats)

    def against_best(self, max_tokens: int | None = None) -> list["Paired"]:
        """The configuration of the lowest loss against each other one, the nearest first, seeds averaged.

        Raises ConfigError where there are no two, or where they did not read the same text.
        """
        self.each(list(self.runs), lambda name: self.scores(name, max_tokens))
        if len(self.configurations) < 2:
            found = ", ".join(self.configurations) or "none"
            raise ConfigError(f"a paired test needs two configurations that can be scored, not {found}; choose more")
        means = {
            group: np.mean([self.scores(name, max_tokens).metrics["bits_per_byte"] for name in names])
            for group, names in self.configurations.items()
        }
        ranked = [self.configurations[group] for group in sorted(means, key=means.get)]
        return [self.paired(ranked[0], other, max_tokens) for other in ranked[1:]]

    def disagreement(
        self, a: str, b: str, n: int = 5, max_tokens: int | None = None, length: int = 40
    ) -> "Disagreement":
        """The n stretches of held-out text, `length` tokens each, where the losses of two runs differ most.

        Raises ConfigError where the two don't read the same tokens.
        """
        from lab.comparison.disagreement import disagreement

        first, second = (self.data(self._seeds(name)[0]) for name in (a, b))
        read = [(data.validation.fingerprint, data.tokenizer.fingerprint) for data in (first, second)]
        if read[0] != read[1]:
            raise ConfigError(
                f"{a} reads {text_of(first)} by {first.tokenizer.name}, {b} {text_of(second)} by "
                f"{second.tokenizer.name}: token by token they can't be compared; compare runs of the same tokens"
            )
        scores = [self.scores(name, max_tokens) for name in (a, b)]
        return disagreement(*scores, labels=(a, b), tokenizer=first.tokenizer, n=n, length=length)

    def _seeds(self, names: str | Sequence[str]) -> list[str]:
        """One side of a paired test. Raises RunError for a run that is not there, ConfigError for unequal ones."""
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self.runs:
                reason = self.left_out.get(name)
                raise RunError(
                    f"{name!r} was left out: {reason}" if reason
                    else f"{name!r} is not in this comparison; {suggest(name, self.runs)}"
                )  # fmt: skip
        runs = [self.runs[name] for name in names]
        seeds = {compared.run.train_config.seed for compared in runs}
        alike = len({compared.configuration for compared in runs}) == 1 and len(known_texts(runs)) <= 1
        if not alike or len(seeds) < len(names):
            given = ", ".join(names) or "none"
            raise ConfigError(f"a side is one run, or several that differ in their seed alone, not {given}")
        return names

    # --- longer than the training ---------------------------------------------------------------------------------

    def extrapolation(self, factors: Sequence[int] | None = None, max_tokens: int = 65_536) -> "Extrapolation":
        """Every run on the first max_tokens held-out tokens, in windows of `factors` times its training length.

        factors: None is 1, 2, 4, 8.
        In `unit`. Raises ConfigError where the factors make no sense, or the longest window exceeds max_tokens.
        """
        from lab.evaluation.extrapolation import FACTORS, Extrapolation, check_lengths, far_reaching, losses_by_length

        def measure(name: str) -> dict[int, np.ndarray]:
            model = far_reaching(self.runs[name].run, factors)
            return losses_by_length(model, self.data(name).validation, factors, max_tokens)

        factors = FACTORS if factors is None else tuple(factors)
        check_lengths(factors, max_tokens, (compared.run.model_config for compared in self.runs.values()))
        found = self.each(list(self.runs), measure)
        losses = {
            group: {
                name: {length: values * self.to_unit(name, "validation") for length, values in found[name].items()}
                for name in names
            }
            for group, names in self.configurations.items()
        }
        contexts = {compared.run.model_config.context_length for compared in self.runs.values()}
        return Extrapolation(losses=losses, trained=tuple(sorted(contexts)), unit=self.unit)

    # --- pictures -------------------------------------------------------------------------------------------------

    def curves(
        self, x: str = "steps", y: str = "loss", *, log_x: bool = False, log_y: bool = False,
        smoothing: int | None = None,
    ) -> "Picture":  # fmt: skip
        """Loss over "steps", "tokens", "seconds" or "flops", a line for each configuration.

        y: "loss" of the training, or "validation_loss". The line is the median of `smoothing` steps (None: a fortieth
        of the run, 1: as logged), the raw values lie faintly behind it. Runs that differ in their seed alone are one
        line, their mean, in a band from the lowest to the highest. On tales the dashed line is the floor. Different
        tokenizers or data: in bits per byte. Raises ConfigError for an unknown axis, or validation losses that can't
        be compared.
        """
        from lab.comparison.plots import curves

        return curves(self.lines(y, smoothing), self.floors(), x, y, self.unit, log_x=log_x, log_y=log_y)

    def curves_widget(self) -> "ipywidgets.VBox":
        """The curves with a choice of axis, scales and smoothing, and the values where the mouse or a slider is.

        The static twin: `curves`.
        """
        from lab.comparison.panel import curves_panel

        return curves_panel(self.lines, self.floors(), self.unit)

    def pareto(self, against: str = "parameters") -> "Picture":
        """Loss against "parameters", "seconds" or "flops"; the line joins the runs that none beats in both.

        The loss is the evaluated one if there is one, else the validation loss of the training. Raises ConfigError
        where there is none that may be compared.
        """
        from lab.comparison.plots import pareto

        table = self.table()
        metric = next((name for name in ("loss", "validation_loss", "bits_per_byte")
                       if name in table and table[name].notna().any()), None)  # fmt: skip
        if metric is None:
            raise ConfigError("these runs have no loss that may be compared yet; .evaluate() first")
        return pareto(table, against, metric)

    def lines(self, y: str, smoothing: int | None) -> list["Line"]:
        """A line for each configuration, in the unit that all share. Raises ConfigError for what can't be drawn."""
        from lab.comparison.plots import Line

        if smoothing is not None and smoothing < 1:
            raise ConfigError(f"smoothing is the median of so many steps: 1 or more, not {smoothing}")
        if y == "validation_loss" and not self.same_validation:
            raise ConfigError(
                "these trainings were validated on different tokens, so that their validation losses can't be drawn "
                "together; draw y='loss', or .evaluate() them all alike"
            )
        if not self.in_nats:
            self.each(list(self.runs), self.data)  # before the unit: who is left may share one
        scales = {name: self.to_unit(name, "train") for name in self.runs}
        return [
            Line(group, [(self.runs[name], scales[name]) for name in names], y, smoothing)
            for group, names in self.configurations.items()
        ]


def known_texts(runs: Iterable[Compared]) -> set[tuple[str, str]]:
    """The fingerprints of the texts that the runs have a record of, to learn from and held out."""
    return {(compared.run.text.train, compared.run.text.validation) for compared in runs if compared.run.text}


def text_of(data: TokenData) -> str:
    return f"{data.config.source} [{data.validation.fingerprint}]"


def group_name(names: Sequence[str]) -> str:
    """What the names of several seeds have in common, with their number; a single name as it is."""
    if len(names) == 1:
        return names[0]
    stems = {re.sub(r"[-_.]*(seed)?[-_.]*\d+$", "", name) for name in names}  # as in NAME-seed0, NAME-2
    return f"{min(stems, key=len)} ({len(names)} seeds)"
