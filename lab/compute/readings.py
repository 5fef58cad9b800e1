"""The numbers of a step on their way from the device to Python, and from all ranks to each."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lab.compute.ranks import Ranks


class Found(NamedTuple):
    """The numbers of a step in float32: the mean of each loss over the ranks, the norm of the gradients, whether any
    rank wishes to stop, and for each rank the names of its numbers that are not finite."""

    losses: dict[str, float]
    norm: float
    stop: bool
    not_finite: list[list[str]]


class Readings:
    """The losses of a step on this rank, and the norm of its gradients, read all at once and together with those of the
    other ranks.

    Making it starts the copy, and waits for nothing: on CUDA the device can go on with what it is given next. `read`
    waits until the numbers are there, and for nothing that came after them.
    """

    def __init__(self, losses: dict[str, Tensor], norm: Tensor, ranks: Ranks, stopping: bool):
        self.names = [*losses, "gradient_norm"]
        together = torch.stack([scalar.detach().float() for scalar in (*losses.values(), norm)])
        together = ranks.gather(torch.cat((together, together.new_tensor([float(stopping)]))))
        self.values = together.to("cpu", non_blocking=together.is_cuda)  # elsewhere nothing tells when it is there
        self.copied = None
        if together.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> Found:
        if self.copied is not None:
            self.copied.synchronize()
        rows = self.values.tolist()
        means = [sum(column) / len(rows) for column in zip(*rows)]
        wrong = [[name for name, value in zip(self.names, row) if not math.isfinite(value)] for row in rows]
        *losses, norm, stop = means
        return Found(dict(zip(self.names, losses)), norm, stop > 0, wrong)
