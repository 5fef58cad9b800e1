"""Causal attention written out block by block, because that is faster on a CPU in bfloat16, and with a window."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64  # queries per block; most scores above the diagonal are never computed
LARGE_BLOCK, LONG = 128, 256  # for more than LONG queries that see all before them: fewer copies of their keys


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
        out, weights, block = [], [], block_size(length, window)
        for start in range(0, length, block):
            end = min(start + block, length)
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
        by_blocks = torch.compiler.is_compiling() and ctx.keys == (0, 1, None)
        d_q, parts = [], []
        summed = torch.promote_types(k.dtype, torch.float32)
        d_k, d_v = (torch.zeros_like(x, dtype=summed) for x in (k, v))  # (N, P, E)
        for p, start in zip(weights, range(0, length, weights[0].shape[1])):
            end = start + p.shape[1]
            seen = keys_of_block(start, end, *ctx.keys)
            of_v = p.transpose(1, 2) @ d_out[:, start:end]  # (N, P, E)
            d_p = d_out[:, start:end] @ v[:, seen].transpose(1, 2)  # (N, K, P)
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # (N, K, P)
            d_q.append(d_scores @ k[:, seen])  # (N, K, E)
            of_k = d_scores.transpose(1, 2) @ q[:, start:end]  # (N, P, E)
            if by_blocks:
                parts.append((of_k, of_v))
                continue
            d_k[:, seen] += of_k  # (N, P, E)
            d_v[:, seen] += of_v  # (N, P, E)
        if by_blocks:
            d_k, d_v = map(sum_by_blocks, zip(*parts))  # (N, T, E)
        d_q = torch.cat(d_q, dim=1)  # (N, T, E)
        heads = [x.to(q.dtype).view(*shape[:2], -1, x.shape[-1]) for x in (d_q, d_k, d_v)]
        return *heads, None, None, None, None  # (B, H, T, E), (B, H, P, E), (B, H, P, E)


def block_size(length: int, window: int | None) -> int:
    """The queries per block of a text of `length` positions."""
    return LARGE_BLOCK if window is None and length > LONG else BLOCK


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

    Each position has `each` columns. The first position stands `most_before` places in front of the block, the last
    one is the block's last.
    """
    before = most_before(length, window)
    keys = torch.arange(-before, block_size(length, window), device=device)  # (O)
    distance = keys[before:, None] - keys  # (K, O)
    unseen = distance < 0 if window is None else (distance < 0) | (distance >= window)  # (K, O)
    hidden = torch.zeros(unseen.shape, dtype=dtype, device=device).masked_fill(unseen, -math.inf)  # (K, O)
    return hidden.repeat_interleave(each, dim=1)  # (K, P)


# The compiler would compute the table anew for every score that it is added to, which slows a softmax down.
hidden_scores_apart = torch.library.custom_op("glassbox::hidden_scores", hidden_scores, mutates_args=())
hidden_scores_apart.register_fake(hidden_scores)


def most_before(length: int, window: int | None) -> int:
    """The most positions in front of a block that one of its queries sees."""
    block = block_size(length, window)
    last = (length - 1) // block * block  # where the last block starts
    return last if window is None else min(last, window - 1)


def hidden_of_block(hidden: Tensor, start: int, end: int, first: int, each: int, window: int | None) -> Tensor:
    """The part of `hidden_scores` for a block: (K, P), with the `first` keys, which all queries see, in front."""
    origin = hidden.shape[1] // each - hidden.shape[0] - start
    columns = slice(each * (origin + first_position(start, window)), each * (origin + end))
    behind = hidden[: end - start, columns]  # (K, O)
    return F.pad(behind, (first, 0))  # (K, P)


def sum_by_blocks(parts: Sequence[Tensor]) -> Tensor:
    """The sum of a part (N, P, E) of each block, for the keys up to its end, one block of keys after the other.

    The compiler makes a loop of it. Of sums into slices it makes one that looks at all parts for each number.
    """
    rows, block = [], parts[0].shape[1]
    for i, part in enumerate(parts):
        keys = slice(i * block, (i + 1) * block)
        total = part[:, keys].float()  # (N, O, E)
        for later in parts[i + 1 :]:
            total = total + later[:, keys]  # (N, O, E)
        rows.append(total)
    return torch.cat(rows, dim=1)  # (N, P, E)
