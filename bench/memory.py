"""The most memory that a process needs for training steps."""

import threading
from collections.abc import Callable

import psutil


def peak_of_steps(build: Callable[[], Callable[[], object]]) -> float:
    """MB at most resident while this process builds something and takes three steps with it, less what was before."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    step = build()
    for _ in range(3):
        step()
    done.set()
    watcher.join()
    return (peak - before) / 1e6
