"""What all sections share: processes whose failure becomes a cell of a table."""

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from bench.timing import apart


class Failure(NamedTuple):
    """Why there is no number."""

    why: str


def attempt(function: Callable, *arguments):
    """What function(*arguments) returns, or its Failure."""
    try:
        return function(*arguments)
    except Exception as error:  # a card is lent for minutes: the other numbers of this call must still be printed
        return Failure(f"{type(error).__name__}: {' '.join(str(error).split()):.160}")


def attempt_apart(function: Callable, *arguments):
    """The same in a new process."""
    return attempt(apart, function, *arguments)


def attempt_together(function: Callable, cases: Iterable[tuple], processes: int) -> list:
    """The same for many cases, several at a time, each in a new process: for what is not timed."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(attempt, function, *case) for case in cases]
        return [attempt(future.result) for future in futures]


def cell(value, form: str) -> str:
    """A number as a table shows it; a failure in words."""
    return value.why if isinstance(value, Failure) else format(value, form)
