"""How much of a gap in the zoo belongs to one setting, and not to the architecture?

    python -m bench.studies.untuned FOLDER [SEEDS]

The zoo takes one learning rate and the presets' weights of further losses for all, and tunes none. Here three of its
models are trained again, shorter, with one of these settings changed: the weight of multi-token's further losses, and
the learning rate of sasp and of llama, which both others are held against. About two to five minutes each. Stopped, it
goes on where it was. Writes bench/results/untuned.csv.
"""

import sys
from pathlib import Path

from bench.studies.study import train_and_store
from bench.timing import table
from bench.zoo.train import settings
from config import Preset
from lab.comparison.overrides import grid, overridden
from lab.comparison.sweep import mean_and_spread
from settings.paths import ROOT

RESULTS = ROOT / "bench" / "results" / "untuned.csv"
STEPS = 300
RATES, WEIGHTS = (4e-3, 1.2e-2), (1.0, 0.1)  # the zoo's first


def variants() -> dict[str, Preset]:
    changed = {
        "llama": {"train.learning_rate": RATES},
        "sasp": {"train.learning_rate": RATES},
        "multi-token": {"model.block.loss_weight": WEIGHTS},
    }
    found = {}
    for name, values in changed.items():
        model, train = settings(name, "tales")
        schedule = train.schedule.replace(warmup_steps=None)  # a tenth of these steps, as the zoo's is of its own
        found |= overridden(Preset(model, train.replace(steps=STEPS, schedule=schedule)), grid(values), name)
    return found


def main(folder: Path, seeds: int) -> None:
    results = train_and_store(variants(), seeds, folder, RESULTS)
    cells = [[name, f"{row.validation_loss:.4f}"] for name, row in mean_and_spread(results).iterrows()]
    print(table(f"One setting changed, seeds: {seeds}", ["model", "validation loss (nats per token)"], cells))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
