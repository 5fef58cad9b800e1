"""The future-sighted network: layers that foresee ever nearer windows, each reading what those before it foresaw."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.attention import Attention, DotProductAttention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.foresight import Foresight
from modules.kernels import causal_attention
from modules.linear import Linear
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.pools import build_pool
from modules.positions import Placement


class Thoughts(NamedTuple):
    """The stream x (B, T, C); the vectors foreseen so far (B, T, J, C), furthest level first; and for each level what
    the head reads its bag from (B, T, N, C), if it foresees bags. Both start empty: J = N = 0."""

    x: Tensor
    vectors: Tensor
    read: Tensor


class CrossAttention(DotProductAttention):
    """Each position attends to the future vectors that it and earlier positions predicted, J per position, and to one
    learned `nothing` key.

    The keys come from predictions, never from tokens that are still to come. Every position sees `nothing`, a trained
    key and value. Without it the first position would have a single key, and a softmax over one key is constant.
    Queries and keys are turned and biased by the position that made the prediction.

    x       (B, T, C)    ─ q (B, H, T, D) ─ turn ┐
    vectors (B, T, J, C) ─ k (B, JG, S, D) ─ turn ┴ scores (B, H, T, JS+1) ─ softmax ┐
                         └ v (B, JG, S, D) ──────────────────────────────────────────┴ heads ─ out (B, T, C)
    """

    def __init__(self, config: ModelConfig, n_vectors: int):
        super().__init__(config.width, config.n_heads, config.kv_heads, config.dropout.attention)
        self.n_vectors = n_vectors
        self.q = Linear(config.width, config.width, config.bias)
        self.kv = Linear(config.width, 2 * config.kv_heads * config.head_dim, config.bias)
        self.nothing = nn.Parameter(torch.zeros(2, config.kv_heads, 1, config.head_dim))  # (2, G, 1, D)
        self.out = Linear(config.width, config.width, config.bias)

    def forward(self, x: Tensor, vectors: Tensor, place: Placement, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(x, vectors, place, cache)  # (B, H, T, D), (B, G, P, D), (B, G, P, D)
        return self.out(self.read(q, k, v, place).transpose(1, 2).flatten(2))  # (B, T, C)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place: Placement) -> Tensor:
        """The fused kernel: causal for several keys of each position, or with a mask that holds the bias."""
        dropout = self.dropout.active_rate
        if place.causal and place.bias() is None:
            return causal_attention(q, k, v, self.scale, dropout, first=1, each=self.n_vectors)  # (B, H, T, D)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.visible(place, q), dropout_p=dropout, scale=self.scale,
            enable_gqa=self.n_kv_heads < self.n_heads,
        )  # (B, H, T, D)

    def project(
        self, x: Tensor, vectors: Tensor, place: Placement, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D); keys and values (B, G, P, D): those of every vector, and of `nothing`."""
        # predictions start tiny; at a common scale they are heard, and so is what made them
        vectors = F.rms_norm(vectors, vectors.shape[-1:])  # (B, T, J, C)
        k, v = self.kv(vectors).chunk(2, dim=-1)  # (B, T, J, GD)
        k, v = self.split_heads(k.flatten(2)), self.split_heads(v.flatten(2))  # (B, JG, T, D)
        q = self.split_heads(self.q(x))  # (B, H, T, D)
        qk = place.turn(torch.cat((q, k), dim=1))  # (B, H+JG, T, D)
        q, k = qk[:, : self.n_heads], qk[:, self.n_heads :]  # (B, H, T, D), (B, JG, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, JG, S, D)
        k, v = self.in_a_row(k, self.nothing[0]), self.in_a_row(v, self.nothing[1])  # (B, G, P, D)
        return q, k, v  # (B, H, T, D), (B, G, P, D), (B, G, P, D)

    def in_a_row(self, x: Tensor, nothing: Tensor) -> Tensor:
        """`nothing`, and then the keys or values (B, JG, S, D) of each position's vectors in turn: (B, G, P, D)."""
        x = x.unflatten(1, (self.n_vectors, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, N, D)
        return torch.cat((nothing.to(x.dtype).expand(len(x), -1, -1, -1), x), dim=2)  # (B, G, N+1, D)

    def visible(self, place: Placement, q: Tensor) -> Tensor | None:
        """The mask, or the bias with the mask in it, of a pass for each vector's keys; None where all are seen."""
        bias, mask = place.bias(), place.mask  # (…, T, S)
        if place.causal:
            mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()  # (T, S)
        if bias is None and mask is None:
            return None
        seen = mask if bias is None else bias if mask is None else bias.masked_fill(~mask, -torch.inf)  # (…, T, S)
        seen = seen.repeat_interleave(self.n_vectors, dim=-1)  # (…, T, N)
        seen = F.pad(seen, (1, 0), value=seen.dtype == torch.bool)  # (…, T, N+1): nothing is always seen
        return seen if seen.dtype == torch.bool else seen.to(q.dtype)  # (…, T, N+1)

    def weights(self, q: Tensor, k: Tensor, place: Placement) -> Tensor:
        """How much each query reads from each key, `nothing` first; rows sum to 1."""
        k = k.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)  # (B, H, P, D)
        scores, visible = q @ k.mT * self.scale, self.visible(place, q)  # (B, H, T, P), (…, T, P)
        if visible is not None and visible.dtype == torch.bool:
            scores = scores.masked_fill(~visible, -torch.inf)  # (B, H, T, P)
        elif visible is not None:
            scores = scores + visible  # (B, H, T, P)
        return scores.softmax(dim=-1)  # (B, H, T, P)


