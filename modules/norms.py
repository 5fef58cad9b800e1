"""Normalisation: each vector of C channels is brought to a common scale, then optionally · weight + bias."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import NormConfig
from modules.logging_module import LoggingModule


class Norm(LoggingModule):
    """The common part: (…, C) -> (…, C), with an optional weight (starts at 1) and bias (starts at 0)."""

    def __init__(self, width: int, weight: bool = True, bias: bool = False, eps: float = 1e-5):
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if weight else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None


class RMSNorm(Norm):
    """x / √(mean(x²) + eps) (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x, (self.width,), self.weight, self.eps)  # (B, T, C) or (B, T, H, D)
        return x if self.bias is None else x + self.bias  # (B, T, C) or (B, T, H, D)


class LayerNorm(Norm):
    """(x − mean(x)) / √(var(x) + eps) (Ba et al. 2016, arXiv 1607.06450)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)  # (B, T, C) or (B, T, H, D)


class CosineNorm(Norm):
    """√C · x / max(‖x‖, eps): only the direction is kept, so that products of normed vectors are cosines · C.

    Like RMSNorm but for eps, which here guards the zero vector alone and never shrinks a small one.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1, eps=self.eps) * self.width**0.5  # (B, T, C) or (B, T, H, D)
        x = x if self.weight is None else x * self.weight  # (B, T, C) or (B, T, H, D)
        return x if self.bias is None else x + self.bias  # (B, T, C) or (B, T, H, D)


NORMS = {"rms": RMSNorm, "layer": LayerNorm, "cosine": CosineNorm}


def build_norm(config: NormConfig, width: int) -> Norm:
    return NORMS[config.kind](width, config.weight, config.bias, config.eps)


class HeadNorm(Norm):
    """Each head's D channels are normed by themselves, then · weight + bias with one number for each of the C."""

    def __init__(self, config: NormConfig, n_heads: int, width: int):
        super().__init__(width, config.weight, config.bias, config.eps)
        self.n_heads = n_heads
        self.of_head = NORMS[config.kind](width // n_heads, weight=False, bias=False, eps=config.eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.of_head(x.unflatten(-1, (self.n_heads, -1))).flatten(-2)  # (B, T, C)
        x = x if self.weight is None else x * self.weight  # (B, T, C)
        return x if self.bias is None else x + self.bias  # (B, T, C)
