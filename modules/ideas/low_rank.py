"""A low-rank mixing of the token stream: the identity and a matrix of small rank (Hu et al. 2021, arXiv 2106.09685)."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.factored import Mixing
from settings.registry import register

RANK = 8


@register("mixing", "low_rank")
class LowRankMixing(Mixing):
    """y = x + U·V·x, with U (C, R) and V (R, C). It starts near the identity."""

    axis_letters = {"R": "rank"}

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__(n_heads, head_dim)
        self.down = nn.Parameter(torch.eye(RANK, n_heads * head_dim))  # (R, C)
        self.up = nn.Parameter(torch.zeros(n_heads * head_dim, RANK))  # (C, R)

    def initialise(self, config: ModelConfig) -> None:
        nn.init.normal_(self.down, std=config.width**-0.5)
        nn.init.normal_(self.up, std=config.init_std)

    def forward(self, x: Tensor) -> Tensor:
        low = x @ self.down.T  # (B, T, R)
        return x + low @ self.up.T  # (B, T, C)
