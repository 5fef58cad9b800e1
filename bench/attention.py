"""ALiBi at T 4,096: forward and backward of one attention call, 8 heads of 32 channels, against plain causal SDPA."""

import torch
from torch.nn import functional as F

from bench.timing import alternate, ratios, table
from config import ALiBiConfig, ModelConfig
from modules.kernels import causal_attention
from modules.positions import build_position

HEADS, LENGTH, CHANNELS = 8, 4096, 32


def contestants() -> dict:
    scale = CHANNELS**-0.5
    positions = torch.arange(LENGTH)
    config = ModelConfig(vocab_size=1, n_heads=HEADS, width=HEADS * CHANNELS, position=ALiBiConfig())
    place = build_position(config).place(positions, positions, True, None)
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    bias = place.bias().masked_fill(hidden, float("-inf"))

    def ours(q, k, v):
        return causal_attention(*place.extend(q, k, v, scale), scale)[..., :CHANNELS]

    def textbook(q, k, v):
        return (q @ k.transpose(-2, -1) * scale + place.bias()).masked_fill(hidden, float("-inf")).softmax(-1) @ v

    return {
        "causal SDPA, no ALiBi": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "ALiBi by an extra key dimension (ours)": ours,
        "ALiBi by a dense bias, kept": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias),
        "ALiBi by the textbook": textbook,
    }


def main(rounds: int = 11) -> None:
    def call(attention):
        def forward_and_backward() -> None:
            q, k, v = (torch.randn(1, HEADS, LENGTH, CHANNELS, requires_grad=True) for _ in range(3))
            attention(q, k, v).sum().backward()

        return forward_and_backward

    seconds = alternate({name: call(attention) for name, attention in contestants().items()}, rounds)
    times = {name: 1 / ratio for name, ratio in ratios(seconds, "causal SDPA, no ALiBi").items()}
    rows = [[name, f"{ratio:.2f}"] for name, ratio in times.items()]
    print(table("Attention forward + backward, T 4,096, fp32", ["", "× time of causal SDPA"], rows))
