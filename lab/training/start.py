"""For cells and commands that can be run again: they go on with the run that they began."""

import re
from collections.abc import Callable
from pathlib import Path

from config import ModelConfig, TrainConfig
from lab.data.packing import prepare
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.runs.text import find_tokenizer, with_commits_of
from settings.errors import GlassboxError


def open_or_create(
    name: str, model: ModelConfig, train: TrainConfig, folder: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Opens the run of that name, or name-2, name-3, ..., that has these settings and this text; else creates one.

    Its `remark` says which. tell: hears how far the data is, while a set of the hub is read. Raises the errors of
    `Run.create`.
    """
    tokenizer = find_tokenizer(train.data.tokenizer, Run.open_teacher(train, folder))
    numbered = re.compile(rf"{re.escape(name)}(-\d+)?")
    model = model.settled(tokenizer.vocab_size)
    for taken in filter(numbered.fullmatch, run_names(folder)):
        try:
            run = Run.open(taken, folder)
            wanted = train.replace(data=with_commits_of(run, train.data)).settled(model)
            if (run.model_config, run.train_config) != (model, wanted):
                continue
            run.check_data(prepare(wanted.data, tokenizer, tell=tell))
        except GlassboxError:  # damaged, or of another text: it can't go on
            continue
        run.remark = f"{run.name!r} has these settings: {run.status()}"
        return run
    return Run.create(name, model, train, folder, numbered=True, tell=tell)
