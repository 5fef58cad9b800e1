"""The numbers of a step on their way from the device to Python, and from all ranks to each."""

import torch
from torch import Tensor

from lab.compute.ranks import ALONE, Ranks


class Readings:
    """Named scalars of one device, and of the other ranks, read all at once.

    Making it starts the copy, and waits for nothing: on CUDA the device can go on with what it is given next. `read`
    waits until the numbers are there, and for nothing that came after them.
    """

    def __init__(self, scalars: dict[str, Tensor], ranks: Ranks = ALONE):
        self.names = list(scalars)
        together = ranks.gather(torch.stack([scalar.detach().float() for scalar in scalars.values()]))
        self.values = together.to("cpu", non_blocking=together.is_cuda)  # elsewhere nothing tells when it is there
        self.copied = None
        if together.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def by_rank(self) -> list[dict[str, float]]:
        """The numbers of each rank by name, in float32."""
        if self.copied is not None:
            self.copied.synchronize()
        return [dict(zip(self.names, row)) for row in self.values.tolist()]

    def read(self) -> dict[str, float]:
        """The numbers by name; of several ranks the means."""
        rows = self.by_rank()
        return {name: sum(row[name] for row in rows) / len(rows) for name in self.names}
