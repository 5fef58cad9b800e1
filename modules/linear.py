"""The linear map, with faster kernels for a single row and for a few rows."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.kernels import few_rows_linear, one_row_linear
from modules.logging_module import LoggingModule

MKL = torch.backends.mkl.is_available()  # the BLAS on x86, whose matrix-vector routine is slow
FEW_ROWS = range(2, 6)
LARGE = 2**14  # numbers of a matrix from which on `few_rows_linear` is faster
SLICES = 8  # at most; with two threads, two are as fast


class Linear(LoggingModule, nn.Linear):
    """y = x·Wᵀ + b. Without gradients on a CPU, single rows and few rows have kernels of their own.

    A single row is a step of decoding with the cache; a few rows verify the drafts of speculative decoding.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool):
        super().__init__(in_features, out_features, bias)
        self.slices = math.gcd(out_features, SLICES)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or x.dim() != 3 or torch.is_grad_enabled():
            return F.linear(x, self.weight, self.bias)  # (…, O)
        n_rows, fp32 = x.shape[0] * x.shape[1], MKL and x.dtype == torch.float32
        if n_rows == 1 and (fp32 or torch.compiler.is_compiling()):
            return one_row_linear(x, self.weight, self.bias, self.slices)  # (1, 1, O)
        if n_rows in FEW_ROWS and fp32 and self.weight.numel() >= LARGE:
            return few_rows_linear(x, self.weight, self.bias)  # (B, T, O)
        return F.linear(x, self.weight, self.bias)  # (…, O)
