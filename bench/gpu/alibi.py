"""Attention by itself, with its projections: no positions, RoPE and ALiBi, forward and backward, in bf16."""

from collections.abc import Callable

import torch

from bench.gpu.scale import Scale
from bench.gpu.sections import Failure, attempt_apart, cell
from bench.steps import Size
from bench.timing import seconds_per_call, table
from config import ALiBiConfig, NoPositionConfig, PositionConfig, RoPEConfig
from modules.attention import Attention
from modules.positions import build_position

POSITIONS = {"none": NoPositionConfig(), "RoPE": RoPEConfig(), "ALiBi": ALiBiConfig()}


def build(position: PositionConfig, length: int, size: Size, device: str) -> Callable[[], None]:
    """A call that runs attention forward and backward on (B, T, C)."""
    config = size.model("llama").replace(position=position, context_length=length)
    attention = Attention(config.width, config.n_heads, config.kv_heads).to(device)
    encoding = build_position(config).to(device)
    positions = torch.arange(length, device=device)
    x = torch.randn(size.batch, length, config.width, device=device, requires_grad=True)

    def call() -> None:
        with torch.autocast(device, torch.bfloat16):
            out = attention(x, encoding.place(positions, positions, True, None))
        out.sum().backward()
        attention.zero_grad(set_to_none=True)
        x.grad = None

    return call


def milliseconds(position: PositionConfig, scale: Scale) -> list[float]:
    """Of each length, in this process."""
    size, device = scale.attention, scale.device
    return [1e3 * seconds_per_call(build(position, length, size, device)) for length in scale.lengths]


def main(scale: Scale) -> list[Failure]:
    """Prints the table."""
    found = {name: attempt_apart(milliseconds, position, scale) for name, position in POSITIONS.items()}
    failures, rope = [result for result in found.values() if isinstance(result, Failure)], found["RoPE"]
    rows = []
    for name, times in found.items():
        if isinstance(times, Failure):
            rows.append([name, times.why, *[""] * (2 * len(scale.lengths) - 1)])
            continue
        against = [times[i] / rope[i] for i in range(len(times))] if rope not in failures else [rope] * len(times)
        rows.append([name, *(text for ms, ratio in zip(times, against) for text in (f"{ms:.2f}", cell(ratio, ".2f")))])
    headings = [text for length in scale.lengths for text in (f"T {length:,}, ms", "× RoPE")]
    size = scale.attention
    sizes = f"{size.n_heads} heads, C {size.width}, B {size.batch}"
    title = f"Attention with projections, forward + backward, {sizes}, bf16"
    print(table(title, ["", *headings], rows), flush=True)
    return failures
