"""Takes finished runs among those that ship: without checkpoints, weights rounded to bfloat16, logs to nine digits.

    python -m bench.zoo.ship FOLDER/RUN [FOLDER/RUN ...]

A run replaces the one that ships under its name; if that had a lens, it gets one for its own weights. The card is
written anew, from the log and the rounded weights. Nine digits are all that a float32 has.
"""

import sys
import tempfile
from pathlib import Path

import torch

from lab.analysis.tuned_lens import lens_path, train_lens
from lab.runs.names import TRAINED
from lab.runs.run import Run
from lab.runs.weights import read_tensors, write_tensors
from lab.sharing import export_run, import_run
from lab.training.card import write_card
from lab.training.storing import sample_text
from settings.errors import RunError


def ship(run: Run, folder: Path = TRAINED) -> Run:
    """The run in `folder`. Raises RunError for a damaged one, and for one that lies there already with a checkpoint,
    which would be lost; what was there stays then."""
    place = folder / run.name
    if run.checkpoint_path.exists() and run.folder.resolve() == place.resolve():
        raise RunError(f"run {run.name!r} is there already, with a checkpoint that would be lost; ship a copy of it")
    with tempfile.TemporaryDirectory(prefix=".ship.", dir=folder) as temporary:
        made = import_run(export_run(run, Path(temporary) / "run.zip"), Path(temporary))
        tensors, facts = read_tensors(made.weights_path)
        rounded = {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}
        write_tensors(made.weights_path, rounded, facts | {"rounded": "bfloat16"})
        made.log().to_csv(made.log_path, index=False, float_format="%.9g", lineterminator="\n")
        write_card(made, made.load_data(), sample_text(made.load_model(), made))
        old = place.rename(Path(temporary) / "old") if place.exists() else None
        shipped = Run(made.folder.rename(place))
        if old and lens_path(Run(old)).exists() and not lens_path(shipped).exists():
            train_lens(shipped)
    return shipped


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(ship(Run.open(Path(path))))
