"""The command `classify`."""

import json
import os

import pytest

from lab.runs.names import run_names
from lab.terminal import main
from tests.helpers.small_runs import make_run

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run named "base" among the runs of this test alone, and a table of animals."""
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    make_run(tmp_path / "trained", "base")
    rows = [{"text": f"{i} {'cat' if i % 2 else 'dog'}", "label": "cat" if i % 2 else "dog"} for i in range(60)]
    (tmp_path / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_trains_saves_lists_and_classifies(folder, capsys):
    table = str(folder / "animals.jsonl")
    assert main(["classify", "base", "--task", table, "--full", "True", "--steps", "20", "--name", "pets"]) == 0
    said = capsys.readouterr().out
    assert "step 20 of 20: loss" in said and "bag of words: " in said and "saved as pets;" in said
    assert main(["classify", "pets", "--text", "7 cat"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("'7 cat': ") and said.count(" %  ") == 2
    assert main(["runs"]) == 0
    assert "classifier on base, " in capsys.readouterr().out
    assert main(["runs", "--delete", "pets", "--confirm", "pets"]) == 0
    assert run_names(folder / "trained") == ["base"]


@pytest.mark.parametrize("arguments, message", [
    (["base"], "give --task to train a classifier on a run, or --text"),
    (["base", "--task", "prose-or-code", "--text", "x"], "give --task to train a classifier on a run, or --text"),
    (["base", "--text", "x", "--steps", "5"], "with --text a classifier is only read"),
    (["base", "--text", "x"], "'base' is no classifier"),
    (["base", "--task", "prose"], "unknown task 'prose'; choose from: pronoun-in-tale, prose-or-code, tale-of-probe"),
    (["nobody", "--task", "TABLE"], "no run 'nobody'"),
    (["base", "--task", "TABLE", "--name", "base"], "a run named 'base' exists"),
    (["base", "--task", "TABLE", "--label-field", "kind"], "has no column 'kind' of labels"),
    (["base", "--task", "TABLE", "--max-tokens", "10000"], "is more than the"),
])
def test_what_cannot_be_done_is_one_message_and_writes_nothing(folder, capsys, arguments, message):
    table = str(folder / "animals.jsonl")
    assert main(["classify", *(table if argument == "TABLE" else argument for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert os.listdir(folder / "trained") == ["base"]
