"""Signals while a training runs, and after it has ended."""

import signal
import threading

import pytest

from lab.training.stopping import stop_after_step


def test_ended_by_another_thread_signals_have_their_usual_effect_again():
    before = signal.getsignal(signal.SIGINT)
    steps = stop_after_step(threading.Event())
    steps, stopping = stop_after_step(threading.Event()), None
    try:
        stopping = steps.__enter__()
        closer = threading.Thread(target=steps.__exit__, args=(None, None, None))
        closer.start()
        closer.join()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not stopping.is_set() and signal.getsignal(signal.SIGINT) is before
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, before if number == signal.SIGINT else signal.SIG_DFL)
