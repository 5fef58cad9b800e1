"""The future-sighted network: its layers predict nearer and nearer windows, and attend to earlier predictions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.attention import Attention, DotProductAttention
from modules.block import Block, Parts
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.foresight import Foresight
from modules.initialise import initialise_writer
from modules.kernels import causal_attention, masked_attention
from modules.linear import Linear
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.pools import build_pool
from modules.positions import PositionContext
from settings.registry import built_in


class FutureState(NamedTuple):
    """The stream x (B, T, C); the future vectors predicted so far (B, T, J, C), furthest level first; and for each
    level that predicts tokens, what the head reads (B, T, N, C). The last two start empty: J = N = 0."""

    x: Tensor
    vectors: Tensor
    read: Tensor


class CrossAttention(DotProductAttention):
    """Each position attends to the future vectors that it and earlier positions predicted, J per position, and to one
    learned `nothing` key.

    The keys come from predictions, never from tokens that are still to come. Every position sees `nothing`, a trained
    key and value. Without it the first position would have a single key, and a softmax over one key is constant.
    The position of a key is the one that made the prediction. So with a window, a position sees the predictions of the
    last `window` positions, itself included. With qk_norm, `nothing` has no norm: its key is trained itself.

    x       (B, T, C)    ─ q (B, H, T, D) ─ turn ┐
    vectors (B, T, J, C) ─ k (B, JG, S, D) ─ turn ┴ scores (B, H, T, JS+1) ─ softmax ┐
                         └ v (B, JG, S, D) ──────────────────────────────────────────┴ heads ─ out (B, T, C)
    """

    reads = "future vectors"

    def __init__(self, config: ModelConfig, n_vectors: int):
        super().__init__(config.width, config.n_heads, config.kv_heads, config.dropout.attention)
        self.n_vectors = n_vectors
        self.q = Linear(config.width, config.width, config.bias)
        self.kv = Linear(config.width, 2 * config.kv_heads * config.head_dim, config.bias)
        self.nothing = nn.Parameter(torch.zeros(2, config.kv_heads, 1, config.head_dim))  # (2, G, 1, D)
        self.out = Linear(config.width, config.width, config.bias)
        self.add_norms(config)

    def initialise(self, config: ModelConfig) -> None:
        initialise_writer(self.out, config)
        nn.init.normal_(self.nothing, std=config.init_std)

    def forward(self, x: Tensor, vectors: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(x, vectors, place, cache)  # (B, H, T, D), (B, G, P, D), (B, G, P, D)
        return self.out(self.read(q, k, v, place).transpose(1, 2).flatten(2))  # (B, T, C)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, place: PositionContext) -> Tensor:
        """The fused kernel: causal for several keys of each position, or with a mask that holds the bias."""
        dropout = self.dropout.active_rate
        if place.causal and place.bias() is None:
            keys = dict(first=1, each=self.n_vectors, window=place.window)
            return causal_attention(q, k, v, self.scale, dropout, **keys)  # (B, H, T, D)
        return masked_attention(q, k, v, self.visible(place, q), self.scale, dropout)  # (B, H, T, D)

    def project(
        self, x: Tensor, vectors: Tensor, place: PositionContext, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D); keys and values (B, G, P, D): those of every vector, and of `nothing`."""
        # predictions start tiny; at a common scale they get attention, and their level gets a gradient
        vectors = F.rms_norm(vectors, vectors.shape[-1:])  # (B, T, J, C)
        k, v = self.kv(vectors).chunk(2, dim=-1)  # (B, T, J, GD)
        k, v = self.split_heads(k.flatten(2)), self.split_heads(v.flatten(2))  # (B, JG, T, D)
        q = self.split_heads(self.q(x))  # (B, H, T, D)
        qk = torch.cat((q, k), dim=1)  # (B, H+JG, T, D)
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)  # (B, H+JG, T, D)
        qk = place.turn(qk)  # (B, H+JG, T, D)
        q, k = qk[:, : self.n_heads], qk[:, self.n_heads :]  # (B, H, T, D), (B, JG, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, JG, S, D)
        k, v = self.in_a_row(k, self.nothing[0]), self.in_a_row(v, self.nothing[1])  # (B, G, P, D)
        return q, k, v  # (B, H, T, D), (B, G, P, D), (B, G, P, D)

    def in_a_row(self, x: Tensor, nothing: Tensor) -> Tensor:
        """`nothing`, then the keys or values (B, JG, S, D) of all vectors, position by position: (B, G, P, D)."""
        x = x.unflatten(1, (self.n_vectors, -1)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, N, D)
        return torch.cat((nothing.to(x.dtype).expand(len(x), -1, -1, -1), x), dim=2)  # (B, G, N+1, D)

    def visible(self, place: PositionContext, q: Tensor) -> Tensor | None:
        """The mask over each vector's keys, or the bias with the mask in it; None where every key is seen."""
        bias, mask = place.bias(), place.visible(q.shape[2], q.device)  # (…, T, S)
        if bias is None and mask is None:
            return None
        seen = mask if bias is None else bias if mask is None else bias.masked_fill(~mask, -torch.inf)  # (…, T, S)
        seen = seen.repeat_interleave(self.n_vectors, dim=-1)  # (…, T, N)
        seen = F.pad(seen, (1, 0), value=seen.dtype == torch.bool)  # (…, T, N+1): nothing is always seen
        return seen if seen.dtype == torch.bool else seen.to(q.dtype)  # (…, T, N+1)

    def weights(self, q: Tensor, k: Tensor, place: PositionContext) -> Tensor:
        """How much each query reads from each key, `nothing` first; rows sum to 1."""
        k = k.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)  # (B, H, P, D)
        scores, visible = q @ k.mT * self.scale, self.visible(place, q)  # (B, H, T, P), (…, T, P)
        if visible is not None and visible.dtype == torch.bool:
            scores = scores.masked_fill(~visible, -torch.inf)  # (B, H, T, P)
        elif visible is not None:
            scores = scores + visible  # (B, H, T, P)
        return scores.softmax(dim=-1)  # (B, H, T, P)


