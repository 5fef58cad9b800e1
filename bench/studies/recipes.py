"""Which recipe makes a small model learn fastest?

    python -m bench.studies.recipes FOLDER TINYSHAKESPEARE [SEEDS]

TINYSHAKESPEARE: the path of that text. A Llama of 2 × 128 learns tales, pydocs and Tiny Shakespeare, 600 steps of
32 × 128 tokens. First each optimizer's learning rate is tuned on tales, alike for both, on a seed that is not used
again. Then AdamW and Muon at their best rates are compared on all three texts, and four settings of the model are
tried, each alone, with Muon on tales. A study that was stopped goes on where it was.
Writes bench/results/recipes.csv.
"""

import sys
from pathlib import Path

import torch

from bench.studies.study import train_variants
from config import DataConfig, Preset, preset
from lab.runs.run import Run

STEPS, TUNING_SEED = 600, 100
RATES = {"adamw": (2e-3, 4e-3, 8e-3, 1.2e-2, 1.6e-2), "muon": (4e-3, 8e-3, 1.2e-2, 1.6e-2, 2.4e-2)}
MUON_RATES = (0.5, 2.0)  # beside 1, at Muon's best rate


def recipe(steps: int, data: DataConfig | None = None, model: dict | None = None, **train) -> Preset:
    """The settings of a run: those of the study, with `model` and `train` changed."""
    base, config = preset("llama-tiny", tokenizer="bpe-1024")
    data = data or config.data
    training = dict(data=data, steps=steps, batch_size=32, precision="bf16", compile="off", evaluate_every=steps // 24)
    return Preset(base.replace(**(model or {})), config.replace(**training | train))


def tune(folder: Path, steps: int) -> tuple[dict[str, float], list[Run]]:
    """For each optimizer the learning rate with the lowest loss on the tuning seed, and all runs tried."""
    trials = {(optimizer, rate): f"{optimizer}-rate{rate:g}" for optimizer in RATES for rate in RATES[optimizer]}
    variants = {
        name: recipe(steps, optimizer=optimizer, learning_rate=rate) for (optimizer, rate), name in trials.items()
    }
    runs = train_variants(variants, [TUNING_SEED], folder)
    losses = {trial: run.validation_loss() for trial, run in zip(trials, runs)}
    return {name: min(RATES[name], key=lambda rate: losses[name, rate]) for name in RATES}, runs


if __name__ == "__main__":
    torch.set_num_threads(1)
    best, _ = tune(Path(sys.argv[1]), STEPS)
    print(best)
