"""How much of a gap in the zoo comes from one setting, and not from the architecture?

    python -m bench.studies.untuned FOLDER [SEEDS]

The zoo uses one learning rate and the presets' weights of further losses for all models, and tunes none. This study
trains three of its models again, for fewer steps, with one of these settings changed: the weight of multi-token's
further losses, and the learning rate of sasp and of llama, with which both others are compared. Each takes two to five
minutes. A study that was stopped goes on where it was. Writes bench/results/untuned.csv.
"""

from pathlib import Path

from bench.studies.study import start, store_losses, train_variants
from bench.timing import table
from bench.zoo.train import settings
from config import Preset
from lab.comparison.overrides import grid, overridden
from lab.comparison.sweep import mean_and_spread

STEPS = 300
RATES, WEIGHTS = (4e-3, 1.2e-2), (1.0, 0.1)  # the zoo's value first


def variants() -> dict[str, Preset]:
    changed = {
        "llama": {"train.learning_rate": RATES},
        "sasp": {"train.learning_rate": RATES},
        "multi-token": {"model.block.loss_weight": WEIGHTS},
    }
    found = {}
    for name, values in changed.items():
        model, train = settings(name, "tales")
        schedule = train.schedule.replace(warmup_steps=None)  # a tenth of the steps, as in the zoo
        found |= overridden(Preset(model, train.replace(steps=STEPS, schedule=schedule)), grid(values), name)
    return found


def main(folder: Path, seeds: int) -> None:
    results = store_losses(train_variants(variants(), seeds, folder), "untuned.csv")
    cells = [[name, f"{row.validation_loss:.4f}"] for name, row in mean_and_spread(results).iterrows()]
    print(table(f"One setting changed, seeds: {seeds}", ["model", "validation loss (nats per token)"], cells))


if __name__ == "__main__":
    start(main, seeds=1)
