"""How much freedom does mixing need? The factored transformer's four mixings against a standard ALiBi model.

    python -m bench.studies.mixings FOLDER [SEEDS]

trains all of them on tales, about two minutes each, with parameters matched by the width of the MLP and the same tokens
in the same order per seed. Then it amplifies the attention of each. A study that was stopped goes on where it was.
Writes mixings.csv and amplification.csv in bench/results, with a row for each run and factor.
"""

from pathlib import Path

import pandas as pd

from bench.studies.study import name_and_seed, start, store, store_losses, train_variants
from bench.timing import table
from config import FactoredBlockConfig, Preset, preset
from lab.analysis.interventions import amplify
from lab.comparison.sweep import matched, mean_and_spread
from lab.costs.estimates import estimate
from lab.runs.run import Run

FACTORS, TOKENS = (1, 2, 4, 8, 16), 32_768
MIXINGS = ("dense", "independent", "kronecker", "identity")


def variants() -> dict[str, Preset]:
    """A standard block, and factored blocks with equally many parameters. There are four heads to mix."""
    model, train = preset("alibi-tiny")
    train = train.replace(steps=1000, batch_size=32, learning_rate=4e-3, compile="off", optimizer="adamw")
    model = model.replace(n_heads=4)
    parameters = estimate(model, train).parameters
    blocks = {name: FactoredBlockConfig(value_mixing=name, output_mixing=name) for name in MIXINGS}
    factored = {name: Preset(model.replace(block=block), train) for name, block in blocks.items()}
    return {"standard": Preset(model, train)} | {name: matched(made, parameters) for name, made in factored.items()}


def main(folder: Path, seeds: int) -> None:
    runs = train_variants(variants(), seeds, folder)
    print_costs(store_losses(runs, "mixings.csv"), seeds)
    amplification = pd.concat(amplify_run(run) for run in runs)
    store(amplification, "amplification.csv")
    ratios = amplification.groupby(["variant", "factor"], sort=False)["ratio"].mean().unstack()
    cells = [[name, *(f"{ratio - 1:+.1%}" for ratio in row)] for name, row in zip(ratios.index, ratios.to_numpy())]
    print(table("Loss by amplification of the attention logits", ["mixing", *(f"× {f}" for f in FACTORS)], cells))


def amplify_run(run: Run) -> pd.DataFrame:
    """`amplify` on held-out tokens, without its samples."""
    model, data = run.load_model(), run.load_data()
    found = amplify(model, data.validation, data.tokenizer, factors=FACTORS, max_tokens=TOKENS, sample_tokens=1)
    return found.drop(columns="sample").assign(**name_and_seed(run))


def print_costs(results: pd.DataFrame, seeds: int) -> None:
    rows = mean_and_spread(results)
    dense = rows.loc["dense", "validation_loss"]
    cells = [
        [name, f"{row.parameters:,.0f}", f"{row.validation_loss:.4f} ± {row['validation_loss sd']:.4f}",
         f"{row.validation_loss / dense - 1:+.1%}"]
        for name, row in rows.iterrows()
    ]
    headings = ["mixing", "parameters", "validation loss (nats per token)", "against dense"]
    print(table(f"Mixings, {seeds} seeds", headings, cells))


if __name__ == "__main__":
    start(main)
