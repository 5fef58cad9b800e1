"""Names and paths that no file system takes, wherever they enter: an error that says so, and nothing is touched."""

import os

import pytest

from lab.comparison.comparison import compare
from lab.runs.listing import delete_run, list_runs
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.runs.settings import starting_settings
from lab.sharing import export_run, import_run
from lab.terminal import main
from settings.errors import GlassboxError
from tests.helpers.small_runs import make_run

BAD = ["x" * 300, "x" * 5000, "a\0b", "\ud800", "x/" * 3000, "a\nb"]


@pytest.fixture
def run(tmp_path, seeded, monkeypatch):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    return make_run(tmp_path / "trained", "one")


CALLS = {
    "open": lambda run, bad: Run.open(bad),
    "compare": lambda run, bad: compare(bad),
    "compare several": lambda run, bad: compare(["one", bad]),
    "delete": lambda run, bad: delete_run(bad, confirm=bad),
    "export": lambda run, bad: export_run(run, os.path.join(bad, "one.zip")),
    "import": lambda run, bad: import_run(bad),
    "import under a name": lambda run, bad: import_run(export_run(run, run.folder.parent / "one.zip"), name=bad),
    "start": lambda run, bad: starting_settings(bad),
    "export a table": lambda run, bad: compare("one").export(os.path.join(bad, "table.csv")),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", BAD, ids=["long", "longer", "nul", "surrogate", "deep", "newline"])
def test_no_such_name_or_path(run, tmp_path, monkeypatch, call, bad):
    monkeypatch.chdir(tmp_path)
    if bad == "a\nb" and call in ("export", "export a table"):
        bad = "a\0\nb"  # some file systems take a line's end
    with pytest.raises(GlassboxError) as told:
        CALLS[call](run, bad)
    assert str(told.value).encode("utf-8") and len(str(told.value)) < 3000
    assert run_names() == ["one"]


COMMANDS = [
    ["resume", "{}"], ["generate", "{}"], ["evaluate", "{}"], ["evaluate", "one", "--text", "{}"], ["compare", "{}"],
    ["compare", "one", "--export", "{}.csv"], ["find-rate", "{}"], ["sweep", "{}"], ["export", "{}"],
    ["export", "one", "--file", "{}"], ["import", "{}"], ["runs", "--delete", "{}", "--confirm", "{}"],
    ["train", "--like", "{}"], ["train", "--name", "{}", "--train.data.tokenizer", "byte"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("bad", ["x" * 5000, "a\0b", "\udce4"], ids=["long", "nul", "undecoded"])
def test_a_command_with_such_a_name_says_so_in_one_message(run, tmp_path, monkeypatch, capsys, command, bad):
    monkeypatch.chdir(tmp_path)
    assert main([part.replace("{}", bad) for part in command]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error and error.encode("utf-8")
    assert run_names() == ["one"] and list(list_runs().index) == ["one"]
