"""Bags of tokens: which ones a window holds, predicted over the vocabulary. Never more than CHUNK rows of logits.

A prediction is a distribution (offset None: p = softmax(z)) or says of each token if it is there: p = σ(z + offset)
for windows of W tokens, with offset log(W / V), so that at first W tokens are expected, any of them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


class BagLoss(torch.autograd.Function):
    """The sum over windows of how badly x·wᵀ predicts the W tokens of each, `chunk` windows at a time.

    As a distribution: −Σ_v target(v) · log p(v), the target being the normalised counts. As there or not: binary
    cross-entropy, summed over the vocabulary and divided by W. Both are in nats per token of the window.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bags: Tensor, offset: float | None, chunk: int) -> Tensor:
        w, share = weight.to(x.dtype), 1 / bags.shape[1]  # (V, C)
        d_x, d_w = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)  # (N, C), (V, C)
        total = torch.zeros((), dtype=torch.float32, device=x.device)  # ()
        for rows, answers, d_rows in zip(x.split(chunk), bags.split(chunk), d_x.split(chunk)):
            z = (rows @ w.T).float()  # (N, V)
            if offset is None:
                z = z.log_softmax(dim=-1)  # (N, V)
                total -= z.gather(1, answers).sum() * share  # ()
                target = torch.full_like(answers, -share, dtype=z.dtype)  # (N, W)
                z = z.exp_().scatter_add_(1, answers, target)  # (N, V)
            else:
                there = torch.zeros_like(z).scatter_(1, answers, 1.0)  # (N, V)
                z += offset  # (N, V)
                total += F.binary_cross_entropy_with_logits(z, there, reduction="sum") * share  # ()
                z = z.sigmoid_().sub_(there).mul_(share)  # (N, V)
            d_logits = z.to(x.dtype)  # (N, V)
            d_rows.copy_(d_logits @ w)  # (N, C)
            d_w += d_logits.T @ rows  # (V, C)
            del z, d_logits  # before the next chunk makes its own
        ctx.save_for_backward(d_x, d_w)
        ctx.dtype = weight.dtype
        return total  # ()

    @staticmethod
    def backward(ctx, d_total: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_x, d_w = ctx.saved_tensors  # (N, C), (V, C)
        return (d_x * d_total).to(d_x.dtype), (d_w * d_total).to(ctx.dtype), None, None, None  # (N, C), (V, C)


class ExpectedEmbedding(torch.autograd.Function):
    """Σ_v p(v) · table[v] / Σ_v p(v), for p predicted by x·wᵀ; computed again going back, `chunk` rows at a time.

    For e = Σ p·t / Σ p: ∂e/∂z(v) = p(v) / Σ p · (t(v) − e), times 1 − p(v) where p is a sigmoid.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, table: Tensor, offset: float | None, chunk: int) -> Tensor:
        w, t = weight.to(x.dtype), table.to(x.dtype)  # (V, C)
        out = torch.empty_like(x)  # (N, C)
        for rows, part in zip(x.split(chunk), out.split(chunk)):
            share = shares(rows @ w.T, offset)[0]  # (N, V)
            part.copy_(share.to(x.dtype) @ t)  # (N, C)
            del share
        ctx.save_for_backward(x, weight, table, out)
        ctx.offset, ctx.chunk = offset, chunk
        return out  # (N, C)

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, table, out = ctx.saved_tensors  # (N, C), (V, C), (V, C), (N, C)
        w, t = weight.to(x.dtype), table.to(x.dtype)  # (V, C)
        total = torch.promote_types(weight.dtype, torch.float32)
        d_x = torch.empty_like(x)  # (N, C)
        d_w, d_t = (torch.zeros_like(weight, dtype=total) for _ in range(2))  # (V, C)
        pieces = (tensor.split(ctx.chunk) for tensor in (x, out, d_out, d_x))
        for rows, expected, d_rows_out, d_rows in zip(*pieces):
            share, slope = shares(rows @ w.T, ctx.offset)  # (N, V)
            d_t += share.to(x.dtype).T @ d_rows_out  # (V, C)
            level = (d_rows_out * expected).sum(dim=-1, keepdim=True)  # (N, 1)
            d_logits = (slope * (d_rows_out @ t.T - level)).to(x.dtype)  # (N, V)
            d_rows.copy_(d_logits @ w)  # (N, C)
            d_w += d_logits.T @ rows  # (V, C)
            del share, slope, d_logits
        return d_x, d_w.to(weight.dtype), d_t.to(table.dtype), None, None  # (N, C), (V, C), (V, C)


def shares(logits: Tensor, offset: float | None) -> tuple[Tensor, Tensor]:
    """Each token's share of the bag, which sum to 1, and what it changes by with its logit: both (N, V)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # (N, V)
    if offset is None:
        share = logits.softmax(dim=-1)  # (N, V)
        return share, share  # (N, V)
    p = (logits + offset).sigmoid()  # (N, V)
    share = p / p.sum(dim=-1, keepdim=True)  # (N, V)
    return share, share * (1 - p)  # (N, V)
