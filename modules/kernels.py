"""What is computed in another way on a CPU than on a GPU, because it is faster there. The results are the same.

Kernels written by hand are plain tensor code; those with gradients compute them by formula. The bench folder measures
the gain.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.block_attention import most_keys, written_out_attention
from modules.losses import soft_cap

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

LEFT = 5  # rows: for more, a product with the weights on the right is faster
LONG = 2048  # tokens; from here on FlexAttention is worth the half minute in which it is compiled by itself
SHORTEST = 128  # tokens; one block of FlexAttention
ALIGNED = 64  # a vocabulary that is a multiple of it lets a GPU use its fastest products
MOST_LOGITS = 2**30  # at once on a GPU, where all of them take about 14 bytes each, the backward pass included
LONGEST = 1024  # keys; for more, PyTorch's kernel is faster, because this one keeps T² weights for the backward pass
_longest = [LONGEST]  # the last one is in force


@contextmanager
def attention_by_pytorch() -> Iterator[None]:
    """Inside the `with`, PyTorch's kernel computes causal attention everywhere, as it does on a GPU."""
    _longest.append(0)
    try:
        yield
    finally:
        _longest.pop()


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float = 0.0, first: int = 0, each: int = 1,
    window: int | None = None,
) -> Tensor:
    """softmax(q·kᵀ·scale, causal) · v for q (B, H, T, D) and k, v (B, G, P, D), by the fastest kernel.

    There are P = first + each · T keys. A query sees the first `first` of them, and `each` keys of every position up to
    its own; with a window, of the last `window` positions up to its own (Beltagy et al. 2020, arXiv 2004.05150). In
    bfloat16 on a CPU, PyTorch's backward pass is slower than in float32; this one is twice as fast. With a window, this
    one is faster in every type, because PyTorch's computes all scores.
    """
    grouped = q.shape[1] != k.shape[1]
    if window is not None and window >= q.shape[2]:
        window = None  # every query sees all keys up to its own
    slow = window is not None or (q.dtype == torch.bfloat16 and (q.requires_grad or v.requires_grad))
    if not (slow and q.is_cpu and not dropout and most_keys(q.shape[2], first, each, window) <= _longest[-1]):
        plain = (first, each, window) == (0, 1, None)
        mask = None if plain else causal_mask(q.shape[2], first, each, q.device, window)  # (T, P)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=plain, scale=scale, dropout_p=dropout, enable_gqa=grouped
        )  # (B, H, T, E)
    if grouped:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))  # (B, H, P, E)
    return written_out_attention(q * scale, k, v, first, each, window)  # (B, H, T, E)


def blocks_for_training(length: int, window: int | None, device: torch.device) -> "BlockMask | None":
    """Which keys a query sees, block by block, for `sloped_attention`; None where it is not the fastest way to train.

    It is on a GPU for long texts, and for shorter ones where the whole model is compiled anyway.
    """
    compiling = torch.compiler.is_compiling()
    if device.type != "cuda" or not torch.is_grad_enabled() or length < (SHORTEST if compiling else LONG):
        return None
    return seen_blocks(length, window, device) if compiling else kept_blocks(length, window, device)


def runs_flex(q: Tensor, v: Tensor, dropout: float) -> bool:
    """Whether `sloped_attention` is fast for these: in 16 bits, for heads of 16 to 128 channels, a power of two."""
    fast = q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] in (16, 32, 64, 128)
    return fast and (q.requires_grad or v.requires_grad) and not dropout


def sloped_attention(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, scale: float, blocks: "BlockMask") -> Tensor:
    """softmax(q·kᵀ·scale + slope · (j − i), seen) · v by FlexAttention (Dong et al. 2024, arXiv 2412.05496).

    q (B, H, T, D), k and v (B, G, T, D), slopes (H); blocks: which keys are seen, from `blocks_for_training`.
    """
    from torch.nn.attention.flex_attention import flex_attention  # only where it runs: the import takes a moment

    def add_slope(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + slopes[head] * (j - i)  # ()

    compiled = flex_attention if torch.compiler.is_compiling() or q.is_cpu else compiled_flex()
    return compiled(
        q, k, v, score_mod=add_slope, block_mask=blocks, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )  # (B, H, T, D)


@lru_cache(maxsize=1)
def compiled_flex() -> Callable:
    """FlexAttention for a model that is not compiled itself. Not compiled, it would make all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def seen_blocks(length: int, window: int | None, device: torch.device) -> "BlockMask":
    """Which keys a query sees, block by block: those up to its own, and with a window the last `window` of them."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return i >= j if window is None else (i >= j) & (i - j < window)  # ()

    return create_block_mask(seen, None, None, length, length, device=device)


kept_blocks = lru_cache(maxsize=8)(seen_blocks)  # a model that is not compiled needs them in every pass


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float = 0.0
) -> Tensor:
    """softmax(q·kᵀ·scale + mask) · v for q (B, H, T, D) and k, v (B, G, S, D), by the fastest kernel.

    mask: numbers to add, True where a key is seen, or None; broadcastable to (B, H, T, S). For one query of each head,
    PyTorch's kernel on a CPU reads keys and values at half the memory's speed. Products and sums, compiled, are faster.
    """
    if q.shape[2] == 1 and q.is_cpu and torch.compiler.is_compiling() and not torch.is_grad_enabled():
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))  # (B, H, S, D)
        scores = (q * scale * k).sum(dim=-1)[:, :, None]  # (B, H, 1, S)
        if mask is not None and mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)  # (B, H, 1, S)
        elif mask is not None:
            scores = scores + mask  # (B, H, 1, S)
        weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()  # (B, H, 1, S)
        total = weights.sum(dim=-1, keepdim=True)  # (B, H, 1, 1)
        return (weights.mT * v).sum(dim=-2, keepdim=True) / total  # (B, H, 1, D)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )  # (B, H, T, D)


