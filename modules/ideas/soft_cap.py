"""Soft-capped logits (Gemma Team 2024, arXiv 2408.00118, section 2)."""

from typing import Literal

import torch
from torch import Tensor

from config import HeadConfig, ModelConfig
from modules.heads import Head
from modules.linear import Linear
from settings.checked import settings
from settings.registry import register
from settings.types import Positive


@settings
class SoftCapConfig(HeadConfig):
    """cap · tanh(logits / cap): no logit is larger than the cap, up or down."""

    kind: Literal["soft_cap"] = "soft_cap"
    cap: Positive = 30.0


@register("head", "soft_cap")
class SoftCapHead(Head, Linear):
    """A linear head whose logits pass a scaled tanh. Its weight may be the embedding's."""

    def __init__(self, config: ModelConfig):
        Linear.__init__(self, config.width, config.vocab_size, bias=False)
        self.cap = config.head.cap

    def forward(self, hidden: Tensor) -> Tensor:
        return self.cap * torch.tanh(super().forward(hidden) / self.cap)  # (…, V)
