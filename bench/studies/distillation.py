"""Does a small model learn more from the same tokens if a larger one teaches it?

    python -m bench.studies.distillation FOLDER [SEEDS]

trains a teacher of 4 × 192 on tales, then students of 2 × 64: alone, with its logits, with its logits and hidden
states, and block by block. All students read the same tokens in the same order per seed. Each way has the same trials:
three learning rates on a seed that is not used again. Temperature and weights are the settings' defaults, and are not
tuned. It takes about half an hour on two cores; a study that was stopped goes on where it was.
Writes distillation.csv, with a row for each run, and distillation_differences.csv, in bench/results.
"""

from pathlib import Path

import pandas as pd

from bench.studies.study import small_llama, start, store, train_variants
from bench.timing import table
from config import DistilConfig, Preset, ScheduleConfig
from lab.comparison.sweep import compare_sweep, mean_and_spread, run_name, sweep_results
from lab.evaluation.paired import Paired
from lab.runs.run import Run

STEPS, TEACHER_STEPS = 400, 600
RATES, TUNING_SEED = (2e-3, 4e-3, 8e-3), 100
TEACHER = run_name("teacher", 0)
WAYS: dict[str, DistilConfig | None] = {
    "alone": None,
    "logits": DistilConfig(teacher=TEACHER, hidden_weight=0.0),
    "logits-and-states": DistilConfig(teacher=TEACHER),
    "blocks": DistilConfig(teacher=TEACHER, mode="blocks"),
}


def teacher(steps: int) -> Preset:
    return small_llama(width=192, n_layers=4, steps=steps, learning_rate=2e-3)


def student(way: str, rate: float, steps: int) -> Preset:
    model, train = small_llama(width=64, n_layers=2, steps=steps, learning_rate=rate)
    return Preset(model, train.replace(distil=WAYS[way], schedule=ScheduleConfig()))


def tuned_rates(folder: Path, steps: int) -> tuple[dict[str, float], list[Run]]:
    """For each way the learning rate with the lowest validation loss on the tuning seed, and all runs tried."""
    trials = {f"{way}-rate{rate:g}": (way, rate) for way in WAYS for rate in RATES}
    variants = {name: student(way, rate, steps) for name, (way, rate) in trials.items()}
    runs = train_variants(variants, [TUNING_SEED], folder)
    losses = {trial: run.validation_loss() for trial, run in zip(trials.values(), runs)}
    return {way: min(RATES, key=lambda rate: losses[way, rate]) for way in WAYS}, runs


def differences(variants: dict[str, Preset], seeds: int, folder: Path) -> dict[str, Paired]:
    """Of each taught student from the one alone, on all held-out stories."""
    comparison = compare_sweep(variants, range(seeds), folder)
    names = {way: [run_name(way, seed) for seed in range(seeds)] for way in variants}
    return {way: comparison.paired(names[way], names["alone"]) for way in variants if way != "alone"}


def main(folder: Path, seeds: int, steps: int = STEPS, teacher_steps: int = TEACHER_STEPS) -> None:
    (taught_by,) = train_variants({"teacher": teacher(teacher_steps)}, 1, folder)
    rates, tried = tuned_rates(folder, steps)
    variants = {way: student(way, rate, steps) for way, rate in rates.items()}
    runs = train_variants(variants, seeds, folder)
    results = sweep_results([taught_by, *tried, *runs]).drop(columns="seconds")
    results["learning_rate"] = [run.train_config.learning_rate for run in (taught_by, *tried, *runs)]
    store(results, "distillation.csv")
    found = differences(variants, seeds, folder)
    store(pd.DataFrame([row(way, difference) for way, difference in found.items()]), "distillation_differences.csv")
    print_results(results, rates, found)


def row(way: str, found: Paired) -> dict[str, object]:
    return {
        "variant": way, "difference": found.difference, "low": found.low, "high": found.high,
        "documents": found.n_documents,
        "by_seed": " ".join(f"{a - b:+.4f}" for a, b in zip(found.losses_a, found.losses_b)),
    }


def print_results(results: pd.DataFrame, rates: dict[str, float], found: dict[str, Paired]) -> None:
    rows = mean_and_spread(results)
    cells = []
    for way, rate in rates.items():
        loss, told = rows.loc[way], row(way, found[way]) if way in found else None
        cells.append([
            way, f"{rate:g}", f"{loss.validation_loss:.4f} ± {loss['validation_loss sd']:.4f}",
            f"{told['difference']:+.4f} ({told['low']:+.4f} to {told['high']:+.4f})" if told else "",
            told["by_seed"] if told else "",
        ])
    headings = ["student", "rate", "validation loss, sd over seeds", "against alone (95 % interval)", "seed by seed"]
    print(table(f"Taught by {TEACHER}: {rows.loc['teacher', 'validation_loss']:.4f} nats per token", headings, cells))
    print("\n".join(f"{difference}" for difference in found.values()))


if __name__ == "__main__":
    start(main)
