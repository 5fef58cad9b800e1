"""The time that a comparison of 50 runs of 10,000 logged steps takes to read the runs, make the table, draw the curves.

In a session that has drawn before, and in a new process, which loads Python and the libraries too.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from bench.timing import in_turn, seconds_per_call, table
from config import DataConfig, ModelConfig, TrainConfig
from lab.comparison.comparison import compare
from lab.costs.parameters import parameter_shapes
from lab.runs.log_table import COLUMNS
from lab.runs.run import Run
from settings.paths import ROOT

RUNS, SEEDS, STEPS = 50, 2, 10_000
ALONE = "import sys; from bench.comparison import open_all; open_all(sys.argv[1])"


def write_run(number: int, folder: Path) -> None:
    """A run with a log like that of a training, and weights of the right shapes, all 0: only their header is read."""
    random = np.random.default_rng(number)
    model = ModelConfig(vocab_size=2048, width=64 + 16 * (number // SEEDS), n_heads=2, n_layers=2)
    data = DataConfig(tokenizer="bpe-2048", max_documents=60)
    run = Run.create(f"run-{number // SEEDS}-seed{number % SEEDS}", model,
                     TrainConfig(data=data, steps=STEPS, seed=number % SEEDS), folder)
    step = np.arange(1, STEPS + 1)
    loss = 1.0 + 4.5 * step**-0.3 + 0.05 * random.standard_normal(STEPS)
    validation = np.where(step % 100 == 0, loss, np.nan)
    columns = (step, step * 4096, step * 0.1, loss, validation, 1e-3 / step, 1 / loss, 4e4 + loss, 6 * 10**8 + step)
    pd.DataFrame(dict(zip(COLUMNS, columns))).to_csv(run.log_path, index=False)
    weights = {name: np.zeros(shape, np.float16) for name, shape in parameter_shapes(model).items()}
    save_file(weights, run.weights_path, {"step": str(STEPS), "validation_loss": "1.3"})


def open_all(folder: Path | str) -> None:
    comparison = compare(folder=folder)
    assert len(comparison.runs) == RUNS
    comparison._repr_html_()
    comparison.curves()


def measure_opening(where: str, folder: str) -> float:
    """Seconds of opening, table and curves: in a session that has drawn before, or in a new process with its start."""
    if where == "in a session":
        return seconds_per_call(lambda: open_all(folder))
    command = [sys.executable, "-c", ALONE, folder]
    return seconds_per_call(lambda: subprocess.run(command, cwd=ROOT, check=True))


def main(rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(RUNS):
            write_run(number, Path(folder))
        places = ("in a session", "in a new process")
        seconds = in_turn(measure_opening, {where: (where, folder) for where in places}, rounds)
    rows = [[name, f"{median(times):.2f}", f"{max(times):.2f}"] for name, times in seconds.items()]
    title = f"Opening a comparison of {RUNS} runs of {STEPS:,} steps: read, table, curves"
    print(table(title, ["", "seconds", "at most"], rows), flush=True)
