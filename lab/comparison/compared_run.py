"""A run as a comparison sees it: opened, with its log read once and checked. Imports no torch."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from config import ARCHITECTURES, DataConfig, ModelConfig, TrainConfig
from lab.costs.estimates import estimate
from lab.data.sources import DEFAULT_TALES
from lab.runs.log_table import check_rows
from lab.runs.run import Run
from lab.runs.settings import settings_by_name
from settings.errors import IdeaError, RunError

NUMBERS = ("step", "tokens", "seconds", "loss", "tokens_per_second", "memory")  # of every row of the log
OF_TRAINING = ("tokens", "seconds", "flops", "tokens_per_second", "memory")  # facts of the training


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """A run with its log, read once."""

    run: Run
    log: pd.DataFrame  # empty where it was trained elsewhere
    validation_loss: float  # of the stored weights; NaN where they were never validated

    @cached_property
    def settings(self) -> dict[str, object]:
        return settings_by_name(self.run.model_config, self.run.train_config)

    @cached_property
    def configuration(self) -> tuple[ModelConfig, TrainConfig]:
        """All settings but the seed: equal for runs that differ in their seed alone."""
        data = self.data_settings.replace(tokenizer=self.run.train_config.data.tokenizer)
        model = self.run.model_config
        return model, self.run.train_config.settled(model).replace(seed=0, data=data)

    @cached_property
    def data_settings(self) -> DataConfig:
        """The settings that choose the text; equal where one run leaves out a default that another one writes down."""
        data = self.run.train_config.data.replace(tokenizer="")
        return data.replace(max_documents=data.max_documents or DEFAULT_TALES) if data.sources == ("tales",) else data

    @property
    def known_text(self) -> tuple[str, str] | None:
        """The fingerprints of the texts to learn from and held out; None where the run has no record of them."""
        return (self.run.text.train, self.run.text.validation) if self.run.text else None

    @property
    def text_name(self) -> str:
        """The source of its text, with the fingerprint of the held-out documents where it is recorded."""
        source, record = self.run.train_config.data.label, self.run.text
        return f"{source} [{record.validation}]" if record else source

    @cached_property
    def facts(self) -> dict[str, object]:
        """What the run is and what it cost: seconds of training, bytes, FLOPs of the whole training (NaN where an idea
        keeps them from being counted; `estimate` says why). All of its training is NaN where it was trained elsewhere.
        """
        costs = estimate(self.run.model_config, self.run.train_config)
        known = {
            "validation_loss": self.validation_loss, "architecture": architecture(self.run.model_config),
            "data": self.run.train_config.data.label, "parameters": costs.parameters,
        }
        if not len(self.log):
            return known | dict.fromkeys(OF_TRAINING, math.nan)
        tokens = int(self.log["tokens"].iloc[-1])
        try:
            flops = tokens * costs.training_flops
        except IdeaError:
            flops = math.nan
        return known | {
            "tokens": tokens,
            "seconds": float(self.log["seconds"].iloc[-1]),
            "flops": flops,
            "tokens_per_second": float(self.log["tokens_per_second"].median()),
            "memory": int(self.log["memory"].max()),
        }

    def logged(self, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the log that have a value of y: x ("steps", "tokens", "seconds" or "flops") and y."""
        values = self.log[y].to_numpy(dtype=float)
        has_value = np.isfinite(values)
        return self._progress(x)[has_value], values[has_value]

    def _progress(self, x: str) -> np.ndarray:
        if x == "flops":
            return self.log["tokens"].to_numpy() * (self.facts["flops"] / self.facts["tokens"])
        return self.log["step" if x == "steps" else x].to_numpy(dtype=float)


def open_compared_run(run: Run) -> ComparedRun:
    """The run with its log. Raises RunError where something that a comparison needs is missing or damaged."""
    run.stored_parameters()  # the config's claims are checked against the weights before anything is computed from them
    if run.is_trained_elsewhere():
        return ComparedRun(run, pd.DataFrame(columns=[*NUMBERS, "validation_loss"], dtype=float), math.nan)
    log = run.log()
    missing = [name for name in NUMBERS if name not in log.columns]
    if missing:
        raise RunError(f"log_data.csv of {run.name!r} lacks the columns {', '.join(missing)}; train it again")
    if not len(log):
        raise RunError(f"run {run.name!r} has taken no step yet; train it")
    for name in (*NUMBERS, "validation_loss"):
        _check_numbers(run, log[name])
    check_rows(run.name, log["step"].tolist(), run.stored_at())
    return ComparedRun(run, log, run.validation_loss())


def _check_numbers(run: Run, values: pd.Series) -> None:
    """Raises RunError unless a column holds finite numbers. Validation losses may be missing."""
    column = values if values.dtype.kind in "if" else pd.to_numeric(values, errors="coerce")
    wrong = ~np.isfinite(column.to_numpy(dtype=float))
    if values.name == "validation_loss":
        wrong &= values.notna().to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RunError(
            f"log_data.csv of {run.name!r} is damaged or its training diverged: {values.name} is {values.iloc[row]} "
            f"in row {row + 1}; train it again, with a lower learning rate if it diverged"
        )


def architecture(config: ModelConfig) -> str:
    """The preset architecture whose kinds of parts this config has, or "own"."""
    for name, parts in ARCHITECTURES.items():
        kinds = (config.norm.kind, config.norm.bias, config.mlp.gated, config.position.kind, config.block.kind)
        block = parts["block"].kind if "block" in parts else "residual"
        norm, gated = parts["norm"], parts["mlp"].gated
        if kinds == (norm.kind, norm.bias, gated, parts["position"].kind, block):
            return name
    return "own"
