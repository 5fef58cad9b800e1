"""A cell or a command that can be run again: it goes on with the run that it began, if there is one."""

import re
from pathlib import Path

from config import ModelConfig, TrainConfig
from lab.data.packing import prepare
from lab.runs.names import run_names
from lab.runs.run import Run
from settings.errors import GlassboxError


def open_or_create(name: str, model: ModelConfig, train: TrainConfig, folder: Path | None = None) -> Run:
    """The run of that name, numbered ones included, that has these settings and this text, begun or finished; else a
    new one, numbered where the name is taken. Its `remark` says which.

    Raises what `Run.create` raises.
    """
    data, numbered = prepare(train.data), re.compile(rf"{re.escape(name)}(-\d+)?")
    for taken in filter(numbered.fullmatch, run_names(folder)):
        try:
            run = Run.open(taken, folder)
            run.check_data(data)
        except GlassboxError:  # damaged, or of another text: nothing to go on with
            continue
        if (run.model_config, run.train_config) == (model, train.settled()):
            run.remark = f"{run.name!r} has these settings: {run.status()}"
            return run
    return Run.create(name, model, train, folder, numbered=True)
