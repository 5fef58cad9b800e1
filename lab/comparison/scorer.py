"""Scores the runs of a comparison on their held-out tokens. Each text is read once, and each run scored once."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lab.comparison.chosen_runs import one_line
from lab.comparison.compared_run import ComparedRun
from lab.data.packing import TokenData
from settings.errors import GlassboxError

if TYPE_CHECKING:
    from lab.evaluation.probes import Answers
    from lab.evaluation.scores import Scores


class Scorer:
    """Keeps the texts that it has read and the scores that it has computed."""

    def __init__(self):
        self._data: dict[tuple, TokenData] = {}
        self._scores: dict[tuple, Scores] = {}

    def load_data(self, compared: ComparedRun) -> TokenData:
        """The tokens that the run was trained on and is scored on."""
        run = compared.run
        key = run.train_config.data, run.tokenizer.fingerprint, run.text
        if key not in self._data:
            self._data[key] = run.load_data()
        return self._data[key]

    def score(
        self, compared: ComparedRun, max_tokens: int | None = None, top: Sequence[int] | None = None
    ) -> "Scores":
        """Scores the first max_tokens held-out tokens (None: all). top: the k of the top-k accuracies (None: 1, 5, 10).

        Raises the errors of reading the run.
        """
        from lab.evaluation.evaluate import TOP, evaluate

        top = TOP if top is None else tuple(top)
        key = compared, max_tokens, top
        if key not in self._scores:
            run = compared.run
            held_out = self.load_data(compared).validation
            self._scores[key] = evaluate(run.load_model(), held_out, run.tokenizer, max_tokens, top)
        return self._scores[key]

    def answer_questions(self, compared: ComparedRun, n_stories: int) -> "dict[str, Answers]":
        """By skill, the run's answers to the questions about n_stories held-out tales; {} for other texts."""
        from lab.evaluation.probes import skills

        run = compared.run
        return skills(run.load_model(), run.tokenizer, run.train_config.data, n_stories)


def try_each(
    runs: Mapping[str, ComparedRun], do: Callable[[ComparedRun], object]
) -> tuple[dict[str, object], dict[str, str]]:
    """do(run) for each of the runs, by name; and the reason for each run that it failed for."""
    found, failed = {}, {}
    for name, compared in runs.items():
        try:
            found[name] = do(compared)
        except GlassboxError as error:
            failed[name] = one_line(error)
    return found, failed
