"""Runs that are scored on the same held-out tokens, each once; whoever can't be is left out."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lab.comparison.compared import Compared, same_text, same_tokens
from lab.data.packing import TokenData
from settings.errors import GlassboxError

if TYPE_CHECKING:
    from lab.evaluation.evaluate import Answers
    from lab.evaluation.scores import Scores


class ScoredRuns:
    """runs: by name. left_out: the others, each with the reason. evaluated: the scores of the last evaluation."""

    def __init__(self, runs: dict[str, Compared], left_out: dict[str, str]):
        self.runs, self.left_out = runs, left_out
        self.evaluated: dict[str, Scores] = {}
        self.skills: dict[str, dict[str, Answers]] = {}
        self._scores: dict[tuple, Scores] = {}
        self._data: dict[tuple, TokenData] = {}

    @property
    def in_nats(self) -> bool:
        """Whether all runs read the same tokens: then losses per token compare, else bits per byte alone."""
        return same_tokens(self.runs.values())

    @property
    def same_text(self) -> bool:
        """Whether all runs were held out the same documents, as far as their records and settings tell."""
        return same_text(self.runs.values())

    @property
    def same_validation(self) -> bool:
        """Whether the validation losses of the trainings were measured on the same tokens."""
        lengths = {compared.run.train_config.evaluation_tokens for compared in self.runs.values()}
        return self.in_nats and len(lengths) <= 1

    @property
    def unit(self) -> str:
        return "nats per token" if self.in_nats else "bits per byte"

    def evaluate(self, max_tokens: int | None = None, top: Sequence[int] | None = None, stories: int = 0):
        """Scores every run on its first max_tokens held-out tokens (None: all); the table has the metrics then.

        top: the k of the top-k accuracies (None: 1, 5, 10). stories: on tales, how many held-out ones to ask about for
        the skills. One text in several tokenizers is scored on the documents that all of them hold whole. Gives itself
        back. Raises ConfigError for impossible arguments, DataError where max_tokens holds no whole document.
        """
        from lab.evaluation.paired import common_documents
        from lab.evaluation.scores import check_limits, skills

        def skills_of(name: str) -> "dict[str, Answers]":
            run = self.runs[name].run
            return skills(run.load_model(), run.tokenizer, run.train_config.data, stories)

        check_limits(max_tokens, top)
        evaluated = self.each(list(self.runs), lambda name: self.scores(name, max_tokens, top))
        if evaluated and self.same_text and not self.in_nats:
            common = common_documents(list(evaluated.values()))
            evaluated = {name: found.of_documents(common) for name, found in evaluated.items()}
        self.evaluated = evaluated
        self.skills = self.each(list(evaluated), skills_of) if stories else {}
        return self

    def scores(self, name: str, max_tokens: int | None = None, top: Sequence[int] | None = None) -> "Scores":
        """Every held-out token of a run scored, once for the same arguments. Raises what reading the run raises."""
        from lab.evaluation.scores import TOP, score

        top = TOP if top is None else tuple(top)
        if (name, max_tokens, top) not in self._scores:
            run = self.runs[name].run
            self._scores[name, max_tokens, top] = score(
                run.load_model(), self.data(name).validation, run.tokenizer, max_tokens, top
            )
        return self._scores[name, max_tokens, top]

    def data(self, name: str) -> TokenData:
        """What the run was trained and is scored on."""
        run = self.runs[name].run
        key = run.train_config.data, run.tokenizer.fingerprint, run.text
        if key not in self._data:
            self._data[key] = run.load_data()
        return self._data[key]

    def each(self, names: Sequence[str], do: Callable[[str], object]) -> dict[str, object]:
        """do(name) of each run; one that can't be read is left out from then on, with the reason."""
        found = {}
        for name in names:
            try:
                found[name] = do(name)
            except GlassboxError as error:
                self.left_out[name] = str(error).replace("\n", " ")
                del self.runs[name]
        return found

    def to_unit(self, name: str, side: str) -> float:
        """What takes nats per token of a run to `unit`, by the tokens and bytes of a side of its data."""
        if self.in_nats:
            return 1.0
        tokens = getattr(self.data(name), side)
        return len(tokens) / tokens.n_bytes / math.log(2)

    def floors(self) -> dict[str, float]:
        """The entropy of each grammar that wrote a text, in `unit`."""
        told = [name for name, compared in self.runs.items() if compared.data_settings.source == "tales"]
        floors, seeds = {}, {}
        for name, data in self.each(told, self.data).items():
            if data.floor is not None:
                seeds[data.validation.fingerprint] = data.config.seed
                floors[data.validation.fingerprint] = data.floor * self.to_unit(name, "validation")
        return {f"floor of seed {seeds[text]}" if len(floors) > 1 else "floor": floors[text] for text in floors}
