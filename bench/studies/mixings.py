"""What freedom does mixing need? The factored transformer's four mixings against a standard ALiBi model.

    python -m bench.studies.mixings FOLDER [SEEDS]

trains them all on tales, parameters matched by the width of the MLP, same tokens in the same order per seed; about two
minutes each. Then the attention of each is amplified. Stopped, it goes on where it was. Writes mixings.csv and
amplification.csv in bench/results, a row per run and factor.
"""

import sys
from pathlib import Path

import pandas as pd

from bench.timing import table
from config import FactoredBlockConfig, Preset, preset
from lab.analysis.interventions import amplify
from lab.comparison.sweep import matched, mean_and_spread, sweep, sweep_results
from lab.costs.estimates import estimate
from lab.files.atomic import atomic_write_text
from lab.runs.run import Run
from settings.paths import ROOT

RESULTS = ROOT / "bench" / "results"
FACTORS, TOKENS = (1, 2, 4, 8, 16), 32_768
MIXINGS = ("dense", "independent", "kronecker", "identity")


def variants() -> dict[str, Preset]:
    """A standard block, and factored blocks of as many parameters; four heads, so that mixing heads means something."""
    model, train = preset("alibi-tiny")
    train = train.replace(steps=1000, batch_size=32, learning_rate=4e-3, compile="off")
    model = model.replace(n_heads=4)
    parameters = estimate(model, train).parameters
    blocks = {name: FactoredBlockConfig(value_mixing=name, output_mixing=name) for name in MIXINGS}
    factored = {name: Preset(model.replace(block=block), train) for name, block in blocks.items()}
    return {"standard": Preset(model, train)} | {name: matched(made, parameters) for name, made in factored.items()}


def main(folder: Path, seeds: int) -> None:
    for run, step in sweep(variants(), range(seeds), folder):
        if step.validation_loss is not None:
            print(f"{run.name}: step {step.step}, validation loss {step.validation_loss:.4f}", flush=True)
    names = [f"{name}-seed{seed}" for seed in range(seeds) for name in variants()]
    runs = [Run.open(name, folder) for name in names]
    results = sweep_results(runs).drop(columns="seconds")
    atomic_write_text(RESULTS / "mixings.csv", results.to_csv(index=False, float_format="%.5f"))
    print_costs(results, seeds)
    amplification = pd.concat(amplify_run(run) for run in runs)
    atomic_write_text(RESULTS / "amplification.csv", amplification.to_csv(index=False, float_format="%.5f"))
    ratios = amplification.groupby(["variant", "factor"], sort=False)["ratio"].mean().unstack()
    cells = [[name, *(f"{ratio - 1:+.1%}" for ratio in row)] for name, row in zip(ratios.index, ratios.to_numpy())]
    print(table("Loss by amplification of the attention logits", ["mixing", *(f"× {f}" for f in FACTORS)], cells))


def amplify_run(run: Run) -> pd.DataFrame:
    """`amplify` on held-out tokens, without its samples."""
    model, data = run.load_model(), run.load_data()
    found = amplify(model, data.validation, data.tokenizer, factors=FACTORS, max_tokens=TOKENS, sample_tokens=1)
    name, _, seed = run.name.rpartition("-seed")
    return found.drop(columns="sample").assign(variant=name, seed=seed)


def print_costs(results: pd.DataFrame, seeds: int) -> None:
    rows = mean_and_spread(results)
    dense = rows.loc["dense", "validation_loss"]
    cells = [
        [name, f"{row.parameters:,.0f}", f"{row.validation_loss:.4f} ± {row['validation_loss sd']:.4f}",
         f"{row.validation_loss / dense - 1:+.1%}"]
        for name, row in rows.iterrows()
    ]  # fmt: skip
    headings = ["mixing", "parameters", "validation loss (nats per token)", "against dense"]
    print(table(f"Mixings, {seeds} seeds", headings, cells))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