def causal_mask(length: int, first: int, each: int, device: torch.device, window: int | None = None) -> Tensor:
    """True where a query sees a key, as `causal_attention` says: (T, first + each · T)."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()  # (T, T)
    if window is not None:
        seen = seen.triu(1 - window)  # (T, T)
    return F.pad(seen.repeat_interleave(each, dim=1), (first, 0), value=True)  # (T, P)


def head_loss(
    x: Tensor, weight: Tensor, targets: Tensor, ignore: int, chunk: int, cap: float | None = None
) -> Tensor:
    """Sum of −log softmax(x·wᵀ)[target] over rows x (N, C) whose target (N) is not `ignore`, by the fastest way.

    cap: with one, the logits are cap · tanh(x·wᵀ / cap).

    A GPU has the memory for all logits, and few large products suit it best. The compiler makes one kernel of the
    softmax and the loss. On a CPU, and for more than MOST_LOGITS, `chunk` rows at a time are faster, and need less.
    """
    if x.is_cuda and x.shape[0] * weight.shape[0] <= MOST_LOGITS:
        return loss_of_all_logits(x, weight, targets, ignore, cap)  # ()
    return HeadLoss.apply(x, weight, targets, ignore, chunk, cap)  # ()


def loss_of_all_logits(
    x: Tensor, weight: Tensor, targets: Tensor, ignore: int, cap: float | None = None
) -> Tensor:
    """The same from all logits, with the vocabulary filled up to a multiple of ALIGNED.

    What fills up has the logits −∞. So its probability is 0, and its gradient too.
    """
    w, missing = weight.to(x.dtype), -weight.shape[0] % ALIGNED  # (V, C)
    filled = F.pad(w, (0, 0, 0, missing))  # (O, C)
    bias = F.pad(w.new_zeros(w.shape[0]), (0, missing), value=-math.inf) if missing else None  # (O)
    if cap is None:
        logits = F.linear(x, filled, bias)  # (N, O)
    else:
        logits = soft_cap(F.linear(x, filled), cap)  # (N, O)
        logits = logits if bias is None else logits + bias  # (N, O)
    return CrossEntropy.apply(logits, targets, ignore)  # ()


class CrossEntropy(torch.autograd.Function):
    """Sum of −log softmax(y)[target] over the rows of y (N, V) whose target is not `ignore`.

    The loss is computed in float32, whatever type y has. The backward pass computes softmax − onehot from y in y's
    type; only where the target stands, where a small difference would be lost, from log softmax in float32. PyTorch's
    own keeps log softmax of all in float32, and moves more than twice as many bytes.
    """

    @staticmethod
    def forward(ctx, y: Tensor, targets: Tensor, ignore: int) -> Tensor:
        counts = targets != ignore  # (N)
        answers = targets.clamp(min=0)[:, None]  # (N, 1)
        log_p = torch.log_softmax(y, dim=-1, dtype=torch.promote_types(y.dtype, torch.float32))  # (N, V)
        log_p = log_p.gather(1, answers)  # (N, 1)
        ctx.save_for_backward(y, answers, log_p, counts)
        return -(log_p[:, 0] * counts).sum()  # ()

    @staticmethod
    def backward(ctx, d_total: Tensor) -> tuple[Tensor, None, None]:
        y, answers, log_p, counts = ctx.saved_tensors  # (N, V), (N, 1), (N, 1), (N)
        d_y = torch.softmax(y, dim=-1, dtype=y.dtype).scatter_(1, answers, log_p.expm1().to(y.dtype))  # (N, V)
        return d_y.mul_((counts * d_total)[:, None].to(y.dtype)), None, None  # (N, V)


class HeadLoss(torch.autograd.Function):
    """Sum of −log softmax(y)[target], y = x·wᵀ, `chunk` rows at a time, so that never all logits exist at once.

    The gradient of a row's logits is softmax − onehot. It is multiplied with x and w while the chunk's logits exist, so
    the backward pass only scales the results. Products are in x's type, sums over rows in float32. cap: with one,
    y = cap · tanh(x·wᵀ / cap), whose gradient has the factor 1 − (y / cap)².
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, targets: Tensor, ignore: int, chunk: int, cap: float | None = None
    ) -> Tensor:
        w = weight.to(x.dtype)  # (V, C)
        d_x, d_w = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)  # (N, C), (V, C)
        total = torch.zeros((), dtype=torch.float32, device=x.device)  # ()
        for rows, answers, d_rows in zip(x.split(chunk), targets.split(chunk), d_x.split(chunk)):
            y = soft_cap((rows @ w.T).float(), cap)  # (N, V)
            slope = None if cap is None else 1 - (y / cap).square_()  # (N, V)
            log_p = y.log_softmax(dim=-1)  # (N, V)
            del y
            total += F.nll_loss(log_p, answers, ignore_index=ignore, reduction="sum")  # ()
            ones = torch.ones_like(log_p[:, :1])  # (N, 1)
            d_logits = log_p.exp_().scatter_add_(1, answers.clamp(min=0)[:, None], -ones)  # (N, V)
            if cap is not None:
                d_logits *= slope  # (N, V)
            d_logits = d_logits.to(x.dtype)  # (N, V)
            counts = (answers != ignore)[:, None].to(x.dtype)  # (N, 1)
            d_rows.copy_((d_logits @ w) * counts)  # (N, C)
            if ctx.needs_input_grad[1]:  # of a frozen weight nobody reads the gradient
                d_w += d_logits.T @ (rows * counts)  # (V, C)
            del slope, log_p, d_logits  # before the next chunk makes its own
        ctx.save_for_backward(d_x, d_w)
        ctx.dtype = weight.dtype
        return total  # ()

    @staticmethod
    def backward(ctx, d_total: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        d_x, d_w = ctx.saved_tensors  # (N, C), (V, C)
        return d_x * d_total, (d_w * d_total).to(ctx.dtype), None, None, None, None  # (N, C), (V, C)


def few_rows_linear(x: Tensor, weight: Tensor, bias: Tensor | None, slices: int) -> Tensor:
    """x·Wᵀ + b for x (…, I) of a few rows and W (O, I), without gradients; `slices` divides O.

    MKL's own product of a few rows runs in one thread. In a batched product each thread takes slices of W: with two
    threads 2-4 times as fast for one row, 1.4 times for 32. Up to 5 rows it is faster with W on the left. One row
    compiled is a multiplication and a sum, because the compiler makes one loop of them and of what follows.
    """
    n_rows = math.prod(x.shape[:-1])
    if n_rows == 1 and torch.compiler.is_compiling():
        y = (weight * x.reshape(1, -1)).sum(dim=-1).view(*x.shape[:-1], -1)  # (…, AO)
        return y if bias is None else y + bias  # (…, AO)
    rows = x.contiguous().view(1, n_rows, -1).expand(slices, -1, -1)  # (A, N, I)
    parts = weight.view(slices, -1, weight.shape[1])  # (A, O, I)
    if n_rows <= LEFT:
        y = torch.bmm(parts, rows.mT).view(-1, n_rows).mT.contiguous()  # (N, AO)
    else:
        y = torch.cat(torch.bmm(rows, parts.mT).unbind(), dim=-1)  # (N, AO)
    y = y.reshape(*x.shape[:-1], -1)  # (…, AO)
    return y if bias is None else y + bias  # (…, AO)


def int8_linear(x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
    """x·(scale · codes)ᵀ for x (…, I), codes (O, I) int8, scale (O).

    The scales multiply the O outputs, and not the O · I weights. That gives the same sums, and takes less time.
    """
    if runs_int8_kernel(x, len(codes)):
        ones = torch.ones_like(scale, dtype=x.dtype)  # (O)
        y = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), codes, ones).view(*x.shape[:-1], -1)  # (…, O)
    elif x.shape[:-1] == (1, 1) and x.is_cpu and torch.compiler.is_compiling() and not torch.is_grad_enabled():
        y = (codes.to(x.dtype) * x[0]).sum(dim=-1)[None, None]  # (1, 1, O): the compiler reads the codes alone
    else:
        y = F.linear(x, codes.to(x.dtype))  # (…, O)
    return (y.to(scale.dtype) * scale).to(y.dtype)  # (…, O)


def runs_int8_kernel(x: Tensor, outputs: int) -> bool:
    """Whether PyTorch's kernel multiplies x (…, I) by int8 weights: without gradients, in bfloat16 on a CPU.

    There it is several times as fast for one row as a product with converted weights. In float32 it is slower than
    that, up to a hundred times. Sizes that are no multiples of 32 are kept from it: for some of them it reads past the
    end of the weights, without an error.
    """
    fast = x.is_cpu and x.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    return fast and x.shape[-1] % 32 == 0 and outputs % 32 == 0
