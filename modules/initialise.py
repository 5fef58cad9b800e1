"""The first values of a model's parameters. What a class starts differently, it says in its own `initialise`."""

import math

from torch import nn

from config import ModelConfig


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Draws every matrix from N(0, init_std) and sets every bias to 0, then calls `initialise(config)` of each module.

    A module that has this method gives its own parameters their first values there. All other parameters keep the
    values that they were made with: norms and gains start at 1. A part that is built alone is ready to use, too.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=config.init_std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if hasattr(module, "initialise"):
            module.initialise(config)


def initialise_writer(projection: nn.Linear, config: ModelConfig) -> None:
    """Draws a projection that writes into the residual stream from N(0, init_std / √(2 · n_layers)).

    Most blocks have two of these. At full size they would let the stream's variance grow with depth (GPT-2; Radford et
    al. 2019, section 2.3). With zero_init it starts at 0, so that the block starts as the identity (Zhang et al. 2019,
    arXiv 1901.09321).
    """
    if config.zero_init:
        nn.init.zeros_(projection.weight)
        return
    nn.init.normal_(projection.weight, std=config.init_std / math.sqrt(2 * config.n_layers))
