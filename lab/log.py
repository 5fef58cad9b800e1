"""The logs of a run: CSV rows by step, written before anything is drawn."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from config import RunError
from lab.files import atomic_write_text

if TYPE_CHECKING:
    import pandas as pd

    from lab.training import Step

COLUMNS = (
    "step", "tokens", "seconds", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "memory",
)  # fmt: skip


class StepLog:
    """Appends rows whose first value is the step to a CSV file; a file without rows is none.

    Rows after `keep_steps` belong to steps that will be done again: they are cut off when the log is opened.
    """

    def __init__(self, path: Path, keep_steps: int):
        self.path = path
        if path.exists():
            header, kept = _whole_rows(path)[:1], [row for row in _whole_rows(path)[1:] if int(row[0]) <= keep_steps]
            if kept:
                atomic_write_text(path, _as_csv(header + kept))
            else:
                path.unlink()

    def append(self, columns: Sequence[str], rows: list[Sequence]) -> None:
        """The rows, on disk when this returns, under a header of `columns` if they are the first."""
        header = [] if self.path.exists() else [columns]
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_as_csv(header + rows))
        except OSError as error:
            raise RunError(f"can't write {self.path}: {error.strerror}; free space or mend its permissions") from error

    def write(self, record: "Step") -> None:
        """A row of log_data.csv; other losses of the architecture are columns of their own."""
        values = [getattr(record, column) for column in COLUMNS]
        self.append([*COLUMNS, *record.others], [[*values, *record.others.values()]])


def check_rows(name: str, rows: "pd.DataFrame", step: int = 0) -> None:
    """Raises RunError unless the rows are those of each step from 1 on, in order, at least to `step`.

    name: of the run, for the message.
    """
    steps, remedy = rows["step"].tolist(), "train it again, or restore the log from a copy"
    for before, after in zip([0, *steps], steps):
        if after <= before:
            raise RunError(f"log_data.csv of {name!r} is damaged: its steps don't rise from row to row; {remedy}")
        if after != before + 1:
            raise RunError(f"log_data.csv of {name!r} lost rows: step {after} follows step {before}; {remedy}")
    if len(steps) < step:
        raise RunError(f"log_data.csv of {name!r} lost rows: it ends at step {len(steps)} before {step}; {remedy}")


def _whole_rows(path: Path) -> list[list[str]]:
    """All rows but a last one that a crash cut short."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [row for row in csv.reader(io.StringIO(whole)) if row]


def _as_csv(rows: list[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
