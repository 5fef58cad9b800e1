"""Muon, with all matrices of one shape updated together."""

from collections.abc import Iterable
from math import sqrt

import torch
from torch import Tensor

from lab.compute.ranks import current_ranks
from lab.compute.sharding import local, own_rows, stack_whole
from modules.losses import in_autocast_type


class Muon(torch.optim.Muon):
    """torch's own Muon, whose update of an RMS like AdamW's is computed for all matrices of one shape at once.

    One by one, the 48 matrices of GPT-2 need some 1,400 small kernels, which keep a GPU waiting: an update took eight
    times as long there. And torch's own always multiplies in bfloat16, which takes twenty times as long on a CPU
    without instructions for it. This one multiplies in float32, or under autocast in bfloat16. The state is that of
    torch.optim.Muon with adjust_lr_fn="match_rms_adamw", and under autocast the results are, too.

    Several ranks share the work: each makes some of the matrices orthogonal, and all get all of them. Of parameters
    that are split over the ranks each keeps its rows of the momenta; the matrices to make orthogonal are gathered.
    """

    def __init__(self, parameters: Iterable, lr: float, weight_decay: float, momentum: float):
        super().__init__(parameters, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():
                self.update_alike(parameters, group)

    def update_alike(self, parameters: list[Tensor], group: dict) -> None:
        """Updates parameters (O, I) of one shape."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        like, kept, rate = parameters[0], group["momentum"], group["lr"]
        momenta = [local(self.state[parameter]["momentum_buffer"]) for parameter in parameters]
        gradients, weights = [local(parameter.grad) for parameter in parameters], list(map(local, parameters))
        torch._foreach_lerp_(momenta, gradients, 1 - kept)
        directions = stack_whole(torch._foreach_lerp(gradients, momenta, kept), like)  # Nesterov: one step ahead
        updates = orthogonal_by_ranks(directions, group["ns_coefficients"], group["ns_steps"], group["eps"])
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        updates = own_rows(updates.mul_(-rate * 0.2 * sqrt(max(like.shape))), like)
        torch._foreach_add_(weights, list(updates.unbind()))


def orthogonal_by_ranks(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """`orthogonal` of matrices (N, O, I) that every rank has: each computes ⌈N / ranks⌉ and sends them to all."""
    ranks = current_ranks()
    if ranks.size == 1:
        return orthogonal(x, coefficients, steps, eps)
    from torch import distributed

    share = -(-len(x) // ranks.size)
    mine = x[ranks.rank * share : (ranks.rank + 1) * share]
    part = in_autocast_type(x.new_zeros(share, *x.shape[1:]))
    if len(mine):
        part[: len(mine)] = orthogonal(mine, coefficients, steps, eps)
    found = part.new_empty(ranks.size * share, *x.shape[1:])
    distributed.all_gather_into_tensor(found, part)
    return found[: len(x)]


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Of each matrix (N, O, I) about the nearest one with orthonormal rows or columns.

    Each step maps the singular values, which start at 1 or below, by a·s + b·s³ + c·s⁵ (Jordan et al. 2024).
    """
    a, b, c = coefficients
    tall = x.shape[1] > x.shape[2]
    x = in_autocast_type(x.mT if tall else x)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
