"""Every token of a held-out text scored once: its loss, its rank, its place. All further numbers come from these.

`evaluate` in lab/evaluation.py is the quick one that training uses; it gives the same loss.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import DataConfig
from lab.data import tales
from lab.data.packing import held_out_place
from lab.data.sources import DEFAULT_TALES
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from lab.evaluation.bootstrap import RESAMPLES, resampled_sums
from lab.evaluation.evaluate import BATCH, Answers, measured, probe_accuracy, text_windows, token_lengths
from modules.heads import Head
from modules.losses import CHUNK
from settings.errors import ConfigError

TOP = (1, 5, 10)
PROBED_STORIES = 60


def score(
    model: nn.Module, tokens: TokenFile, tokenizer: Tokenizer, max_tokens: int | None = None, top: Sequence[int] = TOP
) -> "Scores":
    """The first max_tokens tokens (None: all) scored one by one, in windows of the context length.

    top: the k of the top-k accuracies. Raises ConfigError where they are not whole numbers from 1 on.
    """
    windows = tokens.windows(model.config.context_length, BATCH, max_tokens)
    return _scores(model, windows, tokenizer, top)


def score_text(model: nn.Module, text: str, tokenizer: Tokenizer, top: Sequence[int] = TOP) -> "Scores":
    """The same for any text, which counts as one document."""
    return _scores(model, text_windows(text, tokenizer, model.config.context_length), tokenizer, top)


def _scores(model: nn.Module, windows: Iterable[np.ndarray], tokenizer: Tokenizer, top: Sequence[int]) -> "Scores":
    check_limits(None, top)
    found = measured(model, windows, losses_and_ranks)
    losses, ranks = np.concatenate([values.flatten(1) for _, values in found], axis=1)
    targets = np.concatenate([batch[:, 1:].ravel() for batch, _ in found])
    ended = np.append(found[0][0][0, 0], targets[:-1]) == tokenizer.end_of_text
    positions = [np.tile(np.arange(batch.shape[1] - 1), len(batch)) for batch, _ in found]
    return Scores(
        losses=losses, ranks=ranks.astype(np.int32), targets=targets.astype(np.int32),
        positions=np.concatenate(positions).astype(np.int32), documents=np.cumsum(ended).astype(np.int32),
        n_bytes=token_lengths(tokenizer)[targets].astype(np.int32), top=tuple(top),
        whole_end=bool(targets[-1] == tokenizer.end_of_text),
    )  # fmt: skip


def check_limits(max_tokens: int | None, top: Sequence[int] | None) -> None:
    """Raises ConfigError for a number of tokens, or a k of the top-k accuracies, that can't be."""
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"max_tokens must be 1 or more, or None for all, not {max_tokens}")
    if top is not None and (not all(isinstance(k, int) and k >= 1 for k in top) or len(set(top)) < len(top)):
        raise ConfigError(f"top must name different whole numbers from 1 on, as in {TOP}, not {tuple(top)}")


def losses_and_ranks(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """(2, B, T): −log p of each target, and its place among all tokens by falling logit, 1 for the likeliest.

    Of equal logits the lower id comes first. hidden is (B, T, C); (CHUNK, V) logits exist at a time.
    """
    parts = []
    for rows, answers in zip(hidden.flatten(0, 1).split(CHUNK), targets.flatten().split(CHUNK)):
        logits = head(rows)
        ids = torch.arange(logits.shape[-1], device=logits.device)
        true = logits.gather(1, answers[:, None])
        before = (logits > true) | ((logits == true) & (ids < answers[:, None]))
        parts.append(torch.stack([F.cross_entropy(logits, answers, reduction="none"), 1.0 + before.sum(1)]))
    return torch.cat(parts, dim=1).unflatten(1, targets.shape)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Scores:
    """What a model made of each of N tokens; arrays (N,) in the order of the text.

    losses: nats. ranks: 1 where the true token was the likeliest. targets: the ids. positions: in the window, from 0
    on. documents: their number, from 0 on; an end of text belongs to the document that it ends. n_bytes: of text.
    whole_end: whether the last document is there to its end.
    """

    losses: np.ndarray
    ranks: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    documents: np.ndarray
    n_bytes: np.ndarray
    top: tuple[int, ...]
    whole_end: bool

    def __len__(self) -> int:
        return len(self.losses)

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
        names = ("losses", "ranks", "targets", "positions", "n_bytes")
        kept = {name: getattr(self, name)[inside] for name in names}
        return replace(self, **kept, documents=self.documents[inside] - chosen.start, whole_end=True)

    @cached_property
    def sums(self) -> np.ndarray:
        """By document: loss, tokens, bytes, and hits for each k; (documents, 3 + len(top))."""
        hits = [self.ranks <= k for k in self.top]
        columns = [self.losses, np.ones(len(self)), self.n_bytes, *hits]
        return np.stack([np.bincount(self.documents, column) for column in columns], axis=1)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """loss (nats per token), perplexity, bits_per_byte, and top_k: the share of tokens among the k likeliest."""
        return {name: float(value) for name, value in self._metrics(self.sums.sum(0)).items()}

    def standard_errors(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, float]:
        """Of each metric, by drawing the documents anew; NaN where there is one document only."""
        if self.n_documents == 1:
            return dict.fromkeys(self.metrics, float("nan"))
        drawn = self._metrics(resampled_sums(self.sums, resamples, seed))
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

    def __repr__(self) -> str:
        errors = self.standard_errors()
        width = max(map(len, self.metrics)) + 2
        lines = [
            f"{name.replace('_', ' '):{width}}{with_error(name, value, errors[name])}"
            for name, value in self.metrics.items()
        ]
        drawn = f"±: one standard error, the {self.n_documents:,} documents drawn anew {RESAMPLES:,} times"
        alone = "no standard error: it is one document"
        documents = f"{self.n_documents:,} document{'s' * (self.n_documents > 1)}"
        title = f"over {len(self):,} tokens in {documents}, {int(self.n_bytes.sum()):,} bytes"
        return "\n".join([title, *lines, drawn if self.n_documents > 1 else alone, self._positions_line()])

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


def skills(
    model: nn.Module, tokenizer: Tokenizer, config: DataConfig, n_stories: int = PROBED_STORIES
) -> dict[str, Answers]:
    """By skill, the answers to the questions about the first n_stories held-out tales; {} for any other source."""
    if config.source != "tales":
        return {}
    told = tales.stories(config.max_documents or DEFAULT_TALES, config.seed)
    held = (tale for tale in told if held_out_place(tale.text) < config.validation_fraction)
    probes = (probe for tale in islice(held, n_stories) for probe in tale.probes)
    return probe_accuracy(model, tokenizer, probes)
