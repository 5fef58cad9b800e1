"""Is A better than B? A paired bootstrap test: both read the same documents, and the documents are resampled.

A document that is hard for A is hard for B too. Pairing removes this, so the difference is known far better than either
loss. The words claim no more than the evidence: one run on a side says nothing about the idea behind it, however clear
the difference is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from lab.evaluation.bootstrap import CONFIDENCE, interval, resampled_sums
from lab.evaluation.scores import BYTES, LOSS, TOKENS, Scores
from settings.errors import DataError
from settings.messages import left_out_remarks


@dataclass(frozen=True, kw_only=True, repr=False)
class Paired:
    """difference: loss of a − loss of b, in `unit`; low, high: its 95 % interval over documents.

    losses_a, losses_b: of each seed alone, on the same documents.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    unit: str
    n_documents: int
    documents: str
    losses_a: tuple[float, ...]
    losses_b: tuple[float, ...]

    @property
    def margin(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    @property
    def can_be_told(self) -> bool:
        return not self.low <= 0 <= self.high

    @property
    def better(self) -> str | None:
        """The name of the one with the lower loss, None where no difference can be told."""
        return (self.a if self.difference < 0 else self.b) if self.can_be_told else None

    def __str__(self) -> str:
        on = f"on the same {self.n_documents:,} {self.documents}"
        interval = f"{CONFIDENCE:.0%} interval".replace("%", " %")
        if self.can_be_told:
            worse = self.b if self.better == self.a else self.a
            is_lower = "has a lower loss than" if self._single else "is better than"
            said = f"{self.better} {is_lower} {worse} by {abs(self.difference):.4f} ± {self.margin:.4f} "
            return f"{said}{self.unit} {on} ({interval}). {self._seeds()}"
        return (
            f"no difference can be told: {self.a} − {self.b} lies between {self.low:+.4f} and {self.high:+.4f} "
            f"{self.unit} {on} ({interval}). {self._seeds()}"
        )

    __repr__ = __str__

    @property
    def _single(self) -> list[str]:
        """The sides that are one run."""
        return [name for name, losses in ((self.a, self.losses_a), (self.b, self.losses_b)) if len(losses) == 1]

    def _seeds(self) -> str:
        beyond = "Seeds add a noise of their own, which this interval does not hold"
        runs = "these two runs" if len(self._single) == 2 else f"one run, {self._single[0]}" if self._single else ""
        about = f" This is about {runs}, and not about ideas." if runs else ""
        several = [
            f"{min(losses):.4f} to {max(losses):.4f} for the {len(losses)} of {name}"
            for name, losses in ((self.a, self.losses_a), (self.b, self.losses_b))
            if len(losses) > 1
        ]
        if several:
            return f"The mean over seeds was taken for each document. {beyond}: {', '.join(several)}.{about}"
        return f"{beyond}.{about}"


@dataclass(frozen=True, kw_only=True, repr=False)
class PairedTests:
    """tests: the best configuration against each other one. left_out: the runs not scored, each with the reason."""

    tests: tuple[Paired, ...]
    left_out: Mapping[str, str]

    def __iter__(self) -> Iterator[Paired]:
        return iter(self.tests)

    def __len__(self) -> int:
        return len(self.tests)

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.tests), *left_out_remarks(self.left_out)])


def paired(
    a: Sequence[Scores], b: Sequence[Scores], *, labels: Sequence[str], documents: str = "documents",
    in_nats: bool = True,
) -> Paired:
    """Compares a with b, each the scores of one run or of several seeds. The seeds are averaged for each document.

    in_nats: all scored exactly the same tokens. Otherwise bits per byte are compared, on the documents that all scored
    from the first to the last token. Raises DataError where the scores are not of the same text, or hold fewer than
    two documents.
    """
    found = [*a, *b]
    if not in_nats:
        common = common_documents(found)
        found = [scores.of_documents(common) for scores in found]
    unit = TOKENS if in_nats else BYTES
    sizes = found[0].sums[:, unit]
    if any(len(scores.sums) != len(sizes) or (scores.sums[:, unit] != sizes).any() for scores in found):
        raise DataError("the two sides did not score the same documents; score both on the same held-out tokens")
    if len(sizes) < 2:
        raise DataError(f"{len(sizes)} document shows no spread; score 2 or more, with a larger max_tokens")
    per_unit = 1.0 if in_nats else 1 / log(2)
    losses = [scores.sums[:, LOSS] * per_unit for scores in found]
    difference = np.mean(losses[: len(a)], axis=0) - np.mean(losses[len(a) :], axis=0)
    drawn = resampled_sums(np.stack([difference, sizes], axis=1))
    low, high = interval(drawn[:, 0] / drawn[:, 1])
    of_each = [float(loss.sum() / sizes.sum()) for loss in losses]
    return Paired(
        a=labels[0], b=labels[1], difference=float(difference.sum() / sizes.sum()), low=low, high=high,
        unit="nats per token" if in_nats else "bits per byte", n_documents=len(sizes), documents=documents,
        losses_a=tuple(of_each[: len(a)]), losses_b=tuple(of_each[len(a) :]),
    )


def common_documents(scores: Sequence[Scores]) -> range:
    """The documents of which all of them scored every token. Raises DataError where there is none."""
    whole = [found.whole_documents for found in scores]
    common = range(max(documents.start for documents in whole), min(documents.stop for documents in whole))
    if not common:
        raise DataError("no document was scored whole by all; raise max_tokens")
    return common
