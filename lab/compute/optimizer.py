"""The optimizer: Muon for hidden matrices and AdamW for all other parameters, or AdamW for all."""

import torch
from torch import nn

from config import TrainConfig
from lab.compute.muon import Muon
from modules.block import Block
from settings.errors import ConfigError


class Optimizers(torch.optim.Optimizer):
    """Several optimizers that share the parameters of a model, as one: each updates its own groups.

    A group's `rate_share` is what the learning rate is multiplied by there.
    """

    def __init__(self, *parts: torch.optim.Optimizer):
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.connect()

    def connect(self) -> None:
        """Lets the parts work on the groups and the state of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.state, part.param_groups = self.state, [next(groups) for _ in part.param_groups]

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self.connect()

    @torch.no_grad()
    def step(self) -> None:
        for part in self.parts:
            part.step()


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101), with Muon for hidden matrices unless it is ruled out.

    Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982) makes the momentum of a matrix orthogonal, so that all
    its directions are learned alike. An update is scaled to the size of one of AdamW, 0.2 · √max(rows, columns), so
    that one learning rate serves both. Weight decay applies to matrices, and not to biases and norm weights.

    AdamW's update is fused on the CPU and on CUDA: one pass over the parameters instead of a dozen.
    Raises ConfigError for Muon where no hidden matrix is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden = matrices_of_muon(model, config)
    own = set(map(id, hidden))
    rest = [p for p in trained if id(p) not in own]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() == 1], "weight_decay": 0.0},
    ]
    if numbers := [p for p in rest if not p.dim()]:  # by themselves: they are whole where the others are split
        groups.append({"params": numbers, "weight_decay": 0.0})
    fused = trained[0].device.type in ("cpu", "cuda")
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=fused)
    if not hidden:
        return adamw
    muon = Muon(
        [{"params": hidden, "rate_share": config.muon_rate}], lr=config.learning_rate,
        weight_decay=config.weight_decay, momentum=config.muon_momentum,
    )
    return Optimizers(muon, adamw)


def matrices_of_muon(model: nn.Module, config: TrainConfig) -> list[nn.Parameter]:
    """The trained matrices that the model's blocks call hidden, each once; none for AdamW.

    Raises ConfigError where the settings ask for Muon and there are none.
    """
    if config.optimizer == "adamw":
        return []
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    found = {id(p): p for block in blocks for p in block.hidden_matrices() if p.requires_grad}
    if config.optimizer == "muon" and not found:
        raise ConfigError(
            "optimizer 'muon' is for hidden matrices, and this model trains none: an adapter's factors, mixings of "
            "whole heads and embeddings are not among them. Set optimizer to 'adamw'"
        )
    return list(found.values())


def update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One update of the parameters at this learning rate. Deletes the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_share", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
