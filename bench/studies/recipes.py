"""Which recipe makes a small model learn fastest?

    python -m bench.studies.recipes FOLDER TINYSHAKESPEARE [SEEDS]

TINYSHAKESPEARE: the path of that text. A Llama of 2 × 128 learns tales, pydocs and Tiny Shakespeare, 600 steps of
32 × 128 tokens. First the learning rates of AdamW and of Muon are tuned on tales, alike for both, on a seed that is not
used again; then the share of it that Muon's matrices get. At their best rates both are compared on all three texts.
Four settings of the model are tried with Muon on tales, each alone; those that gained there together, and on all texts.

Time at equal loss is the share of AdamW's steps after which a run's validation loss, a line between two measurements,
first reaches AdamW's last, times how long its step takes. All trainings take one thread and bf16. It takes about an
hour on one core; a study that was stopped goes on where it was. Writes bench/results/recipes.csv.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.steps import our_state, our_stepper
from bench.studies.study import store, train_variants
from bench.timing import table, time_in_turn
from config import DataConfig, ModelConfig, Preset, preset
from lab.comparison.sweep import mean_and_spread, sweep_results
from lab.runs.run import Run

STEPS, TUNING_SEED = 600, 100
RATES = {"adamw": (2e-3, 4e-3, 8e-3, 1.2e-2, 1.6e-2), "muon": (4e-3, 8e-3, 1.2e-2, 1.6e-2, 2.4e-2)}
MUON_RATES = (0.5, 1.0, 2.0)
SETTINGS = {
    "muon, qk_norm": dict(qk_norm=True), "muon, logit_cap 30": dict(logit_cap=30.0),
    "muon, zero_init": dict(zero_init=True), "muon, window 32": dict(window=32),
    "muon, qk_norm and zero_init": dict(qk_norm=True, zero_init=True),
}
ON_ALL = "muon, qk_norm", "muon, zero_init", "muon, qk_norm and zero_init"  # what gained on tales, on all texts


def recipe(steps: int, data: DataConfig | None = None, model: dict | None = None, **train) -> Preset:
    """The settings of a run: those of the study, with `model` and `train` changed."""
    base, config = preset("llama-tiny", tokenizer="bpe-1024")
    data = data or config.data
    if data.tokenizer != config.data.tokenizer:
        base = base.replace(vocab_size=None)
    training = dict(data=data, steps=steps, batch_size=32, precision="bf16", compile="off", evaluate_every=steps // 24)
    return Preset(base.replace(**(model or {})), config.replace(**training | train))


def texts(shakespeare: Path) -> dict[str, DataConfig]:
    own = preset("llama-tiny", tokenizer="bpe-1024").train.data
    return {
        "tales": own, "pydocs": own.replace(source="pydocs"),
        "shakespeare": own.replace(
            source=str(shakespeare), tokenizer="character", split="tail", validation_fraction=0.1
        ),
    }


def named(*words: str) -> str:
    """A run's name from words."""
    return "-".join(words).replace(", ", "-").replace(" ", "-")


def tune(folder: Path, steps: int, trials: dict[object, dict]) -> tuple[object, list[Run]]:
    """The trial with the lowest loss on the tuning seed, and the runs of all."""
    variants = {
        named(f"{train['optimizer']}-rate{train['learning_rate']:g}-share{train.get('muon_rate', 1.0):g}"):
        recipe(steps, **train)
        for train in trials.values()
    }
    runs = train_variants(variants, [TUNING_SEED], folder)
    losses = {trial: run.validation_loss() for trial, run in zip(trials, runs)}
    return min(losses, key=losses.get), runs


def tuned(folder: Path, steps: int) -> tuple[dict[str, dict], list[Run]]:
    """The settings of each optimizer at its best rate, and all runs tried."""
    found, tried = {}, []
    for name, rates in RATES.items():
        rate, runs = tune(folder, steps, {rate: dict(optimizer=name, learning_rate=rate) for rate in rates})
        found[name], tried = dict(optimizer=name, learning_rate=rate), tried + runs
    shares = {share: found["muon"] | dict(muon_rate=share) for share in MUON_RATES}
    share, runs = tune(folder, steps, shares)
    found["muon"]["muon_rate"] = share
    return found, tried + runs


