"""Signals that end a training after the current step: Ctrl-C, and those sent at a shutdown or a closed terminal."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_after_step(stopping: threading.Event) -> Iterator[threading.Event]:
    """Inside the `with`, Ctrl-C (SIGINT), SIGTERM and SIGHUP set the event instead of interrupting a step.

    A second Ctrl-C interrupts at once. SIGTERM and SIGHUP take their usual effect at the end of the `with`, when
    everything is stored: usually they end the process with status 128 + their number. A second one does so at once.
    SIGHUP stays ignored if it is ignored already, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # only the main thread receives signals
        return
    previous = {number: signal.getsignal(number) for number in handled()}
    waiting: list[int] = []
    ended = threading.Event()

    def request_stop(number, frame):
        if ended.is_set():  # another thread ended the `with`, and it can't restore the handlers
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
    """SIGINT; the others if the platform has them, and neither nohup nor a C library has set a handler."""
    others = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [signal.SIGINT, *(number for number in others if signal.getsignal(number) not in (signal.SIG_IGN, None))]
