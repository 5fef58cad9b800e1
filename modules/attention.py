"""Attention: each position reads from itself and the positions before it."""

import math

import torch
from torch import Tensor

from config import ModelConfig
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.initialise import initialise_writer
from modules.kernels import causal_attention, masked_attention, runs_flex, sloped_attention
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.norms import QueryKeyNorm
from modules.positions import PositionContext


class DotProductAttention(LoggingModule):
    """softmax(q·kᵀ/√D + bias, causal) · v for given queries, keys and values (Vaswani et al. 2017, arXiv 1706.03762).

    fused: whether PyTorch's kernel computes it; otherwise the same formula is computed step by step.
    reads: what the keys and values are made from. qk_norm: None, unless `add_norms` makes it.
    """

    reads = "tokens"
    weighs_by_softmax = True  # with `scale`

    def __init__(self, width: int, n_heads: int, n_kv_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, width // n_heads
        self.scale = 1 / math.sqrt(self.head_dim)
        self.fused = True
        self.dropout = Dropout(dropout)
        self.qk_norm: QueryKeyNorm | None = None

    def add_norms(self, config: ModelConfig) -> None:
        """Gives queries and keys norms, if the model has qk_norm: RMS norms, whatever kind its other norms are."""
        if config.qk_norm:
            self.qk_norm = QueryKeyNorm(self.n_heads, self.head_dim, config.norm.eps)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, N·D) cut into N heads."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, N, T, D)

    def read(self, q: Tensor, k: Tensor, v: Tensor, place: PositionContext) -> Tensor:
        """What the queries (B, H, T, D) read from keys and values (B, G, S, D), computed as `fused` says."""
        return self.attend(q, k, v, place) if self.fused else self.attend_by_hand(q, k, v, place)  # (B, H, T, D)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place: PositionContext) -> Tensor:
        """The fused kernel: causal with the bias in extra dimensions, or with a mask that holds the bias."""
        dropout = self.dropout.active_rate
        if place.fits_causal_kernel:
            if place.blocks is not None and runs_flex(q, v, dropout):
                return sloped_attention(q, k, v, place.slopes, self.scale, place.blocks)  # (B, H, T, D)
            q, k, v = place.extend(q, k, v, self.scale)  # (B, H, T, E), (B, G, S, E), (B, G, S, E)
            return causal_attention(
                q, k, v, self.scale, dropout, window=place.window
            )[..., : self.head_dim]  # (B, H, T, D)
        mask = place.masked_bias()  # (…, T, S)
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(q.dtype)  # (…, T, S)
        return masked_attention(q, k, v, mask, self.scale, dropout)  # (B, H, T, D)

    def attend_by_hand(self, q: Tensor, k: Tensor, v: Tensor, place: PositionContext) -> Tensor:
        """The same, step by step."""
        v = v.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)  # (B, H, N, D)
        return self.dropout(self.weights(q, k, place)) @ v  # (B, H, T, D)

    def weights(self, q: Tensor, k: Tensor, place: PositionContext) -> Tensor:
        """How much each query reads from each key; rows sum to 1."""
        k = k.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)  # (B, H, S, D)
        scores = q @ k.transpose(-2, -1) * self.scale  # (B, H, T, S)
        bias = place.bias()  # (…, H, T, S)
        if bias is not None:
            scores = scores + bias  # (B, H, T, S)
        seen = place.visible(q.shape[2], q.device)  # (…, T, S)
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)  # (B, H, T, S)
        return scores.softmax(dim=-1)  # (B, H, T, S)

    def applied(self, weights: list[Tensor]) -> Tensor:
        """The matrix (H, T, S) by which the values are multiplied, from the weights of each `read` of one pass."""
        return weights[0]  # (H, T, S)


class Attention(DotProductAttention):
    """Self-attention with an output projection, as in GPT-2 and Llama.

    n_kv_heads G = n_heads H is multi-head, G = 1 multi-query (arXiv 1911.02150), between grouped-query attention
    (arXiv 2305.13245).

                  ┌ q (B, H, T, D) ─ turn ┐
    x (B, T, C) ──┼ k (B, G, S, D) ─ turn ┴ scores (B, H, T, S) ─ softmax ┐
                  └ v (B, G, S, D) ───────────────────────────────────────┴ heads (B, H, T, D) ─ out (B, T, C)
    """

    def __init__(self, width: int, n_heads: int, n_kv_heads: int, bias: bool = False, dropout: float = 0.0):
        super().__init__(width, n_heads, n_kv_heads, dropout)
        self.qkv = Linear(width, (n_heads + 2 * n_kv_heads) * self.head_dim, bias=bias)
        self.out = Linear(width, width, bias=bias)

    @classmethod
    def of(cls, config: ModelConfig) -> "Attention":
        """The self-attention of a model with these settings."""
        made = cls(config.width, config.n_heads, config.kv_heads, config.bias, config.dropout.attention)
        made.add_norms(config)
        return made

    def forward(self, x: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(x, place, cache)  # (B, H, T, D), (B, G, S, D), (B, G, S, D)
        heads = self.read(q, k, v, place)  # (B, H, T, D)
        heads = heads.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.out(heads)  # (B, T, C)

    def project(
        self, x: Tensor, place: PositionContext, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D); keys and values (B, G, S, D), those of earlier passes included if there is a cache."""
        heads = self.split_heads(self.qkv(x))  # (B, H+2G, T, D)
        queries_and_keys = self.n_heads + self.n_kv_heads
        qk, v = heads.split((queries_and_keys, self.n_kv_heads), dim=1)  # (B, H+G, T, D), (B, G, T, D)
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)  # (B, H+G, T, D)
        q, k = place.turn(qk).split((self.n_heads, self.n_kv_heads), dim=1)  # (B, H, T, D), (B, G, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, G, S, D)
        return q, k, v  # (B, H, T, D), (B, G, S, D), (B, G, S, D)

    def initialise(self, config: ModelConfig) -> None:
        initialise_writer(self.out, config)


class QueryKeyAttention(DotProductAttention):
    """Attention that projects only queries and keys; its values are the heads of a stream, D channels each."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.width, config.n_heads, config.n_heads, config.dropout.attention)
        self.qk = Linear(config.width, 2 * config.width, bias=config.bias)
        self.add_norms(config)

    def queries_and_keys(self, x: Tensor, place: PositionContext) -> tuple[Tensor, Tensor]:
        """Queries and keys of the tokens of this pass, each (B, H, T, D)."""
        qk = self.split_heads(self.qk(x))  # (B, 2H, T, D)
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)  # (B, 2H, T, D)
        return place.turn(qk).chunk(2, dim=1)  # (B, H, T, D)
