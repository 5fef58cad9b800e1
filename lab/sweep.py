"""Many trainings, one after another: each variant with each seed, taken up again where they were left."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from config import ConfigError, DataConfig, Preset, RunError
from lab.data import TokenData, prepare
from lab.estimates import estimate
from lab.runs import Run
from lab.training import Step, train


def sweep(variants: dict[str, Preset], seeds: Iterable[int], folder: Path) -> Iterator[tuple[Run, Step]]:
    """Trains every variant with every seed in `folder`, seed by seed, and yields each step with its run.

    The runs are called NAME-seedN. What is finished is left as it is, what was stopped goes on; leaving the loop or
    Ctrl-C stops after the step. Raises RunError where a run of that name was made with other settings.
    """
    prepared: dict[DataConfig, TokenData] = {}
    for seed in seeds:
        for name, (model, config) in variants.items():
            config = config.replace(seed=seed)
            run = opened(f"{name}-seed{seed}", Preset(model, config), folder)
            if run.steps_done() >= config.steps:
                continue
            if config.data not in prepared:
                prepared[config.data] = prepare(config.data)
            for step in train(run, prepared[config.data]):
                yield run, step
            if run.steps_done() < config.steps:  # stopped by hand
                return


def opened(name: str, settings: Preset, folder: Path) -> Run:
    """The run of that name, made if it is not there. Raises RunError if it is another training's."""
    if not (folder / name).exists():
        return Run.create(name, *settings, folder=folder)
    run = Run.open(name, folder)
    if (run.model_config, run.train_config) != settings:
        raise RunError(f"run {name!r} in {folder} was made with other settings; delete it, or sweep in another folder")
    return run


def sweep_results(runs: Iterable[Run]) -> pd.DataFrame:
    """A row for each finished run: variant, seed, parameters, tokens, best validation loss in nats, seconds."""
    rows = []
    for run in runs:
        log = run.log()
        rows.append({
            "variant": run.name.rpartition("-seed")[0], "seed": run.train_config.seed,
            "parameters": estimate(run.model_config, run.train_config).parameters, "tokens": int(log["tokens"].max()),
            "validation_loss": float(run.weights_facts()["validation_loss"]), "seconds": float(log["seconds"].max()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def mean_and_spread(results: pd.DataFrame, values: tuple[str, ...] = ("validation_loss",)) -> pd.DataFrame:
    """By variant, in the order of first appearance: the number of seeds, mean and sample sd of each of `values`."""
    by_variant = results.groupby("variant", sort=False)
    columns = {"seeds": by_variant.size(), "parameters": by_variant["parameters"].first()}
    for value in values:
        columns |= {value: by_variant[value].mean(), f"{value} sd": by_variant[value].std()}
    return pd.DataFrame(columns)


def matched(settings: Preset, parameters: int, tolerance: float = 0.02) -> Preset:
    """The same model with an MLP so wide that it has `parameters` parameters, for a comparison at equal size.

    Raises ConfigError where no width of the MLP comes within the tolerance.
    """
    model, train_config = settings

    def count(ratio: float) -> int:
        return estimate(model.replace(mlp=model.mlp.replace(ratio=ratio)), train_config).parameters

    slope = (count(8.0) - count(4.0)) / 4
    ratio = 4.0 + (parameters - count(4.0)) / slope
    if ratio <= 0 or abs(count(ratio) / parameters - 1) > tolerance:
        raise ConfigError(
            f"no MLP brings this model to {parameters:,} parameters: at ratio 4 it has {count(4.0):,}, each unit of "
            f"the ratio adds {slope:,.0f}; change the width or the layers"
        )
    return Preset(model.replace(mlp=model.mlp.replace(ratio=ratio)), train_config)
