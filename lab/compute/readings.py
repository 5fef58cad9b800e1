"""The numbers of a step on their way from the device to Python."""

import torch
from torch import Tensor


class Readings:
    """Named scalars of one device, read all at once.

    Making it starts the copy, and waits for nothing: on CUDA the device can go on with what it is given next. `read`
    waits until the numbers are there, and for nothing that came after them.
    """

    def __init__(self, scalars: dict[str, Tensor]):
        self.names = list(scalars)
        together = torch.stack([scalar.detach().float() for scalar in scalars.values()])
        self.values = together.to("cpu", non_blocking=together.is_cuda)  # elsewhere nothing tells when it is there
        self.copied = None
        if together.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> dict[str, float]:
        """The numbers by name, in float32."""
        if self.copied is not None:
            self.copied.synchronize()
        return dict(zip(self.names, self.values.tolist()))