def compare(folder: Path, seeds: int, steps: int, best: dict[str, dict], shakespeare: Path) -> list[Run]:
    """The runs of both optimizers on all texts, of each setting with Muon on tales, and of some on all texts."""
    variants = {
        named(name, text): recipe(steps, data, **train)
        for text, data in texts(shakespeare).items() for name, train in best.items()
    }
    variants |= {named(name, "tales"): recipe(steps, model=model, **best["muon"]) for name, model in SETTINGS.items()}
    variants |= {
        named(name, text): recipe(steps, data, SETTINGS[name], **best["muon"])
        for text, data in texts(shakespeare).items() if text != "tales" for name in ON_ALL
    }
    return train_variants(variants, seeds, folder)


def first_reached(run: Run, loss: float) -> float:
    """The step at which the validation loss first reaches `loss`, on a line between two measurements; else NaN."""
    log = run.log().dropna(subset="validation_loss")
    steps, losses = log.step.to_numpy(), log.validation_loss.to_numpy()
    below = np.flatnonzero(losses <= loss)
    if not len(below):
        return float("nan")
    if below[0] == 0:
        return float(steps[0])
    i = below[0]
    share = (losses[i - 1] - loss) / (losses[i - 1] - losses[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def build_step(model: ModelConfig, train: dict):
    torch.set_num_threads(1)
    return our_stepper(our_state(model, 32, precision="bf16", compile="off", **train))


def step_times(best: dict[str, dict], rounds: int = 5) -> dict[str, float]:
    """The seconds of a step of each recipe, as a multiple of AdamW's."""
    model = recipe(STEPS).model
    cases = {name: (model, train) for name, train in best.items()}
    cases |= {name: (model.replace(**settings), best["muon"]) for name, settings in SETTINGS.items()}
    seconds = time_in_turn(build_step, cases, rounds)
    return {name: float(np.median(np.divide(seconds[name], seconds["adamw"]))) for name in cases}


def report(runs: list[Run], best: dict[str, dict], times: dict[str, float]) -> pd.DataFrame:
    """A row for each run, with the time at which it reached the end loss of AdamW on the same text and seed."""
    results = sweep_results(runs).drop(columns="seconds")
    ends = {run.name: run.validation_loss() for run in runs}
    words = {named(name): name for name in [*best, *SETTINGS]}
    for row, run in zip(results.index, runs):
        name, _, text = results.variant[row].rpartition("-")
        end = ends[named("adamw", text) + f"-seed{run.train_config.seed}"]
        share = first_reached(run, end) / run.train_config.steps
        results.loc[row, ["text", "recipe", "steps_share", "time_share"]] = [
            text, words[name], share, share * times[words[name]]
        ]
    return results


def print_report(results: pd.DataFrame, times: dict[str, float]) -> None:
    for text, rows in results.groupby("text", sort=False):
        spread = mean_and_spread(rows.assign(variant=rows.recipe), ("validation_loss", "steps_share", "time_share"))
        cells = [
            [name, f"{row.validation_loss:.4f} ± {row['validation_loss sd']:.4f}", f"{row.steps_share:.2f}",
             f"{times[name]:.2f} ×", f"{row.time_share:.2f}"]
            for name, row in spread.iterrows()
        ]
        headings = ["recipe", "validation loss", "steps to AdamW's end loss", "time of a step", "time at equal loss"]
        print(table(f"Recipes on {text}, share of AdamW's", headings, cells))


def main(folder: Path, shakespeare: Path, seeds: int = 3, steps: int = STEPS) -> None:
    torch.set_num_threads(1)
    best, tried = tuned(folder, steps)
    print(best, flush=True)
    runs = compare(folder, seeds, steps, best, shakespeare)
    times = step_times(best)
    results = report(runs, best, times)
    trials = sweep_results(tried).drop(columns="seconds").drop_duplicates("variant")
    store(pd.concat([trials, results]), "recipes.csv")
    print_report(results, times)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: python -m bench.studies.recipes FOLDER TINYSHAKESPEARE [SEEDS]")
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
