"""A pool that weighs the channels: the mean of a window times a trained gain for each channel."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.pools import PartsPool
from settings.registry import register


@register("pool", "scaled_mean")
class ScaledMeanPool(PartsPool):
    """gain · mean_w(x_w) for each of the J parts of a window."""

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.gain = nn.Parameter(torch.ones(config.width))  # (C)

    def reduce(self, x: Tensor) -> Tensor:
        return self.gain * x.mean(dim=2)  # (B, N, C)
