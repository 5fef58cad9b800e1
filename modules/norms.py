"""Normalisation: brings each vector of C channels to a common scale, then optionally · weight + bias."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import NormConfig
from modules.logging_module import LoggingModule
from modules.rms_norm import rms_norm
from settings.errors import ConfigError
from settings.registry import built_in, part


class Norm(LoggingModule):
    """The base of all norms: (…, C) -> (…, C), with an optional weight (starts at 1) and bias (starts at 0).

    A kind is made by `kind(config, width)` and computes in `forward`. centres: whether it subtracts the mean.
    """

    centres = False

    def __init__(self, config: NormConfig, width: int):
        super().__init__()
        self.width, self.eps = width, config.eps
        self.weight = nn.Parameter(torch.ones(width)) if config.weight else None
        self.bias = nn.Parameter(torch.zeros(width)) if config.bias else None

    def scale_and_shift(self, x: Tensor) -> Tensor:
        """x · weight + bias, as far as the norm has them."""
        x = x if self.weight is None else x * self.weight  # (B, T, C) or (B, T, H, D)
        return x if self.bias is None else x + self.bias  # (B, T, C) or (B, T, H, D)

    def scale(self, x: Tensor) -> Tensor:
        """The factor by which this norm multiplies one vector x (C), its mean subtracted if it centres.

        Raises ConfigError for a norm that multiplies by no single number.
        """
        raise ConfigError(f"{type(self).__name__} says no scale(); give it that method, or choose norm.kind='rms'")


@built_in("norm", "rms")
class RMSNorm(Norm):
    """x / √(mean(x²) + eps) (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def forward(self, x: Tensor) -> Tensor:
        x = rms_norm(x, self.weight, self.eps)  # (B, T, C) or (B, T, H, D)
        return x if self.bias is None else x + self.bias  # (B, T, C) or (B, T, H, D)

    def scale(self, x: Tensor) -> Tensor:
        return (x.square().mean() + self.eps).rsqrt()  # ()


@built_in("norm", "layer")
class LayerNorm(Norm):
    """(x − mean(x)) / √(var(x) + eps) (Ba et al. 2016, arXiv 1607.06450)."""

    centres = True

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)  # (B, T, C) or (B, T, H, D)

    def scale(self, x: Tensor) -> Tensor:
        return (x.var(unbiased=False) + self.eps).rsqrt()  # ()


@built_in("norm", "cosine")
class CosineNorm(Norm):
    """√C · x / max(‖x‖, eps): keeps only the direction, so that products of normed vectors are cosines · C.

    It differs from RMSNorm in eps, which only guards against division by zero and never shrinks a small vector.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(x, dim=-1, eps=self.eps) * self.width**0.5  # (B, T, C) or (B, T, H, D)
        return self.scale_and_shift(x)  # (B, T, C) or (B, T, H, D)

    def scale(self, x: Tensor) -> Tensor:
        return len(x) ** 0.5 / x.norm().clamp(min=self.eps)  # ()


def build_norm(config: NormConfig, width: int) -> Norm:
    return part("norm", config.kind)(config, width)


class HeadNorm(Norm):
    """Norms each head's D channels on their own, then · weight + bias with one number for each of the C channels."""

    def __init__(self, config: NormConfig, n_heads: int, width: int):
        super().__init__(config, width)
        self.n_heads = n_heads
        self.of_head = build_norm(config.replace(weight=False, bias=False), width // n_heads)

    def forward(self, x: Tensor) -> Tensor:
        x = self.of_head(x.unflatten(-1, (self.n_heads, -1))).flatten(-2)  # (B, T, C)
        return self.scale_and_shift(x)  # (B, T, C)


class QueryKeyNorm(LoggingModule):
    """RMS norms of queries and keys, each over a head's D channels, with one trained weight (D) for either.

    They bound the scores (Henry et al. 2020, arXiv 2010.04245; in this form in Gemma 3 and Qwen 3). n_heads: H, those
    of the queries.
    """

    def __init__(self, n_heads: int, head_dim: int, eps: float):
        super().__init__()
        self.n_heads, self.eps = n_heads, eps
        self.query_weight, self.key_weight = (nn.Parameter(torch.ones(head_dim)) for _ in range(2))  # (D), (D)

    def forward(self, qk: Tensor) -> Tensor:
        """Heads of queries and behind them heads of keys, N in all: (B, N, T, D)."""
        n_keys = qk.shape[1] - self.n_heads
        weights = self.query_weight.expand(self.n_heads, 1, -1), self.key_weight.expand(n_keys, 1, -1)  # (…, 1, D)
        normed = rms_norm(qk, None, self.eps)  # (B, N, T, D)
        return normed * torch.cat(weights).to(qk.dtype)  # (B, N, T, D)
