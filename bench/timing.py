"""Measurements in processes of their own, in turn, and their table.

In one process the contestants would share an allocator, caches and threads, and slow each other: a step that makes
70,000 tokens a second alone made 25,000 beside five others. So every measurement starts a process, which builds one
contestant, warms up and is timed. Idle workers that are asked in turn would save the start, but keep their memory and
whatever luck they started with; a new process each round averages over that too.
"""

import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import median

WARMUP, LEAST, MOST, SECONDS, GROUP = 3, 3, 9, 3.0, 0.1


def apart(function: Callable, *arguments):
    """What function(*arguments) returns or raises, in a new process. All must be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_turn(measure: Callable, cases: Mapping[str, tuple], rounds: int = 3) -> dict[str, list]:
    """What measure(*arguments) returns for each case, round by round, each time in a new process.

    The rounds alternate, so that a slow minute of the machine hits all cases alike.
    """
    found: dict[str, list] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, arguments in cases.items():
            found[name].append(apart(measure, *arguments))
    return found


def time_in_turn(build: Callable, cases: Mapping[str, tuple], rounds: int = 3) -> dict[str, list[float]]:
    """The seconds of a call of what build(*arguments) makes, for each case and round. See `in_turn`."""
    return in_turn(partial(build_and_time, build), cases, rounds)


def build_and_time(build: Callable, *arguments) -> float:
    return seconds_per_call(build(*arguments))


def seconds_per_call(call: Callable[[], object]) -> float:
    """The median seconds of a call, after WARMUP calls.

    Short calls are timed in groups that take GROUP seconds. There are up to MOST groups within SECONDS, and at least
    LEAST. Each group ends when the GPU has done its work.
    """
    for _ in range(WARMUP):
        once = time_of(call, 1)
    size = max(1, round(GROUP / once))
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) * size < SECONDS):
        seconds.append(time_of(call, size) / size)
    return median(seconds)


def time_of(call: Callable[[], object], times: int) -> float:
    """The seconds of so many calls, one after the other."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch = sys.modules.get("torch")  # what does not compute with it need not load it
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def table(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table under its title."""
    lines = [f"\n### {title}\n", "| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def ratios(seconds: Mapping[str, list[float]], against: str) -> dict[str, float]:
    """How many times as fast as `against` each is: the median over rounds of the ratio within a round."""
    return {name: median(b / a for a, b in zip(times, seconds[against])) for name, times in seconds.items()}
