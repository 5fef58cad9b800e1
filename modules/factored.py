"""The token-factored transformer: attention writes into one stream, the MLPs into another."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.attention import QueryKeyAttention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.mlp import build_mlp
from modules.norms import HeadNorm, build_norm
from modules.positions import PositionContext
from settings.errors import ConfigError
from settings.registry import built_in, part


class Streams(NamedTuple):
    """The token stream xt, into which attention writes, and xe, into which the MLPs write. Each (B, T, C)."""

    xt: Tensor
    xe: Tensor


class Mixing(LoggingModule):
    """The base of all mixings: a linear map of the token stream's C = H · D channels, (B, T, C) -> (B, T, C), no bias.

    A kind is made by `kind(n_heads, head_dim)`.
    """

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__()
        self.n_heads, self.head_dim = n_heads, head_dim

    def heads_matrix(self) -> Tensor:
        """The matrix over heads (H, H), if the map is the same for each of a head's D channels.

        Raises ConfigError for a mixing that mixes the channels inside a head.
        """
        raise ConfigError(
            f"{type(self).__name__} has no matrix over whole heads, because it mixes the channels inside each head; "
            "build the model with value_mixing and output_mixing 'identity' or 'kronecker'"
        )


@built_in("mixing", "identity")
class IdentityMixing(Mixing):
    """y = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x  # (B, T, C)

    def heads_matrix(self) -> Tensor:
        return torch.eye(self.n_heads)  # (H, H)


class MatrixMixing(Mixing):
    """A mixing whose `weight` is one square matrix, or one for each head. `mix` computes it with any such weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x, self.weight)  # (B, T, C)

    def mix(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (B, T, C), mixed by this weight in place of its own."""
        raise NotImplementedError

    def initialise(self, config: ModelConfig) -> None:
        """N(0, init_std), the identity, or the identity / √n_layers, as `mixing_init` says.

        With the identity in every layer, all weights that lead to one position of xt sum to 2^n_layers, and xt becomes
        much larger than xe. With values and output over √n_layers each, the sum is (1 + 1/n_layers)^n_layers < e.
        """
        if config.block.mixing_init == "normal":
            nn.init.normal_(self.weight, std=config.init_std)
            return
        scale = math.sqrt(config.n_layers) if config.block.mixing_init == "scaled_identity" else 1.0
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.weight.shape[-1], device=self.weight.device) / scale)


@built_in("mixing", "kronecker")
class KroneckerMixing(MatrixMixing):
    """y = (W ⊗ I) x: head i of y is Σ_j W[i, j] · head j of x, whole heads at a time."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__(n_heads, head_dim)
        self.weight = nn.Parameter(torch.eye(n_heads))  # (H, H)

    def mix(self, x: Tensor, weight: Tensor) -> Tensor:
        # one product of W with all rows is three times as fast as a small product for each row
        heads = x.unflatten(-1, (len(weight), -1)).movedim(-2, 0)  # (H, B, T, D)
        mixed = (weight @ heads.flatten(1)).view(heads.shape)  # (H, B, T, D)
        return mixed.movedim(0, -2).flatten(-2)  # (B, T, C)

    def heads_matrix(self) -> Tensor:
        return self.weight  # (H, H)


@built_in("mixing", "independent")
class IndependentMixing(MatrixMixing):
    """y = diag(W_1 … W_H) x: each head of D channels has its own matrix."""

    def __init__(self, n_heads: int, head_dim: int):
        super().__init__(n_heads, head_dim)
        self.weight = nn.Parameter(torch.eye(head_dim).repeat(n_heads, 1, 1))  # (H, D, D)

    def mix(self, x: Tensor, weight: Tensor) -> Tensor:
        heads = x.unflatten(-1, (len(weight), -1)).movedim(-2, 0)  # (H, B, T, D)
        mixed = torch.bmm(heads.flatten(1, 2), weight.mT).view(heads.shape)  # (H, B, T, D)
        return mixed.movedim(0, -2).flatten(-2)  # (B, T, C)


@built_in("mixing", "dense")
class DenseMixing(MatrixMixing, Linear):
    """y = W x, as in every other transformer."""

    def __init__(self, n_heads: int, head_dim: int):
        Linear.__init__(self, n_heads * head_dim, n_heads * head_dim, bias=False)
        self.n_heads, self.head_dim = n_heads, head_dim

    def forward(self, x: Tensor) -> Tensor:
        return Linear.forward(self, x)  # (B, T, C)

    def mix(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)  # (B, T, C)


class FactoredAttention(QueryKeyAttention):
    """Attention whose queries and keys come from x, and whose values come from xt.

    x  (B, T, C) ─ q, k (B, H, T, D) ─ scores, softmax (B, H, T, S) ┐
    xt (B, T, C) ─ value mixing ─ v (B, H, S, D) ───────────────────┴ heads (B, H, T, D) ─ output mixing (B, T, C)
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.value_mixing = part("mixing", config.block.value_mixing)(self.n_heads, self.head_dim)
        self.output_mixing = part("mixing", config.block.output_mixing)(self.n_heads, self.head_dim)

    def forward(self, x: Tensor, xt: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.project(x, xt, place, cache)  # (B, H, T, D), (B, H, S, D), (B, H, S, D)
        heads = self.read(q, k, v, place)  # (B, H, T, D)
        heads = heads.transpose(1, 2).flatten(2)  # (B, T, C)
        return self.output_mixing(heads)  # (B, T, C)

    def project(
        self, x: Tensor, xt: Tensor, place: PositionContext, cache: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D); keys and mixed values (B, H, S, D), those of earlier passes included with a cache."""
        q, k = self.queries_and_keys(x, place)  # (B, H, T, D)
        v = self.split_heads(self.value_mixing(xt)).to(q.dtype)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D)
        return q, k, v  # (B, H, T, D), (B, H, S, D), (B, H, S, D)


@built_in("block", "factored")
class FactoredBlock(Block):
    """Two streams: attention moves heads of xt and adds them to xt; the MLP adds to xe (arXiv 2603.07461).

        xt ─────────┬─ values ─ attention ─ + ─ xt ─┬─────────────────── xt
        xt+xe ─ norm ─ q, k ────────┘               └ xt+xe ─ norm ─ mlp ┐
        xe ───────────────────────────────────────────────────────────── + ─ xe

    So xt is a linear image of the token embeddings, with weights that come from attention.
    frozen_tokens: attention adds to xe instead. head_norm: the norms act on each head on its own.
    """

    has_token_stream = True

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

    def streams(self) -> dict[str, Callable[[Streams], Tensor]]:
        return {"xt": lambda state: state.xt, "xe": lambda state: state.xe, "xt+xe": self.join}

    def forward(self, streams: Streams, place: PositionContext, cache: LayerCache | None = None) -> Streams:
        xt, xe = streams  # (B, T, C)
        read = self.dropout(self.attention(self.attention_norm(xt + xe), xt, place, cache))  # (B, T, C)
        if self.frozen_tokens:
            xe = xe + read  # (B, T, C)
        else:
            xt = xt + read  # (B, T, C)
        xe = xe + self.dropout(self.mlp(self.mlp_norm(xt + xe)))  # (B, T, C)
        return Streams(xt, xe)  # (B, T, C), (B, T, C)
