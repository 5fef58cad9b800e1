"""The logs of a run: CSV files with rows by step."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.files.atomic import atomic_write_text
from lab.files.reading import reading
from lab.runs.log_table import COLUMNS, REMEDY, check_rows
from settings.errors import RunError
from settings.messages import short

if TYPE_CHECKING:
    from lab.training.step import Step


class StepLog:
    """Appends rows whose first value is the step to a CSV file; without rows there is no file.

    Rows after `keep_steps` belong to steps that will be done again: opening the log deletes them.
    every_step: whether each step must have a row; then RunError is raised if one up to `keep_steps` is missing. It is
    also raised for a file that is no such table, which stays as it was.
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
        """Writes the rows to disk, under a header of `columns` if they are the first."""
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
        """Appends a step to log_data.csv; each further loss of the architecture, and each source's share of a mixture,
        has its own column."""
        values, more = [getattr(record, column) for column in COLUMNS], record.others | record.shares
        self.append([*COLUMNS, *more], [[*values, *more.values()]])


def _whole_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and all whole rows: a crash may have cut the last one. Raises RunError if it is no UTF-8 table."""
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
