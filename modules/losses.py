"""The loss contract: models give next-token logits for all positions, and only `shift` shifts the targets."""

import torch
from torch import Tensor

IGNORE = -100  # the target of padding, which never counts
CHUNK = 1024  # rows of logits that exist at once; all of them would be the largest tensor of a training step


def shift(windows: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs (B, T) of windows (B, T+1), and the token that follows each of them (B, T)."""
    return windows[:, :-1], windows[:, 1:]  # (B, T)


def future_windows(windows: Tensor, first: int, last: int) -> Tensor:
    """The tokens `first` to `last` places ahead of each position of (B, T+1), for positions whose window is complete.

    (B, N, W) for N = T + 1 − last positions, which may be 0, and W = last − first + 1. Vectors (B, T+1, C) give
    (B, N, C, W).
    """
    if windows.shape[1] <= last:
        return windows.new_empty(len(windows), 0, last - first + 1)  # (…, W)
    return windows[:, first:].unfold(1, last - first + 1, 1)  # (…, W)


def in_autocast_type(x: Tensor) -> Tensor:
    """x in the type in which autocast would multiply it."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):  # a question that torch.compile can answer
        return x.to(torch.get_autocast_dtype(device))  # (…, C)
    return x  # (…, C)


def soft_cap(logits: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(logits / cap), so that none is larger than the cap, up or down; without a cap the logits themselves.

    Gemma Team 2024, arXiv 2408.00118, section 2.
    """
    return logits if cap is None else cap * torch.tanh(logits / cap)  # (…, V)
