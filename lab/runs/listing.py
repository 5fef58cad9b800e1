"""All runs of a folder as a table, and deleting one of them."""

import math
import os
from pathlib import Path

import pandas as pd

from lab.runs.classifier_record import CLASSIFIER_WEIGHTS, is_classifier, read_record
from lab.runs.idea_source import IdeaNeeded
from lab.runs.lock import delete_held
from lab.runs.names import check_name, no_run, run_names, runs_folder
from lab.runs.run import Run
from lab.runs.weights import check_shapes, read_header
from settings.errors import GlassboxError, RunError

COLUMNS = ["run", "status", "parameters", "data", "tokenizer", "tokens", "validation_loss"]


def list_runs(folder: Path | None = None) -> pd.DataFrame:
    """A row for each run; the row of a damaged run gives the reason."""
    return pd.DataFrame([_summary(name, folder) for name in run_names(folder)], columns=COLUMNS).set_index("run")


def _summary(name: str, folder: Path | None) -> dict:
    try:
        if is_classifier(runs_folder(folder) / name):
            return {"run": name} | _classifier_summary(runs_folder(folder) / name)
        run = Run.open(name, folder)
        row = {"run": name, "status": run.status()}
        row |= {"data": run.train_config.data.label, "tokenizer": run.tokenizer.name}
        if os.path.lexists(run.weights_path):
            row |= {"parameters": run.stored_parameters(), "validation_loss": run.validation_loss()}
            check_shapes(read_header(run.weights_path)[0], run.model_config, run.weights_path)
        if os.path.lexists(run.log_path) and row["status"] != "new":
            row["tokens"] = int(run.log()["tokens"].max())
        return row
    except IdeaNeeded as error:
        return {"run": name, "status": str(error).removeprefix(f"run {name!r} ")}
    except GlassboxError as error:
        return {"run": name, "status": f"damaged: {error}"}


def _classifier_summary(folder: Path) -> dict:
    """The row of a classifier: on which run it stands, and how often it was right on held-out texts."""
    record, origin = read_record(folder)
    shapes = read_header(folder / CLASSIFIER_WEIGHTS)[0]
    status = (
        f"classifier on {origin.run}, {100 * record.accuracy:.1f} % right (bag of words {100 * record.baseline:.1f} %)"
    )
    return {"status": status, "data": record.task, "parameters": sum(map(math.prod, shapes.values()))}


def delete_run(name: str, *, confirm: str, folder: Path | None = None) -> None:
    """Deletes the run's folder for good, if `confirm` repeats its name.

    Raises RunError for a link to a folder, which is not followed, for a run that is being trained, and if files can't
    be deleted.
    """
    if name not in run_names(folder):  # a copied folder may have a name that no new run can have
        check_name(name)
        raise no_run(name, runs_folder(folder))
    if confirm != name:
        raise RunError(f"to delete {name!r} for good, repeat its name: confirm={name!r}")
    path = runs_folder(folder) / name
    if path.is_symlink():
        raise RunError(f"{path} is a link to {path.resolve()}; delete the link itself, or the run in that folder")
    delete_held(path)
