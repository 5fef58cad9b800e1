"""KERPLE, a trained bias that falls with the logarithm of the distance (Chi et al. 2022, arXiv 2205.09921)."""

from typing import Literal

import torch
from torch import Tensor, nn

from config import ModelConfig, PositionConfig
from modules.positions import Position, PositionContext
from settings.checked import settings
from settings.registry import register
from settings.types import Positive


@settings
class KerpleConfig(PositionConfig):
    """score − r₁ · log(1 + r₂ · distance), with a trained pair r₁, r₂ > 0 for each head."""

    kind: Literal["kerple"] = "kerple"
    start: Positive = 1.0  # Of both numbers, before training.


@register("position", "kerple")
class Kerple(Position):
    """Trains the logarithms of r₁ and r₂, so that both stay above 0."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        logarithms = torch.full((2, config.n_heads), config.position.start).log()
        self.logarithms = nn.Parameter(logarithms)  # (2, H)

    def place(self, positions: Tensor, key_positions: Tensor, causal: bool, mask: Tensor | None) -> PositionContext:
        strength, steepness = self.logarithms.exp()[..., None, None]  # (H, 1, 1)
        rows = positions if positions.dim() == 2 else positions[None]  # (B|1, T)
        distances = (rows[:, None, :, None] - key_positions).clamp(min=0)  # (B|1, 1, T, S)
        return KerpleContext(-strength * torch.log1p(steepness * distances), causal, mask)


class KerpleContext(PositionContext):
    def __init__(self, bias: Tensor, causal: bool, mask: Tensor | None):
        super().__init__(causal, mask)
        self.values = bias  # (B|1, H, T, S)

    def bias(self) -> Tensor:
        return self.values  # (B|1, H, T, S)
