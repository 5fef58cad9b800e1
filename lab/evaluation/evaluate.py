"""How good a model is, exactly: the same held-out tokens for every run, eval mode, float32, nothing random."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from lab.compute.eval_mode import eval_mode
from lab.data.tales import Probe
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from lab.evaluation.bootstrap import CONFIDENCE
from modules.heads import Head
from modules.losses import shift
from settings.errors import DataError

BATCH = 16  # windows at a time: bounds the memory, changes no number beyond rounding


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """loss: nats per token, the mean over n_tokens held-out tokens, whose text has n_bytes bytes."""

    loss: float
    n_tokens: int
    n_bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """What tokenizers of different sizes can be compared in."""
        return self.loss * self.n_tokens / self.n_bytes / math.log(2)

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f} nats per token, perplexity {self.perplexity:.2f}, "
            f"{self.bits_per_byte:.4f} bits per byte, over {self.n_tokens:,} tokens"
        )


def evaluate(model: nn.Module, tokens: TokenFile, tokenizer: Tokenizer, max_tokens: int | None = None) -> Evaluation:
    """The mean next-token loss on the first max_tokens tokens (None: all), in windows of the context length."""
    return _evaluation(model, tokens.windows(model.config.context_length, BATCH, max_tokens), tokenizer)


def evaluate_text(model: nn.Module, text: str, tokenizer: Tokenizer) -> Evaluation:
    """The same for any text, every token but the first scored once; the last window is as short as it comes."""
    return _evaluation(model, text_windows(text, tokenizer, model.config.context_length), tokenizer)


def _evaluation(model: nn.Module, windows: Iterable[np.ndarray], tokenizer: Tokenizer) -> Evaluation:
    total, n_tokens, n_bytes, bytes_of = 0.0, 0, 0, token_lengths(tokenizer)
    for batch, losses in measured(model, windows, lambda head, *about: head.token_losses(*about)):
        total += losses.double().sum().item()
        n_tokens += losses.numel()
        n_bytes += int(bytes_of[batch[:, 1:]].sum())
    return Evaluation(loss=total / n_tokens, n_tokens=n_tokens, n_bytes=n_bytes)


def text_windows(text: str, tokenizer: Tokenizer, length: int) -> Iterator[np.ndarray]:
    """The windows of a text, one by one, (1, up to length + 1) int64, one token shared by neighbours.

    Raises DataError for a text of less than two tokens."""
    ids = np.array(tokenizer.encode(text), dtype=np.int64)
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens has no next token to predict; give a longer one")
    return (ids[None, start : start + length + 1] for start in range(0, len(ids) - 1, length))


def measured(
    model: nn.Module, windows: Iterable[np.ndarray], measure: Callable[[Head, Tensor, Tensor], Tensor]
) -> list[tuple[np.ndarray, Tensor]]:
    """Each of the windows (B, T+1) with measure(head, hidden, targets), on the CPU; in eval mode."""
    device, found = next(model.parameters()).device, []
    with torch.inference_mode(), eval_mode(model):
        for batch in windows:
            inputs, targets = shift(torch.from_numpy(batch).to(device))
            found.append((batch, measure(model.head, model.hidden(inputs), targets).cpu()))
    return found


def token_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """Bytes of text behind each token id; end-of-text stands for none."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    lengths[tokenizer.end_of_text] = 0
    return lengths


CHANCE = 0.5  # a probe has two endings


@dataclass(frozen=True, kw_only=True)
class Answers:
    """right of `asked` probes answered; over several seeds that answer the same probes, `right` is their mean."""

    right: float
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share (1927), as if no probe depended on another:

        (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
        """
        p, n, z = self.share, self.asked, NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
        return low, high

    @property
    def can_be_told(self) -> bool:
        """Whether the interval leaves out what guessing gives."""
        low, high = self.interval
        return not low <= CHANCE <= high

    def __str__(self) -> str:
        low, high = self.interval
        told = "" if self.can_be_told else ": tells nothing"
        return f"{100 * self.share:.1f} % of {self.asked:,} ({100 * low:.0f} to {100 * high:.0f} %{told})"


def probe_accuracy(model: nn.Module, tokenizer: Tokenizer, probes: Iterable[Probe]) -> dict[str, Answers]:
    """By skill, of how many probes the model finds the right ending likelier than the wrong one; half are by chance.

    Where a prompt is longer than the context the model was trained on, its beginning is cut off, for every model alike.
    """
    outcomes: dict[str, list[bool]] = {}
    with torch.inference_mode(), eval_mode(model):
        for probe in probes:
            right, wrong = (
                _ending_log_probability(model, tokenizer, probe.prompt, ending)
                for ending in (probe.right, probe.wrong)
            )
            outcomes.setdefault(probe.skill, []).append(right > wrong)
    return {skill: Answers(right=sum(found), asked=len(found)) for skill, found in sorted(outcomes.items())}


def _ending_log_probability(model: nn.Module, tokenizer: Tokenizer, prompt: str, ending: str) -> float:
    before, ids = len(tokenizer.encode(prompt)), tokenizer.encode(prompt + ending)
    n_scored = min(len(ids) - before, model.config.context_length)
    window = torch.tensor([ids[-(model.config.context_length + 1) :]], device=next(model.parameters()).device)
    inputs, targets = shift(window)
    losses = model.head.token_losses(model.hidden(inputs), targets)
    return -losses[0, -n_scored:].sum().item()
