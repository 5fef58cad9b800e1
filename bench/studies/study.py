"""What the studies have in common: small Llamas on tales, in settings that no timing changes, and how they are run."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from config import Preset, ScheduleConfig, preset
from lab.comparison.sweep import sweep, sweep_results
from lab.files.atomic import atomic_write_text
from lab.runs.run import Run


def small_llama(width: int, n_layers: int, steps: int, learning_rate: float) -> Preset:
    """4 heads, vocabulary 512, batches of 16 × 128 tokens."""
    model, train = preset("llama-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    return Preset(
        model.replace(vocab_size=512, width=width, n_heads=4, n_layers=n_layers),
        train.replace(
            data=data, steps=steps, batch_size=16, learning_rate=learning_rate, precision="bf16", compile="off",
            checkpoint_every=steps // 2, schedule=ScheduleConfig(warmup_steps=100),
        ),
    )  # fmt: skip


def train_and_store(variants: Mapping[str, Preset], seeds: int, folder: Path, results: Path) -> pd.DataFrame:
    """Trains each variant with each seed, telling the validation losses; writes a row for each run to `results`."""
    for run, step in sweep(variants, range(seeds), folder):
        if step.validation_loss is not None:
            print(f"{run.name}: step {step.step}, validation loss {step.validation_loss:.4f}", flush=True)
    runs = [Run.open(f"{name}-seed{seed}", folder) for seed in range(seeds) for name in variants]
    rows = sweep_results(runs).drop(columns="seconds")
    atomic_write_text(results, rows.to_csv(index=False, float_format="%.5f"))
    return rows
