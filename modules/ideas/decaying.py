"""A pool that weighs the tokens of a window less, the further they are."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.pools import PartsPool
from settings.registry import register


@register("pool", "decaying")
class DecayingPool(PartsPool):
    """softmax_w(−rate · w) · x_w for each of the J parts of a window, with one trained rate."""

    def build(self, config: ModelConfig, window: int, count: int) -> None:
        self.rate = nn.Parameter(torch.tensor(0.5))  # ()

    def initialise(self, config: ModelConfig) -> None:
        nn.init.constant_(self.rate, 0.5)

    def reduce(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[2], device=x.device)  # (W)
        weights = torch.softmax(-self.rate * places, dim=0)  # (W)
        return (weights[:, None] * x).sum(dim=2)  # (B, N, C)
