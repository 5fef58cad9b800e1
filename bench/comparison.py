"""How long a comparison of 50 runs of 10,000 logged steps takes to open: read, table, curves drawn."""

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from bench.timing import alternate, table
from config import DataConfig, ModelConfig, TrainConfig
from lab.comparison import compare
from lab.log import COLUMNS
from lab.runs import Run

RUNS, SEEDS, STEPS = 50, 2, 10_000


def write_run(number: int, folder: Path) -> None:
    """A run with a log like a training's, and a weights file of one number: a comparison reads its header alone."""
    random = np.random.default_rng(number)
    model = ModelConfig(vocab_size=257, width=64 + 16 * (number // SEEDS), n_heads=2, n_layers=2)
    data = DataConfig(tokenizer="byte", max_documents=60)
    run = Run.create(f"run-{number // SEEDS}-seed{number % SEEDS}", model,
                     TrainConfig(data=data, steps=STEPS, seed=number % SEEDS), folder)  # fmt: skip
    step = np.arange(1, STEPS + 1)
    loss = 1.0 + 4.5 * step**-0.3 + 0.05 * random.standard_normal(STEPS)
    validation = np.where(step % 100 == 0, loss, np.nan)
    columns = (step, step * 4096, step * 0.1, loss, validation, 1e-3 / step, 1 / loss, 4e4 + loss, 6 * 10**8 + step)
    pd.DataFrame(dict(zip(COLUMNS, columns))).to_csv(run.log_path, index=False)
    save_file({"x": np.zeros(1, np.float32)}, run.weights_path, {"step": str(STEPS), "validation_loss": "1.3"})


def open_all(folder: Path) -> None:
    comparison = compare(folder=folder)
    assert len(comparison.runs) == RUNS
    comparison._repr_html_()
    comparison.curves()


def main(rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(RUNS):
            write_run(number, Path(temporary))
        seconds = alternate({"open": lambda: open_all(Path(temporary))}, rounds, warmup=1)["open"]
    rows = [[f"{RUNS} runs of {STEPS:,} steps", f"{median(seconds):.2f}", f"{max(seconds):.2f}"]]
    print(table("Opening a comparison: read, table, curves", ["", "seconds", "at most"], rows))
