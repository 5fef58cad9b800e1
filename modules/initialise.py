"""All initialisation, in one place."""

import math

import torch
from torch import nn

from config import FactoredBlockConfig, ModelConfig
from modules.attention import Attention
from modules.factored import IdentityMixing, Mixing
from modules.foresight import Foresight
from modules.future import CrossAttention
from modules.mlp import MLP, GatedMLP
from modules.pools import Pool
from modules.shaped import ShapedAttention


def initialise(model: nn.Module) -> None:
    """Every matrix N(0, init_std), every bias 0, norms and gains as they are made (weight 1, bias 0).

    The projections that write into the residual stream, mostly two per layer, are scaled down by √(2 · n_layers), so
    that the stream's variance does not grow with depth (GPT-2; Radford et al. 2019, section 2.3). Mixings start as
    their mixing_init says; the queries of shaped attention at 0 (He & Hofmann 2023, arXiv 2311.01906, section 4.1).
    What tells the vectors and slots of a pool apart starts as N(0, 1), as large as what is normed.

    A part that is built alone is ready to use too, and draws no random numbers for what it has beside linear maps:
    mixings are the identity, the `nothing` key is 0, and the vectors and slots of a pool are one-hot.
    """
    std, n_layers = model.config.init_std, model.config.n_layers
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, (Attention, CrossAttention, MLP, GatedMLP)):
            writer = module.down if isinstance(module, (MLP, GatedMLP)) else module.out
            nn.init.normal_(writer.weight, std=std / math.sqrt(2 * n_layers))
            if isinstance(module, CrossAttention):
                nn.init.normal_(module.nothing, std=std)
        elif isinstance(module, Mixing) and not isinstance(module, IdentityMixing):
            initialise_mixing(module, model.config)
        elif isinstance(module, (Pool, Foresight)):
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter)
        elif isinstance(module, ShapedAttention):
            nn.init.zeros_(module.qk.weight[: model.config.width])


def initialise_mixing(module: Mixing, config: ModelConfig) -> None:
    """N(0, init_std), the identity, or the identity / √n_layers.

    With the identity in every layer, all weights that lead to one place of xt sum to 2^n_layers, and the token stream
    drowns the other; values and output each over √n_layers bring that down to (1 + 1/n_layers)^n_layers < e.
    """
    block: FactoredBlockConfig = config.block
    if block.mixing_init == "normal":
        nn.init.normal_(module.weight, std=config.init_std)
        return
    scale = math.sqrt(config.n_layers) if block.mixing_init == "scaled_identity" else 1.0
    size = module.weight.shape[-1]
    with torch.no_grad():
        module.weight.copy_(torch.eye(size, device=module.weight.device) / scale)  # one for each head, if it has many
