"""ALiBi at T 4,096: forward and backward of one attention call, 8 heads of 32 channels, against plain causal SDPA."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from bench.timing import ratios, table, time_in_turn
from config import ALiBiConfig, ModelConfig
from modules.kernels import causal_attention
from modules.positions import build_position

HEADS, LENGTH, CHANNELS = 8, 4096, 32
PLAIN, OURS = "causal SDPA, no ALiBi", "ALiBi as Glassbox computes it"
DENSE, TEXTBOOK = "ALiBi by a dense bias, kept", "ALiBi by the textbook"


def build(name: str, length: int) -> Callable[[], None]:
    """A call that runs this form of attention forward and backward."""
    scale, positions = CHANNELS**-0.5, torch.arange(length)
    config = ModelConfig(vocab_size=1, n_heads=HEADS, width=HEADS * CHANNELS, position=ALiBiConfig())
    place = build_position(config).place(positions, positions, True, None)
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    bias = place.bias().masked_fill(hidden, float("-inf"))
    ways = {
        PLAIN: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        OURS: lambda q, k, v: causal_attention(*place.extend(q, k, v, scale), scale)[..., :CHANNELS],
        DENSE: lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias),
        TEXTBOOK: lambda q, k, v: (
            (q @ k.transpose(-2, -1) * scale + place.bias()).masked_fill(hidden, float("-inf")).softmax(-1) @ v
        ),
    }

    def call() -> None:
        q, k, v = (torch.randn(1, HEADS, length, CHANNELS, requires_grad=True) for _ in range(3))
        ways[name](q, k, v).sum().backward()

    return call


def main(rounds: int = 3, length: int = LENGTH) -> None:
    seconds = time_in_turn(build, {name: (name, length) for name in (PLAIN, OURS, DENSE, TEXTBOOK)}, rounds)
    rows = [[name, f"{1 / ratio:.2f}"] for name, ratio in ratios(seconds, PLAIN).items()]
    print(table(f"Attention forward + backward, T {length:,}, fp32", ["", "× time of causal SDPA"], rows), flush=True)
