"""The logs of a run: CSV rows by step, written before anything is drawn."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from config import RunError, short
from lab.files import atomic_write_text
from lab.guarded import reading

if TYPE_CHECKING:
    from lab.training import Step

COLUMNS = (
    "step", "tokens", "seconds", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "memory",
)  # fmt: skip
REMEDY = "train it again, or restore the log from a copy"


def check_rows(name: str, steps: Iterable[int], reached: int = 0) -> None:
    """Raises RunError unless the rows are those of each step from 1 on, in order, at least to the one `reached`.

    name: of the run, for the message.
    """
    before = 0
    for step in steps:
        if step <= before:
            raise RunError(f"log_data.csv of {name!r} is damaged: its steps don't rise from row to row; {REMEDY}")
        if step != before + 1:
            raise RunError(f"log_data.csv of {name!r} lost rows: step {step} follows step {before}; {REMEDY}")
        before = step
    if before < reached:
        raise RunError(f"log_data.csv of {name!r} lost rows: it ends at step {before} before {reached}; {REMEDY}")


def check_numbers(where: str, column: pd.Series, whole: bool) -> None:
    """Raises RunError unless a log's column holds numbers, and whole ones where they must be; empty ones are NaN."""
    if not len(column) or (is_integer_dtype(column) if whole else is_numeric_dtype(column)):
        return
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0) if whole else numbers.isna() & column.notna()
    row = int(wrong.to_numpy().argmax())
    raise RunError(f"{where} is damaged: {column.name} is {short(column.tolist()[row])} in row {row + 1}; {REMEDY}")


class StepLog:
    """Appends rows whose first value is the step to a CSV file; a file without rows is none.

    Rows after `keep_steps` belong to steps that will be done again: they are cut off when the log is opened.
    every_step: whether each step has a row; then RunError is raised where one up to `keep_steps` is missing. It is also
    raised for a file that is no such table, and that file stays as it was.
    """

    def __init__(self, path: Path, keep_steps: int, *, every_step: bool = False):
        self.path = path
        header, rows = _whole_rows(path) if path.exists() else ([], [])
        kept = [row for row in rows if _step(row, header, path) <= keep_steps]
        self.header = header if kept else []
        if every_step:
            if kept and header[: len(COLUMNS)] != list(COLUMNS):
                raise RunError(f"{path.name} of {path.parent.name!r} must begin with {', '.join(COLUMNS)}; {REMEDY}")
            check_rows(path.parent.name, [int(row[0]) for row in kept], reached=keep_steps)
        try:
            if kept:
                atomic_write_text(path, _as_csv([header, *kept]))
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(_cannot_write(path, error)) from error

    def append(self, columns: Sequence[str], rows: list[Sequence]) -> None:
        """The rows, on disk when this returns, under a header of `columns` if they are the first."""
        if self.header and self.header != list(columns):
            raise RunError(
                f"{self.path.name} of {self.path.parent.name!r} has the columns {short(','.join(self.header))}, and "
                f"those of its rows now are {','.join(columns)}; {REMEDY}"
            )
        header = [] if self.path.exists() else [columns]
        self.header = list(columns)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_as_csv(header + rows))
        except OSError as error:
            raise RunError(_cannot_write(self.path, error)) from error

    def write(self, record: "Step") -> None:
        """A row of log_data.csv; other losses of the architecture are columns of their own."""
        values = [getattr(record, column) for column in COLUMNS]
        self.append([*COLUMNS, *record.others], [[*values, *record.others.values()]])


def _whole_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and all rows but a last one that a crash cut short. Raises RunError where it is no UTF-8 table."""
    with reading(path):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        rows = [row for row in csv.reader(io.StringIO(whole.decode("utf-8"))) if row]
    return (rows[0], rows[1:]) if rows else ([], [])


def _step(row: list[str], header: list[str], path: Path) -> int:
    if len(row) != len(header) or not (row[0].isascii() and row[0].isdecimal() and len(row[0]) < 16):
        raise RunError(
            f"{path.name} of {path.parent.name!r} is damaged: {short(','.join(row))} is no row of its columns; {REMEDY}"
        )
    return int(row[0])


def _cannot_write(path: Path, error: OSError) -> str:
    if not path.parent.is_dir():
        return f"{path.parent} is gone: the run was deleted or moved while it trained; make a new one"
    return f"can't write {path}: {error.strerror}; free space or mend its permissions"


def _as_csv(rows: list[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
