"""Measurements in processes of their own: new ones, in turn; and the ratios that tables show."""

import os

import pytest

from bench.gpu.sections import Failure, attempt_apart, cell
from bench.timing import in_turn, ratios, seconds_per_call


def note(file: str, name: str) -> int:
    """Adds a line to the file, and tells which process did so."""
    with open(file, "a", encoding="utf-8") as out:
        out.write(f"{name}\n")
    return os.getpid()


def test_the_rounds_alternate_and_each_measurement_has_a_new_process(tmp_path):
    file = str(tmp_path / "order.txt")
    found = in_turn(note, {name: (file, name) for name in "AB"}, rounds=2)
    assert (tmp_path / "order.txt").read_text().split() == ["A", "B", "A", "B"]
    assert len({os.getpid(), *found["A"], *found["B"]}) == 5


def test_ratios_are_taken_within_a_round():
    """The second round was slow for both: what counts is 2, 2, 4 and not the ratio of medians."""
    found = ratios({"other": [2.0, 20.0, 4.0], "ours": [1.0, 10.0, 1.0]}, "other")
    assert found == {"other": 1.0, "ours": 2.0}


def test_a_call_is_warmed_up_and_repeated():
    calls = []
    assert seconds_per_call(lambda: calls.append(1)) > 0
    assert len(calls) > 6


def test_a_failure_in_a_process_is_told_in_a_cell():
    failure = attempt_apart(note, "/no/such/folder/file", "A")
    assert isinstance(failure, Failure)
    assert cell(failure, ".1f").startswith("FileNotFoundError: ") and cell(12.34, ".1f") == "12.3"


@pytest.mark.parametrize("words, message", [
    (["nothing"], "unknown benchmark nothing"), (["gpu", "nothing"], "unknown section nothing"),
    (["shakespeare"], "usage: python -m bench shakespeare FILE"),
    (["shakespeare", "no.txt"], "no.txt can't be read"),
])
def test_a_wrong_command_says_what_there_is(capsys, words, message):
    from bench.__main__ import main

    assert main(words) == 2
    assert message in capsys.readouterr().err
