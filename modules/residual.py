"""The block of GPT-2 and Llama."""

from torch import Tensor, nn

from config import ModelConfig
from modules.attention import Attention
from modules.block import Block
from modules.cache import LayerCache
from modules.dropout import Dropout
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.positions import PositionContext
from settings.registry import built_in


@built_in("block", "residual")
class ResidualBlock(Block):
    """The pre-norm block of GPT-2 and Llama: each sub-layer reads the normed stream and adds its result to it.

        x ─┬─ norm ─ attention ─ (norm) ─┐      x ─┬─ norm ─ mlp ─ (norm) ─┐
           └──────────────────────────── + ─ x     └────────────────────── + ─ x

    post_norm adds the norms in brackets, as in Grok. parallel: the MLP reads the same normed x as attention, and both
    results are added together (GPT-J; Chowdhery et al. 2022, arXiv 2204.02311, section 2).
    """

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.parallel = config.block.parallel
        self.attention_norm = build_norm(config.norm, config.width)
        self.attention = Attention.of(config)
        self.mlp_norm = nn.Identity() if self.parallel else build_norm(config.norm, config.width)
        self.mlp = build_mlp(config.mlp, config.width, config.bias)
        self.attention_post_norm = build_norm(config.norm, config.width) if config.block.post_norm else nn.Identity()
        self.mlp_post_norm = build_norm(config.norm, config.width) if config.block.post_norm else nn.Identity()
        self.dropout = Dropout(config.dropout.residual)

    def forward(self, x: Tensor, place: PositionContext, cache: LayerCache | None = None) -> Tensor:
        normed = self.attention_norm(x)  # (B, T, C)
        read = self.dropout(self.attention_post_norm(self.attention(normed, place, cache)))  # (B, T, C)
        if self.parallel:
            return x + read + self.dropout(self.mlp_post_norm(self.mlp(normed)))  # (B, T, C)
        x = x + read  # (B, T, C)
        return x + self.dropout(self.mlp_post_norm(self.mlp(self.mlp_norm(x))))  # (B, T, C)
