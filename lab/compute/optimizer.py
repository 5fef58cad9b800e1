"""AdamW, with the settings that small transformers are usually trained with."""

import torch
from torch import nn

from config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101). Weight decay applies to matrices, and not to biases and norm weights.

    The update is fused on the CPU and on CUDA: one pass over the parameters instead of a dozen.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = trained[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)


def update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One update of the parameters at this learning rate. Deletes the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
