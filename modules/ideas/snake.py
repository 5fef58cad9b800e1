"""Snake, a periodic activation (Ziyin et al. 2020, arXiv 2006.08195)."""

import torch
from torch import Tensor, nn

from modules.logging_module import LoggingModule
from settings.registry import register


@register("activation", "snake")
class Snake(LoggingModule):
    """x + sin²(α · x) / α, with one trained α for each hidden unit."""

    def __init__(self, hidden: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(hidden))  # (F)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / self.alpha  # (B, T, F)
