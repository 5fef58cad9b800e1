"""A run that is made from another one without training: its settings, text and log, and other weights."""

import shutil
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from lab.runs.names import check_name, name_from, runs_folder
from lab.runs.run import Run, fill_folder, free_name
from lab.runs.weights import write_tensors
from lab.training.card import write_card
from lab.training.storing import sample_text
from modules.transformer import Transformer

KEPT = ("train_config.json", "tokenizer.json", "data.json", "log_data.csv", "idea.py")


class Derived(NamedTuple):
    """What a derived run is made of. how: as origin.json has it. tensors and facts: what model.safetensors holds."""

    how: str
    model: Transformer
    tensors: dict[str, Tensor]
    facts: dict[str, object]


def choose_name(source: Run, suffix: str, name: str | None, folder: Path | None) -> str:
    """`name`, or that of the source with the suffix, numbered where it is taken. Raises RunError for a name that is
    taken or that some file system refuses."""
    if name is not None:
        check_name(name)
    return free_name(name or name_from(source.name + suffix), runs_folder(folder), numbered=name is None)


def derive_run(source: Run, derived: Derived, name: str, folder: Path | None) -> Run:
    """Makes the run folder, with a card. Raises RunError or DataError, and leaves nothing then."""
    data, origin = source.load_data(), source.as_origin(derived.how)

    def fill(building: Path) -> None:
        for file in KEPT:
            if (source.folder / file).exists():
                shutil.copyfile(source.folder / file, building / file)
        (building / "model_config.json").write_text(derived.model.config.to_json(), encoding="utf-8", newline="\n")
        (building / "origin.json").write_text(origin.to_json(), encoding="utf-8", newline="\n")
        write_tensors(building / "model.safetensors", derived.tensors, derived.facts)
        made = Run(building)
        write_card(made, data, sample_text(derived.model, made))

    return fill_folder(name, runs_folder(folder), fill)
