"""One idea of each family, as a learner would write it in a file or in a cell of a notebook."""

IDEAS = '''
from typing import Literal

import torch
from torch import Tensor, nn

from config import BlockConfig, PositionConfig
from modules.factored import Mixing
from modules.heads import Head
from modules.linear import Linear
from modules.norms import Norm
from modules.pools import Pool
from modules.positions import Position
from modules.residual import ResidualBlock
from settings.checked import settings
from settings.registry import register
from settings.types import Count, Positive


@register("norm", "largest")
class LargestNorm(Norm):
    def forward(self, x: Tensor) -> Tensor:
        x = x / x.abs().amax(dim=-1, keepdim=True).clamp(min=self.eps)  # (B, T, C) or (B, T, H, D)
        return self.scale_and_shift(x)  # (B, T, C) or (B, T, H, D)


@register("activation", "leaky")
def leaky(x: Tensor) -> Tensor:
    return x.where(x > 0, 0.1 * x)  # (B, T, F)


@register("activation", "trained_leaky")
class TrainedLeaky(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.slopes = nn.Parameter(torch.full((hidden,), 0.1))  # (F)

    def forward(self, x: Tensor) -> Tensor:
        return x.where(x > 0, self.slopes * x)  # (B, T, F)


@settings
class RampConfig(PositionConfig):
    kind: Literal["ramp"] = "ramp"
    scale: Positive = 1.0  # At the last position.


@register("position", "ramp")
class Ramp(Position):
    def __init__(self, config):
        super().__init__(config)
        self.direction = nn.Parameter(torch.ones(config.width))  # (C)
        self.scale = config.position.scale / config.position_limit

    def initialise(self, config):
        nn.init.normal_(self.direction)

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.scale * positions[..., None] * self.direction  # (B, T, C)


@register("mixing", "scaled")
class ScaledMixing(Mixing):
    def __init__(self, n_heads: int, head_dim: int):
        super().__init__(n_heads, head_dim)
        self.weight = nn.Parameter(torch.ones(n_heads * head_dim))  # (C)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x  # (B, T, C)


@register("pool", "latest")
class LatestPool(Pool):
    def pool(self, x: Tensor, count: int) -> Tensor:
        return x[:, :, -count:]  # (…, J, C)


@settings
class LowRankConfig(BlockConfig):
    kind: Literal["low_rank"] = "low_rank"
    rank: Count = 3
    post_norm: bool = False
    parallel: bool = False


@register("block", "low_rank")
class LowRankBlock(ResidualBlock):
    axis_letters = {"R": "rank"}

    def __init__(self, config):
        super().__init__(config)
        self.narrow = Linear(config.width, config.block.rank, bias=False)
        self.widen = Linear(config.block.rank, config.width, bias=False)

    def forward(self, x: Tensor, place, cache=None) -> Tensor:
        x = super().forward(x, place, cache)  # (B, T, C)
        low = self.narrow(x)  # (B, T, R)
        return x + self.widen(low)  # (B, T, C)


@register("head", "bottleneck")
class BottleneckHead(Head):
    axis_letters = {"R": "rank"}

    def __init__(self, config):
        super().__init__(config)
        self.narrow = Linear(config.width, 7, bias=False)
        self.widen = Linear(7, config.vocab_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        low = self.narrow(hidden)  # (…, R)
        return self.widen(low)  # (…, V)
'''
KINDS = [
    ("norm", "largest"), ("activation", "leaky"), ("activation", "trained_leaky"), ("position", "ramp"),
    ("mixing", "scaled"), ("pool", "latest"), ("block", "low_rank"), ("head", "bottleneck"),
]
