"""What should a future-sighted network predict, how should it pool, and with which weight in the loss?

    python -m bench.studies.pools FOLDER [SEEDS]

trains small models of two levels on tales, a minute or two each: every pool, every kind of prediction, several weights
of the levels' losses, and a plain model, all with equally many parameters. A study that was stopped goes on where it
was. Writes bench/results/pools.csv.
"""

from pathlib import Path
from typing import get_args, get_type_hints

from bench.studies.study import small_llama, start, store_losses, train_variants
from bench.timing import table
from config import FutureBlockConfig, Preset
from lab.comparison.sweep import matched, mean_and_spread
from lab.costs.estimates import estimate

WEIGHTS = (0.03, 0.3, 1.0)  # all other variants have 0.1


def variants() -> dict[str, Preset]:
    model, train = small_llama(width=72, n_layers=4, steps=600, learning_rate=4e-3)
    hints = get_type_hints(FutureBlockConfig)
    blocks = {f"pool-{pool}": dict(pool=pool) for pool in get_args(hints["pool"])}
    blocks |= {f"predicts-{kind}": dict(predicts=kind) for kind in get_args(hints["predicts"]) if kind != "bag"}
    blocks |= {f"weight-{weight}": dict(loss_weight=weight) for weight in WEIGHTS}
    models = {name: model.replace(block=FutureBlockConfig(levels=2, **own)) for name, own in blocks.items()}
    made = {name: Preset(model, train) for name, model in models.items()}
    parameters = estimate(model).parameters
    return {"plain": Preset(model, train)} | {name: matched(settings, parameters) for name, settings in made.items()}


def main(folder: Path, seeds: int) -> None:
    results = store_losses(train_variants(variants(), seeds, folder), "pools.csv")
    rows = mean_and_spread(results)
    plain = rows.loc["plain", "validation_loss"]
    cells = [
        [name, f"{row.parameters:,.0f}", f"{row.validation_loss:.4f}", f"{row['validation_loss sd']:.4f}",
         f"{row.validation_loss - plain:+.4f}"]
        for name, row in rows.iterrows()
    ]
    headings = ["model", "parameters", "validation loss (nats per token)", "sd over seeds", "against plain"]
    print(table(f"What to predict, seeds: {seeds}", headings, cells))


if __name__ == "__main__":
    start(main)
