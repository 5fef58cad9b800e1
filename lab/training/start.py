"""For cells and commands that can be run again: they go on with the run that they began."""

import re
from pathlib import Path

from config import ModelConfig, TrainConfig
from lab.data.packing import prepare
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.runs.text import find_tokenizer
from settings.errors import GlassboxError


def open_or_create(name: str, model: ModelConfig, train: TrainConfig, folder: Path | None = None) -> Run:
    """Opens the run of that name, or name-2, name-3, ..., that has these settings and this text; else creates one.

    Its `remark` says which. Raises the errors of `Run.create`.
    """
    data = prepare(train.data, find_tokenizer(train.data.tokenizer, Run.open_teacher(train, folder)))
    numbered = re.compile(rf"{re.escape(name)}(-\d+)?")
    model = model.settled(data.tokenizer.vocab_size)
    for taken in filter(numbered.fullmatch, run_names(folder)):
        try:
            run = Run.open(taken, folder)
            run.check_data(data)
        except GlassboxError:  # damaged, or of another text: it can't go on
            continue
        if (run.model_config, run.train_config) == (model, train.settled()):
            run.remark = f"{run.name!r} has these settings: {run.status()}"
            return run
    return Run.create(name, model, train, folder, numbered=True)
