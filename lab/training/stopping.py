"""Signals end a training after the step: Ctrl-C, and what a system sends that shuts down or closes the terminal."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_after_step(stopping: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C (SIGINT), SIGTERM and SIGHUP set the event instead of breaking in on a step.

    A second Ctrl-C interrupts at once, as ever. SIGTERM and SIGHUP take their usual effect at the end of the `with`,
    when everything is stored: mostly they end the process with status 128 + their number. A second one does so at
    once. SIGHUP stays ignored where it is, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # signals reach the main thread alone
        return
    previous = {number: signal.getsignal(number) for number in handled()}
    waiting: list[int] = []
    ended = threading.Event()

    def request_stop(number, frame):
        if ended.is_set():  # by another thread, which can't put the handlers back
            return deliver(number)
        if number == signal.SIGINT:
            if stopping.is_set():
                raise KeyboardInterrupt
        elif number in waiting:
            deliver(number)
        else:
            waiting.append(number)
        stopping.set()

    def deliver(number):
        signal.signal(number, previous[number])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        signal.raise_signal(number)

    for number in previous:
        signal.signal(number, request_stop)
    try:
        yield stopping
    finally:
        ended.set()
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)
        for number in waiting:
            end = deliver if threading.current_thread() is threading.main_thread() else signal.raise_signal
            end(number)


def handled() -> list[int]:
    """Ctrl-C in any case; the others where the platform has them, and where neither nohup nor a C library has them."""
    others = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [signal.SIGINT, *(number for number in others if signal.getsignal(number) not in (signal.SIG_IGN, None))]
