"""The linear map, with a faster kernel for a few rows."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.kernels import few_rows_linear
from modules.logging_module import LoggingModule

MKL = torch.backends.mkl.is_available()  # the BLAS on x86, which is slow for few rows
FEW_ROWS = 64  # at most; for more, it uses all threads
SLICES = 8  # at most; with two threads, two are as fast


class Linear(LoggingModule, nn.Linear):
    """y = x·Wᵀ + b. Few rows, as in decoding with the cache, are computed by `few_rows_linear`."""

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__(in_features, out_features, bias)
        self.slices = math.gcd(out_features, SLICES)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not x.is_cpu or not 0 < math.prod(x.shape[:-1]) <= FEW_ROWS:
            return F.linear(x, self.weight, self.bias)  # (…, O)
        if runs_mkl(x) or (x.shape[:-1] == (1, 1) and torch.compiler.is_compiling()):
            return few_rows_linear(x, self.weight, self.bias, self.slices)  # (…, O)
        return F.linear(x, self.weight, self.bias)  # (…, O)


def runs_mkl(x: Tensor) -> bool:
    """Whether MKL multiplies x, which is on the CPU."""
    return MKL and x.dtype == torch.float32
