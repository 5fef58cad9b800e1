"""The simplified parallel block: shaped attention instead of skip connections, values and output projections."""

import torch
from torch import Tensor, nn

from config import ModelConfig
from modules.attention import QueryKeyAttention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.logging_module import LoggingModule
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.positions import PositionContext
from settings.registry import built_in


class ShapedAttention(QueryKeyAttention):
    """(α·I + β·A − γ·C) x for each head of x (Noci et al. 2023, arXiv 2306.17759; He & Hofmann 2023, eq. 5).

    A is attention. C is what A would be if all query-key products were 0: the softmax of mask and bias alone. A model
    starts with α = β = γ = 1 and queries of 0, so that this is the identity: each position keeps its own x.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.alpha, self.beta, self.gamma = (nn.Parameter(torch.ones(self.n_heads)) for _ in range(3))  # (H)

    def forward(self, x: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        q, k = self.queries_and_keys(x, place)  # (B, H, T, D)
        own = self.split_heads(x)  # (B, H, T, D)
        v = own.to(q.dtype)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D)
        read = self.read(q, k, v, place)  # (B, H, T, D)
        centre = self.read(torch.zeros_like(q), torch.zeros_like(k), v, place)  # (B, H, T, D)
        alpha, beta, gamma = (gain[:, None, None] for gain in (self.alpha, self.beta, self.gamma))  # (H, 1, 1)
        heads = alpha * own + beta * read - gamma * centre  # (B, H, T, D)
        return heads.transpose(1, 2).flatten(2)  # (B, T, C)

    def applied(self, weights: list[Tensor]) -> Tensor:
        """α·I + β·A − γ·C, from A and C."""
        read, centre = weights  # (H, T, S)
        alpha, beta, gamma = (gain.to(read.device)[:, None, None] for gain in (self.alpha, self.beta, self.gamma))
        own = torch.eye(read.shape[-1], dtype=read.dtype, device=read.device)  # (T, S)
        return alpha * own + beta * read - gamma * centre  # (H, T, S)

    def initialise(self, config: ModelConfig) -> None:
        """Queries of 0 (He & Hofmann 2023, arXiv 2311.01906, section 4.1).

        With qk_norm the weight of their norm starts at 0 instead. The norm of vectors near 0 would bring them to full
        size after one step, with gradients of 1/√eps.
        """
        nn.init.zeros_(self.qk.weight[: config.width] if self.qk_norm is None else self.qk_norm.query_weight)


class Gain(LoggingModule):
    """gain · x, with one trained number."""

    def __init__(self, start: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(start)))  # ()

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x  # (B, T, C)


@built_in("block", "shaped")
class ShapedBlock(Block):
    """SAS-P of He & Hofmann 2023 (arXiv 2311.01906, section 4.3): β_FF · mlp(norm(x)) + shaped attention(norm(x)).

        x ─ norm ─┬─ shaped attention ─ + ─ x
                  └─ mlp ─ · β_FF ───── ┘

    There is no skip connection, no value and no output projection: the heads read and return x itself. Dropout acts on
    what the MLP adds, and never on what shaped attention returns, because nothing else carries the tokens on.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.norm = build_norm(config.norm, config.width)
        self.attention = ShapedAttention(config)
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.mlp_gain = Gain(config.block.mlp_gain)
        self.dropout = Dropout(config.dropout.residual)

    def forward(self, x: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        normed = self.norm(x)  # (B, T, C)
        added = self.dropout(self.mlp_gain(self.mlp(normed)))  # (B, T, C)
        return self.attention(normed, place, cache) + added  # (B, T, C)
