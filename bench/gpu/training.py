"""Training steps of GPT-2s and Llamas: ours, nanoGPT's and those of transformers, in tokens a second and MFU.

All train with AdamW, but for "default settings", which train with Muon. The two with default settings run within
`train`, in a training that takes long; at 124M, for whose vocabulary no tokenizer ships, they take the same steps
without a run.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.gpu.scale import Scale
from bench.gpu.sections import Failure, attempt, attempt_apart, attempt_together, cell
from bench.steps import LONG, Size, Way, nano_gpt, of_transformers, ours
from bench.timing import seconds_per_call, table
from config import VOCABULARIES, DataConfig, TrainConfig
from lab.costs.estimates import estimate
from lab.costs.hardware import find_card
from lab.runs.run import Run
from lab.training.loop import train

NANO, NANO_COMPILED = "nanoGPT (rebuilt)", "nanoGPT (rebuilt), compiled"
OURS, OURS_COMPILED, THEIRS = "Glassbox", "Glassbox, compiled", "transformers"
DEFAULT, DEFAULT_ADAMW = "Glassbox, default settings", "Glassbox, default settings but AdamW"
COMPILED = (NANO_COMPILED, OURS_COMPILED)
SETTINGS = {
    OURS: {"precision": "bf16", "compile": "off", "optimizer": "adamw"},
    OURS_COMPILED: {"precision": "bf16", "compile": "on", "optimizer": "adamw"},
    DEFAULT: {}, DEFAULT_ADAMW: {"optimizer": "adamw"},
}
CONTESTANTS = {
    "gpt2": (NANO_COMPILED, NANO, OURS_COMPILED, OURS, DEFAULT_ADAMW, DEFAULT, THEIRS),
    "llama": (OURS_COMPILED, OURS, THEIRS),
}


def build(name: str, architecture: str, size: Size, device: str) -> Callable[[], object]:
    """A call that takes a step."""
    if name in (NANO, NANO_COMPILED):
        return nano_gpt(size, Way("bf16", name == NANO_COMPILED, device))
    if name == THEIRS:
        return of_transformers(size, Way("bf16", False, device), architecture)
    return ours(size.model(architecture), size.batch, SETTINGS[name] | {"device": device})


def tokens_per_second(name: str, architecture: str, size: Size, scale: Scale) -> float:
    if name in (DEFAULT, DEFAULT_ADAMW) and f"bpe-{size.vocabulary}" in VOCABULARIES:
        return within_training(SETTINGS[name], architecture, size, scale)
    return size.tokens / seconds_per_call(build(name, architecture, size, scale.device))


def within_training(settings: dict, architecture: str, size: Size, scale: Scale) -> float:
    """Tokens a second of `train` with these settings, in a training that takes long."""
    config = TrainConfig(
        **settings,
        data=DataConfig(max_documents=2000, tokenizer=f"bpe-{size.vocabulary}"), batch_size=size.batch, steps=LONG,
        evaluate_every=LONG, checkpoint_every=LONG, device=scale.device,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create("bench", size.model(architecture), config, Path(folder))
        steps = train(run)
        for _ in range(20):  # the first ones compile
            next(steps)
        start, taken = time.perf_counter(), 0
        while taken < 10 or time.perf_counter() - start < scale.seconds:
            next(steps)
            taken += 1
        found = taken * size.tokens / (time.perf_counter() - start)
        steps.close()
    return found


def measure(name: str, architecture: str, sizes: dict[str, Size], scale: Scale) -> dict:
    """Tokens a second at all sizes, one after the other in this process, which is empty in between."""
    found = {}
    for label, size in sizes.items():
        found[label] = attempt(tokens_per_second, name, architecture, size, scale)
        gc.collect()
        torch._dynamo.reset()
        if scale.device == "cuda":
            torch.cuda.empty_cache()
    return found


def compile_once(name: str, architecture: str, size: Size, device: str) -> None:
    """Takes a step, so that the compiler's results are stored on disk."""
    build(name, architecture, size, device)()


def sizes_of(architecture: str, scale: Scale) -> dict[str, Size]:
    """A llama is measured at the small sizes."""
    return {label: size for label, size in scale.sizes.items() if architecture == "gpt2" or label != "124M"}


def main(scale: Scale) -> list[Failure]:
    """Prints a table for each architecture."""
    cases = [
        (name, architecture, size, scale.device) for architecture, names in CONTESTANTS.items()
        for size in sizes_of(architecture, scale).values() for name in names if name in COMPILED
    ]
    attempt_together(compile_once, cases, max(1, min(len(cases), (os.cpu_count() or 1) // 2)))
    failures = []
    for architecture, names in CONTESTANTS.items():
        sizes = sizes_of(architecture, scale)
        results: dict[str, dict] = {label: {} for label in sizes}
        for name in names:
            found = attempt_apart(measure, name, architecture, sizes, scale)
            found = dict.fromkeys(sizes, found) if isinstance(found, Failure) else found
            failures += [value for value in found.values() if isinstance(value, Failure)]
            print(f"{architecture}, {name}: {', '.join(cell(value, ',.0f') for value in found.values())}", flush=True)
            for label in sizes:
                results[label][name] = found[label]
        for label, size in sizes.items():
            print_table(architecture, size, results[label])
    return failures


def print_table(architecture: str, size: Size, speeds: dict) -> None:
    """Tokens a second, the share of the card's peak, and ratios to the first contestant."""
    flops, peak = estimate(size.model(architecture)).training_flops, peak_of_card()
    first = next(iter(speeds.values()))
    rows = []
    for name, speed in speeds.items():
        known = not isinstance(speed, Failure)
        share = f"{speed * flops / peak:.2f}" if known and peak else "—"
        ratio = f"{speed / first:.2f}" if known and not isinstance(first, Failure) else "—"
        rows.append([name, cell(speed, ",.0f"), share, ratio])
    title = f"Training step: {architecture}, {size}, bf16"
    print(table(title, ["", "tokens/s", "MFU", f"× {next(iter(speeds))}"], rows), flush=True)


def peak_of_card() -> float | None:
    """bf16 FLOP a second of this card, where it is known."""
    card = find_card(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return card.bf16 * 1e12 if card and card.bf16 else None
