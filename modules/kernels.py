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

from modules.losses import soft_cap

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 64  # queries per block; most scores above the diagonal are never computed
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


def written_out_attention(
    q: Tensor, k: Tensor, v: Tensor, first: int = 0, each: int = 1, window: int | None = None
) -> Tensor:
    """softmax(q·kᵀ, causal) · v for q (B, H, T, D) and k, v (B, H, P, D), as `causal_attention` says."""
    make = hidden_scores_apart if torch.compiler.is_compiling() else hidden_scores
    return CausalAttention.apply(
        q, k, v, make(q.shape[2], each, window, q.dtype, q.device), first, each, window
    )  # (B, H, T, E)


class CausalAttention(torch.autograd.Function):
    """o = p·v, p = softmax(q·kᵀ), one block of queries after the other, each with the keys that any of them sees.

    hidden: from `hidden_scores`. Backward: dv = pᵀ·do, dp = do·vᵀ, ds = p·(dp − Σ p·dp), dq = ds·k, dk = dsᵀ·q
    (arXiv 2205.14135, appendix B.2).
    """

    @staticmethod
    def forward(
        ctx, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, first: int, each: int, window: int | None = None
    ) -> Tensor:
        shape, length = q.shape, q.shape[2]
        q, k, v = (x.reshape(-1, x.shape[2], x.shape[3]) for x in (q, k, v))  # (N, T, E), (N, P, E), (N, P, E)
        out, weights = [], []
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            seen = keys_of_block(start, end, first, each, window)
            scores = q[:, start:end] @ k[:, seen].transpose(1, 2)  # (N, K, P)
            scores = scores + hidden_of_block(hidden, start, end, first, each, window)  # (N, K, P)
            weights.append(scores.softmax(dim=-1))  # (N, K, P)
            out.append(weights[-1] @ v[:, seen])  # (N, K, E)
        ctx.save_for_backward(q, k, v, *weights)
        ctx.keys = first, each, window
        return torch.cat(out, dim=1).view(*shape[:-1], -1)  # (B, H, T, E)

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        saved = ctx.saved_tensors  # read once, because checkpointing recomputes them at each access
        q, k, v = saved[:3]  # (N, T, E), (N, P, E), (N, P, E)
        weights = saved[3:]
        shape, length = d_out.shape, d_out.shape[2]
        d_out = d_out.reshape(-1, length, shape[-1])  # (N, T, E)
        d_q = torch.empty_like(q)  # (N, T, E)
        summed = torch.promote_types(k.dtype, torch.float32)
        d_k, d_v = (torch.zeros_like(x, dtype=summed) for x in (k, v))  # (N, P, E)
        for p, start in zip(weights, range(0, length, BLOCK)):
            end = start + p.shape[1]
            seen = keys_of_block(start, end, *ctx.keys)
            d_v[:, seen] += p.transpose(1, 2) @ d_out[:, start:end]  # (N, P, E)
            d_p = d_out[:, start:end] @ v[:, seen].transpose(1, 2)  # (N, K, P)
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # (N, K, P)
            d_q[:, start:end] = d_scores @ k[:, seen]  # (N, K, E)
            d_k[:, seen] += d_scores.transpose(1, 2) @ q[:, start:end]  # (N, P, E)
        heads = [x.to(q.dtype).view(*shape[:2], -1, x.shape[-1]) for x in (d_q, d_k, d_v)]
        return *heads, None, None, None, None  # (B, H, T, E), (B, H, P, E), (B, H, P, E)


def most_keys(length: int, first: int, each: int, window: int | None) -> int:
    """The keys that one block of CausalAttention has at most."""
    return first + each * (length if window is None else min(length, BLOCK + window))


def first_position(start: int, window: int | None) -> int:
    """The first position that a block of queries from `start` on sees."""
    return 0 if window is None else max(0, start - window + 1)


def keys_of_block(start: int, end: int, first: int, each: int, window: int | None) -> slice | list[int]:
    """The keys that any query of a block sees: of `first` keys in front, and of the positions up to the block's end."""
    position = first_position(start, window)
    keys = slice(first + each * position, first + each * end)
    if not first or not position:
        return slice(keys.start if position else 0, keys.stop)
    return [*range(first), *range(keys.start, keys.stop)]


def hidden_scores(length: int, each: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """−∞ where a query of a block does not see a key, else 0: (K, P), for all blocks of a text of `length` positions.

    Columns from each · (b + j) on belong to the position that is j behind the block's first query, from j = −b on,
    where b is `most_before`.
    """
    before = most_before(length, window)
    keys = torch.arange(-before, BLOCK, device=device)  # (O)
    distance = keys[before:, None] - keys  # (K, O)
    unseen = distance < 0 if window is None else (distance < 0) | (distance >= window)  # (K, O)
    hidden = torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill(unseen, -math.inf)  # (K, O)
    return hidden.repeat_interleave(each, dim=1)  # (K, P)


# The compiler would compute it anew for every score that it is added to, and a softmax would take twice as long.
hidden_scores_apart = torch.library.custom_op("glassbox::hidden_scores", hidden_scores, mutates_args=())
hidden_scores_apart.register_fake(hidden_scores)


def most_before(length: int, window: int | None) -> int:
    """The most positions in front of a block that one of its queries sees."""
    last = (length - 1) // BLOCK * BLOCK  # where the last block starts
    return last if window is None else min(last, window - 1)


def hidden_of_block(hidden: Tensor, start: int, end: int, first: int, each: int, window: int | None) -> Tensor:
    """The part of `hidden_scores` for a block: (K, P), with the `first` keys, which all queries see, in front."""
    origin = hidden.shape[1] // each - BLOCK - start
    columns = slice(each * (origin + first_position(start, window)), each * (origin + end))
    behind = hidden[: end - start, columns]  # (K, O)
    return F.pad(behind, (first, 0))  # (K, P)


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
