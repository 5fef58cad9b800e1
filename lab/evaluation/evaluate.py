"""How good a model is, exactly: the same held-out tokens for every run, eval mode, nothing random.

Training, Python's `evaluate`, the terminal's `evaluate` and a comparison all call the functions of this file.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lab.compute.eval_mode import eval_mode
from lab.compute.ranks import current_ranks
from lab.compute.sharding import without_gradients
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from lab.evaluation.scores import Scores
from modules.heads import Head
from modules.losses import CHUNK, shift
from settings.errors import ConfigError, DataError

# Windows at a time, and tokens where the windows are long: they bound the memory, and change no number beyond rounding
BATCH, TOKENS_AT_ONCE = 16, 8192
TOP = (1, 5, 10)  # the k of the top-k accuracies that the terminal and a comparison show


def evaluate(
    model: nn.Module, tokens: TokenFile, tokenizer: Tokenizer, max_tokens: int | None = None, top: Sequence[int] = ()
) -> Scores:
    """The loss of each of the first max_tokens tokens (None: all), in windows of the context length.

    top: the k of the top-k accuracies, such as (1, 5, 10); () skips the ranks, which is quicker. Raises ConfigError
    where max_tokens is not 1 or more, or top does not name different whole numbers from 1 on.
    """
    check_limits(max_tokens, top)
    length = model.config.context_length
    batch = max(1, min(BATCH, TOKENS_AT_ONCE // length))
    return _scores(model, tokens.windows(length, batch, max_tokens), tokenizer, top)


def evaluate_text(model: nn.Module, text: str, tokenizer: Tokenizer, top: Sequence[int] = ()) -> Scores:
    """The same for any text, which counts as one document. Every token but the first is scored once."""
    check_limits(None, top)
    return _scores(model, text_windows(text, tokenizer, model.config.context_length), tokenizer, top)


def _scores(model: nn.Module, windows: Iterable[np.ndarray], tokenizer: Tokenizer, top: Sequence[int]) -> Scores:
    if current_ranks().size > 1 and not top:
        found = measure_split(model, list(windows), token_losses)
    else:
        found = measure_windows(model, windows, losses_and_ranks if top else token_losses)
    losses = [measured[0] if top else measured for _, measured in found]
    targets = np.concatenate([batch[:, 1:].ravel() for batch, _ in found])
    ranks = np.concatenate([measured[1].ravel() for _, measured in found]).astype(np.int32) if top else None
    ended = np.append(found[0][0][0, 0], targets[:-1]) == tokenizer.end_of_text
    positions = [np.tile(np.arange(batch.shape[1] - 1), len(batch)) for batch, _ in found]
    return Scores(
        losses=np.concatenate([batch.ravel() for batch in losses]), ranks=ranks, targets=targets.astype(np.int32),
        positions=np.concatenate(positions).astype(np.int32), documents=np.cumsum(ended).astype(np.int32),
        n_bytes=token_lengths(tokenizer)[targets].astype(np.int32), top=tuple(top),
        whole_end=bool(targets[-1] == tokenizer.end_of_text),
        total_loss=sum(batch.double().sum().item() for batch in losses),
    )


def check_limits(max_tokens: int | None, top: Sequence[int]) -> None:
    """Raises ConfigError for an impossible number of tokens, or an impossible k of the top-k accuracies."""
    if max_tokens is not None and max_tokens < 1:
        raise ConfigError(f"max_tokens must be 1 or more, or None for all, not {max_tokens}")
    if not are_different_counts(top):
        raise ConfigError(f"top must name different whole numbers from 1 on, as in {TOP}, not {tuple(top)}")


def are_different_counts(values: Sequence[object]) -> bool:
    """Whether these are whole numbers from 1 on, none of them twice."""
    return all(isinstance(value, int) and value >= 1 for value in values) and len(set(values)) == len(values)


def text_windows(text: str, tokenizer: Tokenizer, length: int) -> Iterator[np.ndarray]:
    """The windows of a text, one by one, (1, up to length + 1) int64. Neighbours share one token.

    Raises DataError for a text of fewer than two tokens.
    """
    ids = np.array(tokenizer.encode(text), dtype=np.int64)
    if len(ids) < 2:
        raise DataError(f"a text of {len(ids)} tokens has no next token to predict; give a longer one")
    return (ids[None, start : start + length + 1] for start in range(0, len(ids) - 1, length))


def measure_windows(
    model: nn.Module, windows: Iterable[np.ndarray], measure: Callable[[Head, Tensor, Tensor], Tensor]
) -> list[tuple[np.ndarray, Tensor]]:
    """Each of the windows (B, T+1) with measure(head, hidden, targets), on the CPU; in eval mode."""
    device, found = next(model.parameters()).device, []
    with without_gradients(), eval_mode(model):
        for batch in windows:
            inputs, targets = shift(torch.from_numpy(batch).to(device))
            found.append((batch, measure(model.head, model.hidden(inputs), targets).cpu()))
    return found


def measure_split(
    model: nn.Module, windows: list[np.ndarray], measure: Callable[[Head, Tensor, Tensor], Tensor]
) -> list[tuple[np.ndarray, Tensor]]:
    """The same, for a number for each target, on the ranks that train together: each measures every R-th batch, and all
    get all numbers."""
    ranks, device, found = current_ranks(), next(model.parameters()).device, []
    padded = windows + windows[:1] * (-len(windows) % ranks.size)  # so that all take part in each round
    mine = measure_windows(model, padded[ranks.rank :: ranks.size], measure)
    most = max(batch[:, 1:].size for batch in windows)
    for place, (_, measured) in enumerate(mine):
        row = F.pad(measured.flatten(), (0, most - measured.numel()))  # the last batch may be smaller
        batches = windows[place * ranks.size :][: ranks.size]
        for batch, numbers in zip(batches, ranks.gather(row.to(device)).cpu()):
            shape = batch[:, 1:].shape
            found.append((batch, numbers[: math.prod(shape)].view(shape)))
    return found


def token_losses(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """−log p of each target: (B, T)."""
    return head.token_losses(hidden, targets)


def losses_and_ranks(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
    """(2, B, T): −log p of each target, and its rank among all tokens by falling logit, 1 for the likeliest.

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


def token_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """The bytes of text that each token id stands for; 0 for the end of text."""
    lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    lengths[tokenizer.end_of_text] = 0
    return lengths
