"""Alternating measurements and their table."""

import time
from collections.abc import Callable
from statistics import median


def alternate(contestants: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each call, round by round, so that a slow minute of the machine hits all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + rounds):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def table(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table under its title."""
    lines = [f"\n### {title}\n", "| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def ratios(seconds: dict[str, list[float]], against: str) -> dict[str, float]:
    """How many times as fast as `against` each is: the median over rounds of the ratio within a round."""
    return {name: median(b / a for a, b in zip(times, seconds[against])) for name, times in seconds.items()}
