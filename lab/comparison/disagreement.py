"""Where two models disagree: the stretches of text in which the losses of two runs differ most."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from lab.data.tokenizers import Tokenizer
from lab.display import palette
from lab.display.token_box import split_end, token_box, visible
from lab.evaluation.scores import Scores
from settings.errors import ConfigError, DataError

# The line below the token shows the same as the colour
FIRST, SECOND = (palette.FIRST, "solid"), (palette.SECOND, "dotted")
FULL = 3.0  # nats of difference at which a colour has its full strength
CLEAR = 0.5  # nats of difference from which a token is marked in plain text


@dataclass(frozen=True, eq=False, repr=False)
class Disagreement:
    """tokens: a row for each token of the stretches: stretch, document and position in it (from 0 on), token, the loss
    and the rank of the token under each run, and the difference a − b, below 0 where a did better."""

    labels: tuple[str, str]
    tokens: pd.DataFrame

    def _repr_html_(self) -> str:
        keys = [_box(f" {name} better ", end, "") for name, end in zip(self.labels, (-FULL, FULL))]
        title = " ".join([*keys, "the stronger the colour, the larger the difference; point at a token for its losses"])
        parts = [f'<div style="line-height:1.9"><div>{title}</div>']
        for number, rows in self.tokens.groupby("stretch"):
            boxes = "".join(
                _box(visible(row.token), row.difference, self._hint(row)) for row in rows.itertuples()
            )
            head = escape(self._head(number, rows))
            parts.append(f'<div style="margin-top:.6em;opacity:.8">{head}</div><div style="font-family:monospace;')
            parts.append(f'white-space:pre-wrap;overflow-wrap:anywhere">{boxes}</div>')
        return "".join([*parts, "</div>"])

    def _hint(self, row) -> str:
        a, b = self.labels
        of_a, of_b = f"{row.loss_a:.2f} nats, rank {row.rank_a:,}", f"{row.loss_b:.2f} nats, rank {row.rank_b:,}"
        return f"{a}: {of_a}; {b}: {of_b}"

    def _head(self, number: int, rows: pd.DataFrame) -> str:
        losses = [f"{name} {rows[of].mean():.2f}" for name, of in zip(self.labels, ("loss_a", "loss_b"))]
        return f"{number}. document {rows['document'].iloc[0]:,}, mean loss: {', '.join(losses)} nats"

    def __str__(self) -> str:
        a, b = self.labels
        lines = [f"after a token: ▲ {a} better, ▼ {b} better, by so many nats where it is {CLEAR} or more"]
        for number, rows in self.tokens.groupby("stretch"):
            marked = "".join(_with_arrow(visible(row.token), row.difference) for row in rows.itertuples())
            lines += ["", self._head(number, rows), marked]
        return "\n".join(lines)

    __repr__ = __str__


def disagreement(
    first: tuple[str, Scores], second: tuple[str, Scores], tokenizer: Tokenizer, n: int = 5, length: int = 40
) -> Disagreement:
    """The n stretches of `length` tokens in which Σ|loss of a − loss of b| is largest. No two overlap, and each is
    within one document.

    first, second: a label and the scores. Raises DataError where the two did not score the same tokens, or no document
    is so long.
    """
    (label_a, a), (label_b, b) = first, second
    if n < 1 or length < 1:
        raise ConfigError(f"n and length must be 1 or more, not {n} and {length}")
    if not np.array_equal(a.targets, b.targets):
        raise DataError("the two did not score the same tokens; score both on the same held-out tokens")
    difference = a.losses.astype(float) - b.losses
    starts = stretches(np.abs(difference), a.documents, n, length)
    if not starts:
        raise DataError(f"no document has {length} tokens in a row; lower length, or raise max_tokens")
    first_of = np.searchsorted(a.documents, np.arange(a.n_documents))
    frames = []
    for number, start in enumerate(starts, 1):
        chosen = slice(start, start + length)
        document = int(a.documents[start])
        frames.append(pd.DataFrame({
            "stretch": number, "document": document, "position": np.arange(start, start + length) - first_of[document],
            "token": [tokenizer.decode([id]) for id in a.targets[chosen]],
            "loss_a": a.losses[chosen], "loss_b": b.losses[chosen],
            "rank_a": a.ranks[chosen], "rank_b": b.ranks[chosen], "difference": difference[chosen],
        }))
    return Disagreement((label_a, label_b), pd.concat(frames, ignore_index=True))


def stretches(values: np.ndarray, documents: np.ndarray, n: int, length: int) -> list[int]:
    """The first places of the stretches with the largest sums, largest first: no overlap, each inside one document."""
    if len(values) < length:
        return []
    sums = np.convolve(values, np.ones(length), mode="valid")
    sums[documents[: len(sums)] != documents[length - 1 :]] = -np.inf
    starts: list[int] = []
    while len(starts) < n and np.isfinite(best := sums.max()):
        start = int(np.flatnonzero(sums == best)[0])
        starts.append(start)
        sums[max(0, start - length + 1) : start + length] = -np.inf
    return starts


def _box(text: str, difference: float, hint: str) -> str:
    colour, line = FIRST if difference < 0 else SECOND
    strength = min(1.0, abs(difference) / FULL)
    marked = strength >= CLEAR / FULL
    below = f"border-bottom:2px {line} {palette.translucent(colour, round(strength, 2))}" if marked else ""
    return token_box(text, hint, palette.translucent(colour, round(0.6 * strength, 2)), style=below)


def _with_arrow(text: str, difference: float) -> str:
    if abs(difference) < CLEAR:
        return text
    inside, end = split_end(text)
    return f"{inside}{'▲' if difference < 0 else '▼'}{abs(difference):.1f} {end}"
