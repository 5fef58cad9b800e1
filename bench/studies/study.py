"""What the studies share: small Llamas on tales, training all variants, files of results, the command line."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from config import Preset, ScheduleConfig, preset
from lab.comparison.sweep import sweep, sweep_results
from lab.files.atomic import atomic_write_text
from lab.runs.run import Run
from settings.paths import ROOT

RESULTS = ROOT / "bench" / "results"


def small_llama(width: int, n_layers: int, steps: int, learning_rate: float) -> Preset:
    """4 heads, vocabulary 512, batches of 16 × 128 tokens."""
    model, train = preset("llama-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    return Preset(
        model.replace(vocab_size=512, width=width, n_heads=4, n_layers=n_layers),
        train.replace(
            data=data, steps=steps, batch_size=16, learning_rate=learning_rate, precision="bf16", compile="off",
            checkpoint_every=steps // 2, optimizer="adamw", schedule=ScheduleConfig(warmup_steps=100),
        ),
    )


def train_variants(variants: Mapping[str, Preset], seeds: int | Sequence[int], folder: Path) -> list[Run]:
    """Trains each variant with each seed and prints the validation losses. Runs that were stopped go on.

    seeds: how many from 0 on, or which.
    """
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    for run, step in sweep(variants, seeds, folder):
        if step.validation_loss is not None:
            print(f"{run.name}: step {step.step}, validation loss {step.validation_loss:.4f}", flush=True)
    return [Run.open(f"{name}-seed{seed}", folder) for seed in seeds for name in variants]


def name_and_seed(run: Run) -> dict[str, str | int]:
    """The columns that tell a run of a study: its variant and its seed."""
    variant, _, seed = run.name.rpartition("-seed")
    return {"variant": variant, "seed": int(seed)}


def store(results: pd.DataFrame, file: str) -> None:
    """Writes a table of results to bench/results."""
    atomic_write_text(RESULTS / file, results.to_csv(index=False, float_format="%.5f"))


def store_losses(runs: list[Run], file: str) -> pd.DataFrame:
    """Writes a row with the losses of each run to bench/results, and returns the rows."""
    rows = sweep_results(runs).drop(columns="seconds")
    store(rows, file)
    return rows


def start(main: Callable[[Path, int], None], seeds: int = 3) -> None:
    """Calls main(folder, seeds) with the arguments of the command line."""
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(f"usage: python -m {sys.modules['__main__'].__spec__.name} FOLDER [SEEDS]")
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else seeds)
