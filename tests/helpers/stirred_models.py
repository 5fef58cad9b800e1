"""Models with no weight left where it started, and the states that they pass through."""

import torch

from config import ModelConfig
from modules.transformer import Transformer


def stirred(config: ModelConfig) -> Transformer:
    """Every parameter far from where it started, in float64."""
    model = Transformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def stirred_alike(config: ModelConfig) -> Transformer:
    """The same at every call, and stirred less: in float64, no weight trivial."""
    torch.manual_seed(1)
    model = Transformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def states_of(model: Transformer, ids: torch.Tensor) -> list:
    """What each block returns."""
    states = []
    hooks = [block.register_forward_hook(lambda _, __, out: states.append(out)) for block in model.blocks]
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return states
