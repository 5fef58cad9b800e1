"""Muon, with all matrices of one shape updated together."""

from collections.abc import Callable, Iterable
from math import sqrt

import torch
from torch import Tensor

from lab.compute.ranks import current_ranks
from lab.compute.sharding import is_sharded, local, row_counts, swap
from modules.losses import in_autocast_type


class Muon(torch.optim.Muon):
    """torch's own Muon, whose update of an RMS like AdamW's is computed for all matrices of one shape at once.

    One by one, the 48 matrices of GPT-2 need some 1,400 small kernels, which keep a GPU waiting: an update took eight
    times as long there. And torch's own always multiplies in bfloat16, which takes twenty times as long on a CPU
    without instructions for it. This one multiplies in float32, or under autocast in bfloat16. The state is that of
    torch.optim.Muon with adjust_lr_fn="match_rms_adamw", and under autocast the results are, too, but for rounding.

    Several ranks share the work: each makes some of the matrices orthogonal, and sends them to all. Of parameters that
    are split over the ranks each keeps its rows of the momenta; it gets the other rows of the matrices that it makes
    orthogonal, and sends back to each rank the rows of the results.
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
        kept, rate = group["momentum"], group["lr"]
        momenta = [local(self.state[parameter]["momentum_buffer"]) for parameter in parameters]
        gradients, weights = [local(parameter.grad) for parameter in parameters], list(map(local, parameters))
        torch._foreach_lerp_(momenta, gradients, 1 - kept)

        def directions(which: slice) -> Tensor:  # Nesterov: one step ahead of the momenta
            ahead = torch._foreach_lerp(gradients[which], momenta[which], kept)
            stacked = in_autocast_type(ahead[0][:0]).new_empty(len(ahead), *ahead[0].shape)  # only the type is used
            torch._foreach_copy_(list(stacked), ahead)
            return stacked

        settings = group["ns_coefficients"], group["ns_steps"], group["eps"]
        updates = orthogonal_by_ranks(directions, parameters, settings)
        updates.mul_(-rate * 0.2 * sqrt(max(parameters[0].shape)))
        torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
        torch._foreach_add_(weights, list(updates.unbind()))


def orthogonal_by_ranks(directions: Callable[[slice], Tensor], parameters: list[Tensor], settings: tuple) -> Tensor:
    """`orthogonal` of the directions of N parameters (O, I), of which each rank computes ⌈N / ranks⌉: (N, O, I).

    directions: gives those of some parameters, stacked. Of parameters that are split over the ranks it gives this
    rank's rows, and so does the result. settings: the further arguments of `orthogonal`.
    """
    ranks, number = current_ranks(), len(parameters)
    if ranks.size == 1:
        return orthogonal(directions(slice(None)), *settings)
    counts, like = row_counts(number, ranks.size), parameters[0]
    if is_sharded(like):
        return orthogonal_rows(directions(slice(None)), like.shape[0], counts, settings)
    from torch import distributed

    first, mine = sum(counts[: ranks.rank]), counts[ranks.rank]
    part = in_autocast_type(like.new_zeros(counts[0], *like.shape))
    if mine:
        part[:mine] = orthogonal(directions(slice(first, first + mine)), *settings)
    found = part.new_empty(ranks.size * counts[0], *like.shape)
    distributed.all_gather_into_tensor(found, part)
    return found[:number]


def orthogonal_rows(rows: Tensor, n_rows: int, counts: list[int], settings: tuple) -> Tensor:
    """This rank's rows (N, R, I) of the orthogonal matrices, from its rows (N, R, I) of N matrices of n_rows rows.

    counts: how many of the matrices each rank computes.
    """
    ranks, width = current_ranks(), rows.shape[2]
    rows_of = row_counts(n_rows, ranks.size)
    parts = swap(list(rows.split(counts)), [(counts[ranks.rank], rows_there, width) for rows_there in rows_of])
    found = orthogonal(torch.cat(parts, dim=1), *settings)  # (⌈N / ranks⌉, O, I)
    parts = swap(list(found.split(rows_of, dim=1)), [(count, rows_of[ranks.rank], width) for count in counts])
    return torch.cat(parts)


def orthogonal(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Of each matrix (N, O, I) about the nearest one with orthonormal rows or columns.

    Each step maps the singular values, which start at 1 or below, by a·s + b·s³ + c·s⁵ (Jordan et al. 2024). Let R be
    the shorter side of a matrix X and G = X·Xᵀ its Gram matrix (R, R): a step multiplies X by F = a + b·G + c·G², and G
    by F². So where X is at least twice as long as R, two steps are taken on G, and X is multiplied once, by both
    factors. Not more than two: after five on G, the rounding errors of bfloat16 can have grown without bound.
    """
    a, b, c = coefficients
    x = in_autocast_type(x)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    tall, long = x.shape[1] > x.shape[2], max(x.shape[1:]) >= 2 * min(x.shape[1:])

    def higher_terms(gram: Tensor) -> Tensor:  # F − a
        return torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # (N, R, R)

    for step in range(0, steps, 2 if long else 1):
        gram = x.mT @ x if tall else x @ x.mT  # (N, R, R)
        factor, two = higher_terms(gram), long and step + 1 < steps
        if two:
            factor.diagonal(dim1=1, dim2=2).add_(a)
            factor = torch.baddbmm(factor, higher_terms(factor @ gram @ factor), factor, beta=a)  # (N, R, R)
        pair = (x, factor) if tall else (factor, x)
        x = torch.bmm(*pair) if two else torch.baddbmm(x, *pair, beta=a)  # (N, O, I)
    return x
