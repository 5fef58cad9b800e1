"""Takes a finished run among those that ship: without its checkpoint, its weights rounded to bfloat16.

    python -m bench.ship FOLDER/RUN NAME

The card is written anew, from the log and the rounded weights.
"""

import sys
import tempfile
from pathlib import Path

import torch

from lab.card import write_card
from lab.data import prepare
from lab.runs import Run
from lab.sharing import export_run, import_run
from lab.training import sample_text
from lab.weights import read_tensors, write_tensors


def ship(run: Run, name: str) -> Run:
    """The run under a new name in trained/. Raises RunError where that name is taken."""
    with tempfile.TemporaryDirectory() as folder:
        shipped = import_run(export_run(run, Path(folder) / "run.zip"), name=name)
    tensors, facts = read_tensors(shipped.weights_path)
    rounded = {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}
    write_tensors(shipped.weights_path, rounded, facts | {"rounded": "bfloat16"})
    write_card(shipped, prepare(shipped.train_config.data), sample_text(shipped.load_model(), shipped))
    return shipped


if __name__ == "__main__":
    print(ship(Run.open(Path(sys.argv[1])), sys.argv[2]))
