"""Takes finished runs among those that ship: without checkpoints, weights rounded to bfloat16, logs to nine digits.

    python -m bench.ship FOLDER/RUN [FOLDER/RUN ...]

A run replaces the one that ships under its name. Its card is written anew, from the log and the rounded weights.
Nine digits are all that a float32 has.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch

from lab.card import write_card
from lab.data import prepare
from lab.runs import TRAINED, Run
from lab.sharing import export_run, import_run
from lab.training import sample_text
from lab.weights import read_tensors, write_tensors


def ship(run: Run, folder: Path = TRAINED) -> Run:
    """The run in `folder`. Raises RunError for a damaged one, and leaves what was there."""
    with tempfile.TemporaryDirectory(prefix=".ship.", dir=folder) as temporary:
        made = import_run(export_run(run, Path(temporary) / "run.zip"), Path(temporary))
        tensors, facts = read_tensors(made.weights_path)
        rounded = {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}
        write_tensors(made.weights_path, rounded, facts | {"rounded": "bfloat16"})
        made.log().to_csv(made.log_path, index=False, float_format="%.9g", lineterminator="\n")
        write_card(made, prepare(made.train_config.data), sample_text(made.load_model(), made))
        shutil.rmtree(folder / run.name, ignore_errors=True)
        return Run(made.folder.rename(folder / run.name))


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(ship(Run.open(Path(path))))
