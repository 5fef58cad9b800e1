"""Which layers a model is made of."""

from torch import nn

from config import ModelConfig
from modules.factored import FactoredBlock
from modules.future import build_future_blocks
from modules.multi_token import build_multi_token_blocks
from modules.residual import ResidualBlock
from modules.shaped import ShapedBlock

BLOCKS = {"residual": ResidualBlock, "factored": FactoredBlock, "shaped": ShapedBlock}


def build_blocks(config: ModelConfig, embedding: nn.Embedding, norm: nn.Module, head: nn.Module) -> nn.ModuleList:
    """All layers; those of some kinds know each other, and what the model itself begins and ends with."""
    if config.block.kind == "future":
        return build_future_blocks(config, embedding, head)
    if config.block.kind == "multi_token":
        return build_multi_token_blocks(config, norm, head)
    return nn.ModuleList(BLOCKS[config.block.kind](config) for _ in range(config.n_layers))
