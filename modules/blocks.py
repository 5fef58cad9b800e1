"""Which layers a model is made of."""

from collections.abc import Callable

from torch import nn

from config import ModelConfig
from modules.block import Block
from modules.factored import FactoredBlock
from modules.future import build_future_blocks
from modules.multi_token import build_multi_token_blocks
from modules.residual import ResidualBlock
from modules.shaped import ShapedBlock


def alike(block: type[Block]) -> Callable[..., nn.ModuleList]:
    """A builder of n_layers blocks that know nothing but the config."""
    return lambda config, *_: nn.ModuleList(block(config) for _ in range(config.n_layers))


BUILDERS = {
    "residual": alike(ResidualBlock),
    "factored": alike(FactoredBlock),
    "shaped": alike(ShapedBlock),
    "future": build_future_blocks,
    "multi_token": build_multi_token_blocks,
}


def build_blocks(config: ModelConfig, embedding: nn.Embedding, norm: nn.Module, head: nn.Module) -> nn.ModuleList:
    """All layers; those of some kinds know each other, and what the model itself begins and ends with."""
    return BUILDERS[config.block.kind](config, embedding, norm, head)
