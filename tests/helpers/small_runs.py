"""Runs with weights and a log, made without training; and scores made up."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from config import DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from lab.evaluation.scores import Scores
from lab.runs.log_table import COLUMNS
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from modules.transformer import Transformer

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=16, init_std=0.3)
DATA = DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.2)
TRAIN = TrainConfig(data=DATA, steps=40, evaluation_tokens=64, schedule=ScheduleConfig(warmup_steps=0))


def make_log(n_steps: int, seed: int = 0, validate_every: int = 10) -> pd.DataFrame:
    """Falling losses with noise, 32 tokens and half a second a step."""
    step = np.arange(1, n_steps + 1)
    loss = 2 + 3 / step + 0.1 * np.random.default_rng(seed).standard_normal(n_steps)
    validation = np.where(step % validate_every == 0, loss, np.nan)
    ones = np.ones(n_steps)
    columns = (step, 32 * step, 0.5 * step, loss, validation, 1e-3 * ones, ones, 64 * ones, 1000 * step)
    return pd.DataFrame(dict(zip(COLUMNS, columns)))


def make_run(
    folder: Path, name: str, model: ModelConfig = MODEL, train: TrainConfig = TRAIN, n_steps: int = 40
) -> Run:
    """The weights and the noise of the log depend on the seed of `train` alone."""
    run = Run.create(name, model, train, folder)
    torch.manual_seed(train.seed)
    log = make_log(n_steps, train.seed)
    weights = dict(Transformer(model).named_parameters())
    write_tensors(run.weights_path, weights, {"step": n_steps, "validation_loss": float(log["loss"].iloc[-1])})
    log.to_csv(run.log_path, index=False)
    return run


def made_up(losses: list[list[float]], seed: int = 0) -> Scores:
    """Scores of documents whose losses are these, a byte each; the last token of each is an end of text."""
    flat = np.concatenate(losses).astype(np.float32)
    documents = np.repeat(np.arange(len(losses)), [len(one) for one in losses])
    random = np.random.default_rng(seed)
    return Scores(
        losses=flat, ranks=random.integers(1, 20, len(flat)), targets=np.zeros(len(flat), int), documents=documents,
        positions=np.zeros(len(flat), int), n_bytes=np.ones(len(flat), int), top=(1, 5), whole_end=True,
        total_loss=float(flat.sum(dtype=float)),
    )


def random_documents(seed: int, n: int = 40) -> list[list[float]]:
    """Documents of 3 to 30 tokens, each as hard as it is."""
    random = np.random.default_rng(seed)
    return [list(random.gamma(2.0, 0.5, random.integers(3, 31)) + random.normal(2, 0.3)) for _ in range(n)]
