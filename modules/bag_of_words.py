"""Bags of words: the tokens of a window without their order, predicted over the vocabulary, CHUNK rows at a time.

A prediction is a distribution over all tokens (offset None: p = softmax(z)), or for each token the probability that
the window holds it: p = σ(z + offset). The offset log(W / V), for windows of W tokens, makes the probabilities sum to
about W at the start. The logits are z, or cap · tanh(z / cap) for a model with a cap on its logits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from modules.losses import soft_cap


class BagLoss(torch.autograd.Function):
    """The loss of x·wᵀ as a prediction of the W tokens of each window, summed over windows, `chunk` of them at a time.

    As a distribution: −Σ_v target(v) · log p(v); the target is the normalised counts. As a probability for each token:
    binary cross-entropy, summed over the vocabulary and divided by W. Both are in nats per token of the window.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bags: Tensor, offset: float | None, chunk: int, cap: float | None = None
    ) -> Tensor:
        w, share = weight.to(x.dtype), 1 / bags.shape[1]  # (V, C)
        d_x, d_w = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)  # (N, C), (V, C)
        total = torch.zeros((), dtype=torch.float32, device=x.device)  # ()
        for rows, answers, d_rows in zip(x.split(chunk), bags.split(chunk), d_x.split(chunk)):
            z = soft_cap((rows @ w.T).float(), cap)  # (N, V)
            slope = None if cap is None else 1 - (z / cap).square_()  # (N, V)
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
            if cap is not None:
                z *= slope  # (N, V)
            d_logits = z.to(x.dtype)  # (N, V)
            d_rows.copy_(d_logits @ w)  # (N, C)
            d_w += d_logits.T @ rows  # (V, C)
            del slope, z, d_logits  # before the next chunk makes its own
        ctx.save_for_backward(d_x, d_w)
        ctx.dtype = weight.dtype
        return total  # ()

    @staticmethod
    def backward(ctx, d_total: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        d_x, d_w = ctx.saved_tensors  # (N, C), (V, C)
        gradients = (d_x * d_total).to(d_x.dtype), (d_w * d_total).to(ctx.dtype)  # (N, C), (V, C)
        return *gradients, None, None, None, None  # (N, C), (V, C)


@torch.no_grad()
def expected_embedding(
    x: Tensor, weight: Tensor, table: Tensor, offset: float | None, chunk: int, cap: float | None = None
) -> Tensor:
    """Σ_v p(v) · table[v] / Σ_v p(v) for p predicted by x·wᵀ, `chunk` rows at a time: (N, C). Without a gradient."""
    w, t = weight.to(x.dtype).T, table.to(x.dtype)  # (C, V), (V, C)
    return torch.cat([shares(soft_cap(rows @ w, cap), offset) @ t for rows in x.split(chunk)])  # (N, C)


def shares(logits: Tensor, offset: float | None) -> Tensor:
    """Each token's share of the window: (N, V), rows sum to 1."""
    if offset is None:
        return logits.softmax(dim=-1)  # (N, V)
    p = (logits + offset).sigmoid_()  # (N, V)
    return p.div_(p.sum(dim=-1, keepdim=True))  # (N, V)
