"""The token-factored transformer: one stream for what attention moves, one for what the MLPs write."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.attention import QueryKeyAttention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.mlp import build_mlp
from modules.norms import HeadNorm, build_norm
from modules.positions import Placement
from settings.errors import ConfigError


class Streams(NamedTuple):
    """xt, the token stream, holds what attention moved; xe holds what the MLPs wrote. Each (B, T, C)."""

    xt: Tensor
    xe: Tensor


class Mixing(LoggingModule):
    """A linear map of the C = H · D channels of the token stream, (B, T, C) -> (B, T, C), without a bias."""

    def heads_matrix(self) -> Tensor:
        """The matrix over heads (H, H) that is the whole map, alike for each of a head's D channels.

        Raises ConfigError for a mixing that treats the channels of a head differently.
        """
        raise ConfigError(
            f"{type(self).__name__} has no matrix over whole heads, for it mixes the channels inside each head; "
            "build the model with value_mixing and output_mixing 'identity' or 'kronecker'"
        )


class IdentityMixing(Mixing):
    """y = x."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__()
        self.n_heads = n_heads

    def forward(self, x: Tensor) -> Tensor:
        return x  # (B, T, C)

    def heads_matrix(self) -> Tensor:
        return torch.eye(self.n_heads)  # (H, H)


class KroneckerMixing(Mixing):
    """y = (W ⊗ I) x: head i of y is Σ_j W[i, j] · head j of x, whole heads at a time."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(n_heads))  # (H, H)

    def forward(self, x: Tensor) -> Tensor:
        # all rows side by side: one product with W is three times as fast as a small one for each row
        heads = x.unflatten(-1, (len(self.weight), -1)).movedim(-2, 0)  # (H, B, T, D)
        mixed = (self.weight @ heads.flatten(1)).view(heads.shape)  # (H, B, T, D)
        return mixed.movedim(0, -2).flatten(-2)  # (B, T, C)

    def heads_matrix(self) -> Tensor:
        return self.weight  # (H, H)


class IndependentMixing(Mixing):
    """y = diag(W_1 … W_H) x: each head of D channels by a matrix of its own."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(head_dim).repeat(n_heads, 1, 1))  # (H, D, D)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (len(self.weight), -1)).movedim(-2, 0)  # (H, B, T, D)
        mixed = torch.bmm(heads.flatten(1, 2), self.weight.mT).view(heads.shape)  # (H, B, T, D)
        return mixed.movedim(0, -2).flatten(-2)  # (B, T, C)


class DenseMixing(Linear, Mixing):
    """y = W x, as in every other transformer."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__(n_heads * head_dim, n_heads * head_dim, bias=False)


MIXINGS = {
    "identity": IdentityMixing,
    "kronecker": KroneckerMixing,
    "independent": IndependentMixing,
    "dense": DenseMixing,
}


class FactoredAttention(QueryKeyAttention):
    """Reads where to look from x, and moves what stands in xt.

    x  (B, T, C) ─ q, k (B, H, T, D) ─ scores, softmax (B, H, T, S) ┐
    xt (B, T, C) ─ value mixing ─ v (B, H, S, D) ───────────────────┴ heads (B, H, T, D) ─ output mixing (B, T, C)
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.value_mixing = MIXINGS[config.block.value_mixing](self.n_heads, self.head_dim)
        self.output_mixing = MIXINGS[config.block.output_mixing](self.n_heads, self.head_dim)

    def forward(self, x: Tensor, xt: Tensor, place: Placement, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(x, xt, place, cache)  # (B, H, T, D), (B, H, S, D), (B, H, S, D)
        heads = self.read(q, k, v, place)  # (B, H, T, D)
        heads = heads.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.output_mixing(heads)  # (B, T, C)

    def project(
        self, x: Tensor, xt: Tensor, place: Placement, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D); keys and mixed values (B, H, S, D), those of earlier passes included with a cache."""
        q, k = self.queries_and_keys(x, place)  # (B, H, T, D)
        v = self.split_heads(self.value_mixing(xt)).to(q.dtype)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D)
        return q, k, v  # (B, H, T, D), (B, H, S, D), (B, H, S, D)


class FactoredBlock(Block):
    """Two streams: attention adds to xt, of which it moves the raw heads, and the MLP to xe (arXiv 2603.07461).

        xt ─────────┬─ values ─ attention ─ + ─ xt ─┬─────────────────── xt
        xt+xe ─ norm ─ q, k ────────┘               └ xt+xe ─ norm ─ mlp ┐
        xe ───────────────────────────────────────────────────────────── + ─ xe

    So xt is a linear image of the token embeddings, with weights that depend on where attention looked.
    frozen_tokens: attention adds to xe instead. head_norm: the norms bring each head to a common scale by itself.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.frozen_tokens = config.block.frozen_tokens
        self.attention_norm, self.mlp_norm = (
            HeadNorm(config.norm, config.n_heads, config.width)
            if config.block.head_norm
            else build_norm(config.norm, config.width)
            for _ in range(2)
        )
        self.attention = FactoredAttention(config)
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.dropout = Dropout(config.dropout.residual)

    def split(self, x: Tensor) -> Streams:
        return Streams(x, torch.zeros_like(x))  # (B, T, C), (B, T, C)

    def join(self, streams: Streams) -> Tensor:
        return streams.xt + streams.xe  # (B, T, C)

    def forward(self, streams: Streams, place: Placement, cache: LayerCache | None = None) -> Streams:
        xt, xe = streams  # (B, T, C)
        read = self.dropout(self.attention(self.attention_norm(xt + xe), xt, place, cache))  # (B, T, C)
        if self.frozen_tokens:
            xe = xe + read  # (B, T, C)
        else:
            xt = xt + read  # (B, T, C)
        xe = xe + self.dropout(self.mlp(self.mlp_norm(xt + xe)))  # (B, T, C)
        return Streams(xt, xe)  # (B, T, C), (B, T, C)
