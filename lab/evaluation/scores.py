"""The scores of a model on a text: for each token its loss, its rank and its place. All other numbers follow."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lab.evaluation.bootstrap import RESAMPLES, resampled_sums

LOSS, TOKENS, BYTES = 0, 1, 2  # columns of Scores.sums


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scores:
    """The scores of each of N tokens; arrays (N,) in the order of the text.

    losses: nats. ranks: 1 where the true token was the likeliest; None where `top` is empty. targets: the ids.
    positions: in the window, from 0 on. documents: their number, from 0 on; an end of text belongs to the document
    that it ends. n_bytes: of text. whole_end: whether the last document is complete. total_loss: the sum of the losses,
    added up batch by batch.
    """

    losses: np.ndarray
    ranks: np.ndarray | None
    targets: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    n_bytes: np.ndarray
    top: tuple[int, ...]
    whole_end: bool
    total_loss: float

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def loss(self) -> float:
        """The mean loss, nats per token."""
        return self.metrics["loss"]

    @property
    def perplexity(self) -> float:
        return self.metrics["perplexity"]

    @property
    def bits_per_byte(self) -> float:
        """A measure that compares models with different tokenizers."""
        return self.metrics["bits_per_byte"]

    @property
    def n_documents(self) -> int:
        return int(self.documents[-1]) + 1

    @property
    def whole_documents(self) -> range:
        """The documents of which every token was scored. The first never is: nothing predicts its first token."""
        return range(1, self.n_documents if self.whole_end else self.n_documents - 1)

    def of_documents(self, chosen: range) -> "Scores":
        """The scores of some documents alone, numbered from 0 on again."""
        inside = (self.documents >= chosen.start) & (self.documents < chosen.stop)
        names = ("losses", "targets", "positions", "n_bytes", *(["ranks"] if self.top else []))
        kept = {name: getattr(self, name)[inside] for name in names}
        total = float(self.sums[chosen.start : chosen.stop, LOSS].sum())
        numbers = self.documents[inside] - chosen.start
        return replace(self, **kept, documents=numbers, whole_end=True, total_loss=total)

    @cached_property
    def sums(self) -> np.ndarray:
        """By document: loss, tokens, bytes, and hits for each k; (documents, 3 + len(top))."""
        hits = [self.ranks <= k for k in self.top]
        columns = [self.losses, np.ones(len(self)), self.n_bytes, *hits]
        return np.stack([np.bincount(self.documents, column) for column in columns], axis=1)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """loss (nats per token), perplexity, bits_per_byte, and top_k: the share of tokens among the k likeliest."""
        totals = self.sums.sum(0)
        totals[LOSS] = self.total_loss
        return {name: float(value) for name, value in self._metrics(totals).items()}

    def standard_errors(self) -> dict[str, float]:
        """The bootstrap's standard error of each metric; NaN where there is one document only."""
        if self.n_documents == 1:
            return dict.fromkeys(self.metrics, float("nan"))
        drawn = self._metrics(resampled_sums(self.sums))
        return {name: float(values.std(ddof=1)) for name, values in drawn.items()}

    def _metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        loss, tokens, n_bytes, *hits = np.moveaxis(sums, -1, 0)
        with np.errstate(divide="ignore"):  # ends of text alone have no byte
            bits = loss / n_bytes / np.log(2)
        shares = {f"top_{k}": hit / tokens for k, hit in zip(self.top, hits)}
        return {"loss": loss / tokens, "perplexity": np.exp(loss / tokens), "bits_per_byte": bits} | shares

    def loss_by_position(self) -> np.ndarray:
        """The mean loss (nats) at each position in the window."""
        return np.bincount(self.positions, self.losses) / np.bincount(self.positions)

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f} nats per token, perplexity {self.perplexity:.2f}, "
            f"{self.bits_per_byte:.4f} bits per byte, over {len(self):,} tokens"
        )

    def __repr__(self) -> str:
        errors = self.standard_errors()
        width = max(map(len, self.metrics)) + 2
        lines = [
            f"{name.replace('_', ' '):{width}}{with_error(name, value, errors[name])}"
            for name, value in self.metrics.items()
        ]
        resampled = f"±: one standard error, from {RESAMPLES:,} random draws of the {self.n_documents:,} documents"
        alone = "no standard error: it is one document"
        documents = f"{self.n_documents:,} document{'s' * (self.n_documents > 1)}"
        title = f"over {len(self):,} tokens in {documents}, {int(self.n_bytes.sum()):,} bytes"
        return "\n".join([title, *lines, resampled if self.n_documents > 1 else alone, self._positions_line()])

    def _positions_line(self) -> str:
        by_position, parts = self.loss_by_position(), []
        for start in (2**i for i in range(len(by_position).bit_length())):  # doubling: the first differ most
            end = min(2 * start - 1, len(by_position))
            name = f"{start}–{end}" if end > start else f"{start}"
            parts.append(f"{name}: {by_position[start - 1 : end].mean():.3f}")
        return "loss by position in the window  " + "  ".join(parts)


def with_error(name: str, value: float, error: float) -> str:
    """A metric with its standard error, where there is one, in its own unit."""
    unit = {"loss": " nats per token"}.get(name, "")
    beside = "" if np.isnan(error) else " ± {}"
    if name.startswith("top_"):
        return f"{value:.2%}".replace("%", " %") + beside.format(f"{error:.2%}".replace("%", " %"))
    return f"{value:,.4f}" + beside.format(f"{error:,.4f}") + unit
