"""The training step of `bench training` at the presets' sizes: ours with default settings against Hugging Face's Llama
in bf16 with fused AdamW. Sizes that a laptop has memory for, and a step of which takes seconds."""

from statistics import median

from bench.steps import Size
from bench.timing import ratios, table, time_in_turn
from bench.training import ALIBI, DEFAULT, MIXED, MUON, build
from config import preset

NAMES = ("tiny", "small", "128x4", "256x6", "character", "medium", "512x12")


def size_of(name: str) -> Size:
    model, train = preset(f"llama-{name}")
    vocabulary = model.vocab_size
    return Size(model.n_layers, model.n_heads, model.width, model.context_length, train.batch_size, vocabulary)


def main(rounds: int = 3, names: tuple[str, ...] = NAMES) -> None:
    rows = []
    for name in names:
        size = size_of(name)
        seconds = time_in_turn(build, {case: (case, size) for case in (MIXED, DEFAULT, MUON, ALIBI)}, rounds)
        speeds = [f"{size.tokens / median(times):,.0f}" for times in seconds.values()]
        faster, against_rope = ratios(seconds, MIXED), 1 / ratios(seconds, DEFAULT)[ALIBI]
        rows.append([
            name, str(size), *speeds, f"{faster[DEFAULT]:.2f}", f"{faster[MUON]:.2f}", f"{against_rope:.2f}"
        ])
        print(f"{rows[-1]}", flush=True)
    headings = ["preset", "size", "HF bf16, tokens/s", "ours, AdamW", "ours, Muon", "ours, AdamW, ALiBi",
                "AdamW × HF", "Muon × HF", "time of ALiBi × RoPE"]
    print(table("Training, sizes of the presets, default settings", headings, rows), flush=True)