@built_in("block", "future")
class FutureBlock(Block):
    """A layer of the future-sighted network; only some layers have `cross` and `foresight`.

        x ─┬─ norm ─ attention ─┐   ┬─ norm ─ cross ─┐   ┬─ norm ─ mlp ─┐
           └─────────────────── + ──┴─────────────── + ──┴───────────── + ─┬─ x
                                          │                                │
        vectors ──────────────────────────┴────────────────────── + ───────│── vectors
                                                                  └─ foresight

    The layers of the body have neither. The furthest level has no `cross`, because nothing has been predicted
    before it. The nearer levels have both. The last layer, which gives the next token, attends to all levels.
    """

    reads_parts = True

    def __init__(
        self, config: ModelConfig, n_vectors: int = 0, level: int | None = None, foresight: Foresight | None = None
    ):
        super().__init__(config)
        self.attention_norm, self.mlp_norm = (build_norm(config.norm, config.width) for _ in range(2))
        self.attention = Attention.of(config)
        self.cross_norm = build_norm(config.norm, config.width) if n_vectors else None
        self.cross = CrossAttention(config, n_vectors) if n_vectors else None
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.foresight = foresight
        self.dropout = Dropout(config.dropout.residual)
        self.settings, self.n_vectors, self.level = config.block, n_vectors, level
        if n_vectors:
            self.cached_heads += (n_vectors * config.kv_heads,)

    @classmethod
    def build_layers(cls, config: ModelConfig) -> list["FutureBlock"]:
        """The body, one layer for each level from the furthest to the nearest, and the last layer."""
        settings = config.block
        windows = [last - first + 1 for first, last in settings.windows]
        shared = build_pool(config, windows[-1], max(settings.counts)) if settings.share else None
        body = config.n_layers - settings.levels - 1
        blocks, n_vectors = [cls(config) for _ in range(body)], 0
        for level in range(settings.levels, 0, -1):
            count = settings.counts[level - 1]
            pool = shared or build_pool(config, windows[level - 1], count)
            blocks.append(cls(config, n_vectors, level, Foresight(config, level, pool)))
            n_vectors += count
        return [*blocks, cls(config, n_vectors)]

    @property
    def reads_unembedding(self) -> bool:
        return self.foresight is not None and self.foresight.forecast is None

    def split(self, x: Tensor) -> FutureState:
        none = x[:, :, None][:, :, :0]  # (B, T, 0, C)
        return FutureState(x, none, none)  # (B, T, C), (B, T, 0, C), (B, T, 0, C)

    def join(self, state: FutureState) -> Tensor:
        return state.x  # (B, T, C)

    def forward(
        self, state: FutureState, place: PositionContext, cache: LayerCache | None = None,
        cross_cache: LayerCache | None = None, *, parts: Parts,
    ) -> FutureState:
        x, vectors, read = state  # (B, T, C), (B, T, J, C), (…, C)
        x = x + self.dropout(self.attention(self.attention_norm(x), place, cache))  # (B, T, C)
        if self.cross is not None:
            x = x + self.dropout(self.cross(self.cross_norm(x), vectors, place, cross_cache))  # (B, T, C)
        x = x + self.dropout(self.mlp(self.mlp_norm(x)))  # (B, T, C)
        if self.foresight is None:
            return FutureState(x, vectors, read)  # (B, T, C), (B, T, J, C), (…, C)
        return FutureState(x, *self.foresee(x, vectors, read, parts))  # (B, T, C), (…, C), (…, C)

    def foresee(self, x: Tensor, vectors: Tensor, read: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
        """`vectors` and `read` with those of this level appended; `read` only where the level predicts tokens."""
        own, new = self.foresight(x, parts)  # (B, T, C), (…, C)
        vectors = torch.cat((vectors, new), dim=2)  # (B, T, J, C)
        if self.foresight.forecast is None:
            read = torch.cat((read, own[:, :, None]), dim=2)  # (…, C)
        return vectors, read  # (B, T, J, C), (…, C)

    def losses(self, state: FutureState, windows: Tensor, parts: Parts) -> dict[str, Tensor]:
        if self.foresight is None:
            return {}
        return self.foresight.losses(*self.own(state), windows, parts)  # ()

    def own(self, state: FutureState) -> tuple[Tensor | None, Tensor]:
        """This level's part of the last block's state: what the head reads (B, T, C) or None, and its vectors."""
        vectors = state.vectors[:, :, self.n_vectors : self.n_vectors + self.foresight.count]  # (B, T, J, C)
        if self.foresight.forecast is not None:
            return None, vectors  # (B, T, J, C)
        return state.read[:, :, self.settings.levels - self.level], vectors  # (B, T, C), (B, T, J, C)

    @property
    def loss_weights(self) -> dict[str, float]:
        if self.foresight is None:
            return {}
        return self.foresight.loss_weights(self.settings.loss_weight * self.settings.decay ** (self.level - 1))
