"""LayerScale, residual blocks with a trained gain for each channel (Touvron et al. 2021, arXiv 2103.17239)."""

from typing import Literal

import torch
from torch import Tensor, nn

from config import BlockConfig, ModelConfig
from modules.attention import Attention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.positions import PositionContext
from settings.checked import settings
from settings.registry import register
from settings.types import Positive


@settings
class LayerScaleConfig(BlockConfig):
    """x + gain · attention(norm(x)), then x + gain · mlp(norm(x)), with gains for each channel."""

    kind: Literal["layer_scale"] = "layer_scale"
    start: Positive = 0.1  # Of all gains, before training.


@register("block", "layer_scale")
class LayerScaleBlock(Block):
    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.attention_norm, self.mlp_norm = (build_norm(config.norm, config.width) for _ in range(2))
        self.attention = Attention.of(config)
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.dropout = Dropout(config.dropout.residual)
        gains = torch.full((2, config.width), config.block.start)
        self.attention_gain, self.mlp_gain = (nn.Parameter(gain) for gain in gains)  # (C), (C)

    def forward(self, x: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        read = self.attention(self.attention_norm(x), place, cache)  # (B, T, C)
        x = x + self.dropout(self.attention_gain * read)  # (B, T, C)
        return x + self.dropout(self.mlp_gain * self.mlp(self.mlp_norm(x)))  # (B, T, C)
