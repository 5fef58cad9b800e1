"""Reading the logs of a run, and checks of their rows."""

import io
from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from lab.files.reading import reading
from settings.errors import RunError
from settings.messages import short

COLUMNS = (
    "step", "tokens", "seconds", "loss", "validation_loss", "learning_rate", "gradient_norm", "tokens_per_second",
    "memory",
)
WHOLE, TEXTS = ("step", "tokens"), ("layer", "kind")  # columns of whole numbers, and of words
REMEDY = "train it again, or restore the log from a copy"


def read_rows(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """The whole lines of a log; a last line that a crash cut short is left out.

    Raises RunError if they are no table, if one of `columns` is missing, or if a value is no number.
    """
    where = f"{path.name} of {path.parent.name!r}"
    with reading(path):
        text = path.read_bytes()
        rows = pd.read_csv(io.BytesIO(text[: text.rfind(b"\n") + 1]))
        missing = set(columns) - set(rows.columns)
        if missing:
            raise RunError(f"{where} lacks the columns {', '.join(sorted(missing))}")
        for column in [name for name in rows if name not in TEXTS]:
            check_numbers(where, rows[column], whole=column in WHOLE)
        return rows


def check_rows(run: str, steps: Iterable[int], reached: int = 0) -> None:
    """Raises RunError unless there is a row for each step from 1 on, in order, at least up to the step `reached`.

    run: its name, for the message.
    """
    before = 0
    for step in steps:
        if step <= before:
            raise RunError(f"log_data.csv of {run!r} is damaged: its steps don't rise from row to row; {REMEDY}")
        if step != before + 1:
            raise RunError(f"log_data.csv of {run!r} lost rows: step {step} follows step {before}; {REMEDY}")
        before = step
    if before < reached:
        raise RunError(f"log_data.csv of {run!r} lost rows: it ends at step {before} before {reached}; {REMEDY}")


def check_numbers(where: str, column: pd.Series, whole: bool) -> None:
    """Raises RunError unless a log's column holds numbers, whole ones if `whole`; empty fields are NaN."""
    if not len(column) or (is_integer_dtype(column) if whole else is_numeric_dtype(column)):
        return
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0) if whole else numbers.isna() & column.notna()
    row = int(wrong.to_numpy().argmax())
    raise RunError(f"{where} is damaged: {column.name} is {short(column.tolist()[row])} in row {row + 1}; {REMEDY}")
