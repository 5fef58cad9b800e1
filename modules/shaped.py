"""The simplified parallel block: shaped attention in place of skip connections, values and projections."""

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
from modules.positions import Placement


class ShapedAttention(QueryKeyAttention):
    """(α·I + β·A − γ·C) x for each head of x (Noci et al. 2023, arXiv 2306.17759; He & Hofmann 2023, eq. 5).

    A is attention. C is what A would be if all query-key products were 0: the softmax of mask and bias alone. A model
    starts with α = β = γ = 1 and queries of 0, so that this is the identity: each position keeps its own x.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.alpha, self.beta, self.gamma = (nn.Parameter(torch.ones(self.n_heads)) for _ in range(3))  # (H)

    def forward(self, x: Tensor, place: Placement, cache: LayerCache | None = None) -> Tensor:
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


class Gain(LoggingModule):
    """gain · x, with one trained number."""

    def __init__(self, start: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(start)))  # ()

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x  # (B, T, C)


class ShapedBlock(Block):
    """SAS-P of He & Hofmann 2023 (arXiv 2311.01906, section 4.3): β_FF · mlp(norm(x)) + shaped attention(norm(x)).

        x ─ norm ─┬─ shaped attention ─ + ─ x
                  └─ mlp ─ · β_FF ───── ┘

    There is no skip connection, no value and no output projection: the heads read and return x itself. Dropout falls on
    what the MLP adds. It never falls on what shaped attention returns, because nothing else carries the tokens on.
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.norm = build_norm(config.norm, config.width)
        self.attention = ShapedAttention(config)
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.mlp_gain = Gain(config.block.mlp_gain)
        self.dropout = Dropout(config.dropout.residual)

    def forward(self, x: Tensor, place: Placement, cache: LayerCache | None = None) -> Tensor:
        normed = self.norm(x)  # (B, T, C)
        added = self.dropout(self.mlp_gain(self.mlp(normed)))  # (B, T, C)
        return self.attention(normed, place, cache) + added  # (B, T, C)
