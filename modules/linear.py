"""The linear map, with a faster kernel for a single row."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.kernels import one_row_linear
from modules.logging_module import LoggingModule

MKL = torch.backends.mkl.is_available()  # the BLAS on x86, whose matrix-vector routine is slow
SLICES = 8  # at most; with two threads, two are as fast


class Linear(LoggingModule, nn.Linear):
    """y = x·Wᵀ + b. A single row, as in decoding one sequence with the cache, is computed by `one_row_linear`."""

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__(in_features, out_features, bias)
        self.slices = math.gcd(out_features, SLICES)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[:-1] == (1, 1) and x.is_cpu and not torch.is_grad_enabled() and (
            torch.compiler.is_compiling() or (MKL and x.dtype == torch.float32)
        ):
            return one_row_linear(x, self.weight, self.bias, self.slices)  # (1, 1, O)
        return F.linear(x, self.weight, self.bias)  # (…, O)
