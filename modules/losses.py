"""The loss contract: models give next-token logits for all positions, and targets are shifted here alone."""

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.kernels import HeadLoss

IGNORE = -100  # a target that never counts: padding
CHUNK = 1024  # rows of logits that exist at once; the whole (N, V) would be the largest tensor of a training step


def shift(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows (B, T+1) as inputs (B, T) and the token that follows each of them (B, T)."""
    return windows[:, :-1], windows[:, 1:]  # (B, T)


def future_windows(windows: Tensor, first: int, last: int) -> Tensor:
    """What stands first to last places ahead of each position of (B, T+1) tokens, or vectors, where all is there.

    (B, N, W) for the N = T + 1 − last positions whose window is complete: the others count for nothing. W is
    last − first + 1, and N may be 0.
    """
    if windows.shape[1] <= last:
        return windows.new_empty(len(windows), 0, last - first + 1)  # (…, W)
    return windows[:, first:].unfold(1, last - first + 1, 1)  # (…, W)


def next_token_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log softmax(hidden · weightᵀ)[target] over the targets that count.

    hidden (B, T, C), weight (V, C), targets (B, T) with IGNORE where nothing counts. Chunk by chunk: no more than
    (CHUNK, V) logits exist at a time.
    """
    rows, answers = in_autocast_type(hidden).flatten(0, 1), targets.flatten()  # (N, C), (N)
    return HeadLoss.apply(rows, weight, answers, IGNORE, CHUNK) / (answers != IGNORE).sum()  # ()


def in_autocast_type(x: Tensor) -> Tensor:
    """x as autocast would have it enter a product."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))  # (…, C)
    return x  # (…, C)


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(hidden · weightᵀ)[target] for each token, 0 where it does not count: (B, T)."""
    chunks = zip(hidden.flatten(0, 1).split(CHUNK), targets.flatten().split(CHUNK))
    losses = [F.cross_entropy(F.linear(h, weight), t, ignore_index=IGNORE, reduction="none") for h, t in chunks]
    return torch.cat(losses).view_as(targets)  # (B, T)
