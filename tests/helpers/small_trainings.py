"""A model and a training that take a second, and whether two trainings came out the same."""

from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

from config import DataConfig, DropoutConfig, ModelConfig, ScheduleConfig, TrainConfig
from lab.runs.run import Run
from tests.helpers.devices import DEVICE

MODEL = ModelConfig(
    vocab_size=257, context_length=16, n_layers=2, n_heads=2, width=16,
    dropout=DropoutConfig(residual=0.2, attention=0.1),
)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=12, batch_size=4,
    evaluate_every=4, evaluation_tokens=256, checkpoint_every=5, precision="fp32", device=DEVICE, sample_tokens=5,
    schedule=ScheduleConfig(warmup_steps=2), dropout_final=0.5,
)


def new_run(folder: Path, name: str = "run", model: ModelConfig = MODEL, **changes) -> Run:
    return Run.create(name, model, TRAIN.replace(**changes), folder)


def numbers(log: pd.DataFrame) -> pd.DataFrame:
    """What must be the same on every repetition: all but times and memory."""
    return log.drop(columns=["seconds", "tokens_per_second", "memory"])


def stored(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint_path)


def assert_same(one: Run, other: Run) -> None:
    pd.testing.assert_frame_equal(numbers(one.log()), numbers(other.log()), check_exact=True)
    first, second = stored(one), stored(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weights, others = load_file(one.weights_path), load_file(other.weights_path)
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert one.weights_facts() == other.weights_facts()
