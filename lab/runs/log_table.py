"""The columns of a run's log, and checks of what its rows hold."""

from collections.abc import Iterable

import pandas as pd
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from settings.errors import RunError
from settings.messages import short

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
