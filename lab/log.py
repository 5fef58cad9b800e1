"""The log of a run: one CSV row per step, written before anything is drawn."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from config import RunError
from lab.files import atomic_write_text

if TYPE_CHECKING:
    from lab.training import Step

COLUMNS = (
    "step", "tokens", "seconds", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "memory",
)  # fmt: skip


class LogWriter:
    """Appends rows to a run's log_data.csv; rows after `keep_steps` belong to steps that will be done again."""

    def __init__(self, path: Path, keep_steps: int):
        self.path = path
        if path.exists():
            kept = [row for row in _whole_rows(path) if row[0] == "step" or int(row[0]) <= keep_steps]
            atomic_write_text(path, _as_csv(kept))

    def write(self, record: "Step") -> None:
        """One row, on disk when this returns; other losses of the architecture are columns of their own."""
        values = [getattr(record, column) for column in COLUMNS] + list(record.others.values())
        rows = [values] if self.path.exists() else [[*COLUMNS, *record.others], values]
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_as_csv(rows))
        except OSError as error:
            raise RunError(f"can't write {self.path}: {error.strerror}; free space or mend its permissions") from error


def _whole_rows(path: Path) -> list[list[str]]:
    """All rows but a last one that a crash cut short."""
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [row for row in csv.reader(io.StringIO(whole)) if row]


def _as_csv(rows: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue()