class FutureBlock(Block):
    """A layer of the future-sighted network; `cross` and `foresight` are there in some layers only.

        x ─┬─ norm ─ attention ─┐   ┬─ norm ─ cross ─┐   ┬─ norm ─ mlp ─┐
           └─────────────────── + ──┴─────────────── + ──┴───────────── + ─┬─ x
                                          │                                │
        vectors ──────────────────────────┴────────────────────── + ───────│── vectors
                                                                  └─ foresight

    The body has neither. The furthest level predicts and reads nothing, because no level is further. The nearer levels
    do both. The last layer, which gives the next token, reads all.
    """

    def __init__(
        self, config: ModelConfig, n_vectors: int, level: int | None = None, foresight: Foresight | None = None
    ):
        super().__init__(config)
        self.attention_norm, self.mlp_norm = (build_norm(config.norm, config.width) for _ in range(2))
        self.attention = Attention(
            config.width, config.n_heads, config.kv_heads, config.bias, config.dropout.attention
        )
        self.cross_norm = build_norm(config.norm, config.width) if n_vectors else None
        self.cross = CrossAttention(config, n_vectors) if n_vectors else None
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.foresight = foresight
        self.dropout = Dropout(config.dropout.residual)
        self.settings, self.n_vectors, self.level = config.block, n_vectors, level
        if n_vectors:
            self.cached_heads += (n_vectors * config.kv_heads,)

    def split(self, x: Tensor) -> Thoughts:
        """The embedded tokens as the state that the first block takes."""
        none = x[:, :, None][:, :, :0]  # (B, T, 0, C)
        return Thoughts(x, none, none)  # (B, T, C), (B, T, 0, C), (B, T, 0, C)

    def join(self, thoughts: Thoughts) -> Tensor:
        """The last block's state as what the final norm reads."""
        return thoughts.x  # (B, T, C)

    def forward(
        self, thoughts: Thoughts, place: Placement, cache: LayerCache | None = None,
        cross_cache: LayerCache | None = None,
    ) -> Thoughts:  # fmt: skip
        x, vectors, read = thoughts  # (B, T, C), (B, T, J, C), (…, C)
        x = x + self.dropout(self.attention(self.attention_norm(x), place, cache))  # (B, T, C)
        if self.cross is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), vectors, place, cross_cache))  # (B, T, C)
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))  # (B, T, C)
        if self.foresight is None:
            return Thoughts(x, vectors, read)  # (B, T, C), (B, T, J, C), (…, C)
        return Thoughts(x, *self.foresee(x, vectors, read))  # (B, T, C), (…, C), (…, C)

    def foresee(self, x: Tensor, vectors: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors with those of this level behind them, and likewise what the head reads, where it reads bags."""
        own, new = self.foresight(x)  # (B, T, C), (…, C)
        vectors = torch.cat((vectors, new), dim=2)  # (B, T, J, C)
        if self.foresight.forecast is None:
            read = torch.cat((read, own[:, :, None]), dim=2)  # (…, C)
        return vectors, read  # (B, T, J, C), (…, C)

    def losses(self, thoughts: Thoughts, windows: Tensor) -> dict[str, Tensor]:
        if self.foresight is None:
            return {}
        return self.foresight.losses(*self.own(thoughts), windows)  # ()

    def own(self, thoughts: Thoughts) -> tuple[Tensor | None, Tensor]:
        """This level's part of the last block's state: what the head reads (B, T, C), or None, and its vectors."""
        vectors = thoughts.vectors[:, :, self.n_vectors : self.n_vectors + self.foresight.count]  # (B, T, J, C)
        if self.foresight.forecast is not None:
            return None, vectors  # (B, T, J, C)
        return thoughts.read[:, :, self.settings.levels - self.level], vectors  # (B, T, C), (B, T, J, C)

    @property
    def loss_weights(self) -> dict[str, float]:
        if self.foresight is None:
            return {}
        return self.foresight.loss_weights(self.settings.loss_weight * self.settings.decay ** (self.level - 1))


def build_future_blocks(
    config: ModelConfig, embedding: nn.Embedding, norm: nn.Module, head: nn.Module
) -> nn.ModuleList:  # fmt: skip
    """The body, a layer for each level from the furthest to the nearest, the last layer."""
    settings = config.block
    windows = [last - first + 1 for first, last in settings.windows]
    shared = build_pool(config, windows[-1], max(settings.counts)) if settings.share else None
    body = config.n_layers - settings.levels - 1
    blocks, n_vectors = [FutureBlock(config, 0) for _ in range(body)], 0
    for level in range(settings.levels, 0, -1):
        count = settings.counts[level - 1]
        pool = shared or build_pool(config, windows[level - 1], count)
        foresight = Foresight(config, level, (embedding, head), pool)
        blocks.append(FutureBlock(config, n_vectors, level, foresight))
        n_vectors += count
    return nn.ModuleList([*blocks, FutureBlock(config, n_vectors)])
