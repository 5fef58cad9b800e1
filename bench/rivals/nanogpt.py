"""A GPT-2 as nanoGPT describes it (github.com/karpathy/nanoGPT, its README and settings), written anew.

    tokens ─ embedding + learned position ─ block × L ─ LayerNorm ─ logits over all rows of the embedding
    block: x + out(attention(LayerNorm(x))), x + down(GELU(up(LayerNorm(x)))), without biases

One product makes queries, keys and values; PyTorch's kernel computes causal attention; the head is the embedding; the
loss is a plain cross-entropy over all logits. AdamW decays matrices alone, and is fused on CUDA.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NanoConfig(NamedTuple):
    vocabulary: int
    length: int
    n_layers: int
    n_heads: int
    width: int


class NanoBlock(nn.Module):
    def __init__(self, config: NanoConfig):
        super().__init__()
        width = config.width
        self.n_heads = config.n_heads
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in heads)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(read.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class NanoGPT(nn.Module):
    """Weights are drawn from N(0, 0.02); those of the projections into the stream from N(0, 0.02 / √(2L))."""

    def __init__(self, config: NanoConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(NanoBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.n_layers) if writes else 0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of targets (B, T) after tokens (B, T)."""
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build_adamw(
    model: nn.Module, rate: float = 6e-4, decay: float = 0.1, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=fused or None)
