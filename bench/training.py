"""One optimizer step of Llamas on random tokens: ours against Hugging Face's, x-transformers' and nanoGPT's GPT-2.

All clip at 1.0 and train with AdamW, but for "default settings", which train with Muon. Those are of a training that
is long enough for compiling. Our processes keep the memory that they free, as `train` does; the others are as their
libraries leave them. Peak memory is that of a fresh process each. `presets` measures the presets' sizes in this way.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

from bench.memory import peak_of_steps
from bench.steps import Size, Way, nano_gpt, of_transformers, ours, x_transformers
from bench.timing import apart, ratios, table, time_in_turn
from config import ARCHITECTURES

SIZES = (Size(6, 8, 256, 256, 16), Size(2, 2, 128, 128, 64))
PLAIN, MIXED = "Hugging Face Llama, eager fp32", "Hugging Face Llama, bf16 autocast, fused AdamW"
DEFAULT, MUON = "Glassbox, default settings but AdamW", "Glassbox, default settings"
ALIBI = "Glassbox, default settings but AdamW, ALiBi in place of RoPE"
RIVALS = {
    PLAIN: (of_transformers, Way("fp32"), "llama", False),
    MIXED: (of_transformers, Way("bf16")),
    "x-transformers, rotary, fp32": (x_transformers, Way("fp32")),
    "nanoGPT (rebuilt), a GPT-2, fp32": (nano_gpt, Way("fp32")),
}
ADAMW = {"optimizer": "adamw"}
OURS = {
    "Glassbox, fp32, not compiled": {"precision": "fp32", "compile": "off"} | ADAMW,
    "Glassbox, bf16, not compiled": {"precision": "bf16", "compile": "off"} | ADAMW,
    DEFAULT: ADAMW, MUON: {}, ALIBI: ADAMW,
}


def build(name: str, size: Size) -> Callable[[], None]:
    """A call that takes a step of this contestant."""
    if name in RIVALS:
        make, *arguments = RIVALS[name]
        return make(size, *arguments)
    model = size.model("llama")
    if name == ALIBI:
        model = model.replace(position=ARCHITECTURES["alibi"]["position"])
    return ours(model, size.batch, OURS[name])


def measure_peak(name: str, size: Size) -> float:
    import transformers.models.llama.modeling_llama  # noqa: F401 (no one's imports shall count)
    import x_transformers  # noqa: F401

    return peak_of_steps(partial(build, name, size))


def main(rounds: int = 3, sizes: tuple[Size, ...] = SIZES) -> None:
    for size in sizes:
        names = [*RIVALS, *OURS]
        seconds = time_in_turn(build, {name: (name, size) for name in names}, rounds)
        against_plain, against_mixed = ratios(seconds, PLAIN), ratios(seconds, MIXED)
        rows = [
            [name, f"{size.tokens / median(seconds[name]):,.0f}", f"{against_plain[name]:.2f}",
             f"{against_mixed[name]:.2f}", f"{apart(measure_peak, name, size):.0f}"]
            for name in names
        ]
        headings = ["training step", "tokens/s", "× HF fp32", "× HF bf16", "peak memory, MB"]
        print(table(f"Training, {size}", headings, rows), flush=True)
