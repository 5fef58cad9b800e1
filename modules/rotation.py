"""The rotation of pairs of channels, as rotary positions use it, with its gradient by formula."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos − b sin, b cos + a sin) for the halves a and b of each head's channels in x (B, N, T, D).

    cos is (cos, cos) and sin is (−sin, sin), each (…, T, D).
    """
    if x.is_cpu and torch.compiler.is_compiling():  # the compiler reads rolled channels one by one, halves at once
        (a, b), (cos_a, cos_b), (sin_a, sin_b) = (whole.chunk(2, dim=-1) for whole in (x, cos, sin))  # (…, D/2)
        halves = torch.addcmul(a * cos_a, b, sin_a), torch.addcmul(b * cos_b, a, sin_b)  # (…, D/2)
        return torch.cat(halves, dim=-1)  # (B, N, T, D)
    return Rotation.apply(x, cos, sin)  # (B, N, T, D)


class Rotation(torch.autograd.Function):
    """Backward: the gradient is rotated back. PyTorch's own takes five operations for that, and this one three."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        swapped = x.roll(x.shape[-1] // 2, dims=-1)  # (B, N, T, D): rolling by half swaps a and b; sin has the sign
        return torch.addcmul(x * cos, swapped, sin)  # (B, N, T, D)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_y: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors  # (…, T, D), (…, T, D)
        swapped = d_y.roll(d_y.shape[-1] // 2, dims=-1)  # (B, N, T, D)
        return torch.addcmul(d_y * cos, swapped, sin, value=-1), None, None  # (B, N, T, D)
