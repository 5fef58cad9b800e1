"""All initialisation, in one place."""

import math

from torch import nn

from modules.attention import Attention
from modules.mlp import MLP, GatedMLP


def initialise(model: nn.Module) -> None:
    """Every matrix N(0, init_std), every bias 0, norms as they are made (weight 1, bias 0).

    The projections that write into the residual stream, two per layer, are scaled down by √(2 · n_layers), so that
    the stream's variance does not grow with depth (GPT-2; Radford et al. 2019, section 2.3).
    """
    std, n_layers = model.config.init_std, model.config.n_layers
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, (Attention, MLP, GatedMLP)):
            writer = module.out if isinstance(module, Attention) else module.down
            nn.init.normal_(writer.weight, std=std / math.sqrt(2 * n_layers))
