"""The terminal in other surroundings: other encodings, closed pipes, no packages, root; and bad arguments."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys

import nbformat
import pytest

from config import preset
from lab import terminal
from lab.comparison.overrides import overridden
from lab.runs.names import LONGEST_NAME, check_name, run_names
from lab.runs.run import Run
from lab.terminal import main, parse_training
from lab.terminal_training import default_name
from settings.errors import ConfigError
from settings.paths import ROOT


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenizer", "bpe-2048", "--text", "“−≈│”"],
        ["generate", "llama-tiny-tales", "gpt2-tiny-tales", "--max-tokens", "2"],
        ["generate", "llama-tiny-tales", "--prompt", "≈", "--max-tokens", "1"],
        ["compare", "llama-tiny-tales", "gpt2-tiny-tales"],
    ],
)
def test_an_output_without_our_signs_gets_question_marks(monkeypatch, encoding, arguments):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert main(arguments) == 0
    assert written.getvalue().decode(encoding)


def test_a_closed_pipe_ends_a_command_as_the_signal_would():
    command = [sys.executable, "tools.py", "tokenizer"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_python_without_the_packages_is_told_which_one_has_them():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", "tools.py", "runs"], cwd=ROOT, env=environment, capture_output=True)
    said = done.stderr.decode()
    assert done.returncode == 1 and said.startswith("error: ") and ".venv/bin/python tools.py" in said
    assert said.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no root")
@pytest.mark.parametrize("user", [0, 1000])
def test_jupyterlab_as_root_gets_the_flag_that_it_asks_for(monkeypatch, capsys, user):
    called = []
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: called.append(command) or subprocess.CompletedProcess(
        command, 0))
    with pytest.raises(SystemExit):
        main(["lab"])
    assert ("--allow-root" in called[0]) == ("--allow-root" in capsys.readouterr().out) == (user == 0)


@pytest.mark.parametrize(
    "source, name",
    [
        ("tales", "llama-tiny-tales"),
        ("my texts/Grüße an Zoë.txt", "llama-tiny-Gru-e-an-Zoe"),
        ("texts/*.txt", "llama-tiny"),
        ("文章", "llama-tiny"),
        (".", "llama-tiny"),
        ("a" * 300, "llama-tiny-" + "a" * 64),
    ],
)
def test_any_source_gives_a_run_a_name(source, name):
    assert default_name("llama-tiny", source) == default_name("somewhere/llama-tiny", source) == name
    check_name(name)
    assert len(f"{name}-9999") <= LONGEST_NAME


def test_the_vocabulary_follows_the_tokenizer_unless_it_is_given():
    for flags, expected in {
        ("--train.data.tokenizer", "character"): 333,
        ("--train.data.tokenizer=byte",): 257,
        ("--train.data.tokenizer", "bpe-512", "--model.vocab-size", "640"): 640,
        ("--preset", "gpt2-124m", "--train.data.tokenizer", "bpe-1024"): 1024,
        ("--like", "llama-tiny-tales", "--train.data.tokenizer", "bpe-512"): 512,
        ("--like", "llama-tiny-tales"): 1024,
    }.items():
        assert parse_training(list(flags)).model.vocab_size == expected
    changes = [{"train.data.tokenizer": "byte"}, {"train.data.tokenizer": "byte", "model.vocab_size": 384}, {}]
    variants = overridden(preset("llama-tiny"), changes)
    assert [variant.model.vocab_size for variant in variants.values()] == [257, 384, 2048]


def test_what_was_not_asked_for_is_clipped_and_what_was_is_refused(capsys):
    assert main(["generate", "gpt2-tiny-tales", "--prompt", "Once there was a girl " * 8]) == 0
    assert main(["generate", "gpt2-tiny-tales", "--max-tokens", "200"]) == 1
    assert "lower max_tokens to 125" in capsys.readouterr().err
    assert main(["generate", "gpt2-tiny-tales", "--prompt", "Once there was a girl " * 40]) == 1
    assert "shorten the prompt below 128 tokens" in capsys.readouterr().err


BAD = {
    "NUL": "a\0b", "long": "x" * 300, "folder": ".", "missing": "no/such/thing", "empty": "", "surrogate": "\udcff",

}
TAKERS = {
    "train source": ["--train.data.source"], "train like": ["--like"], "train preset": ["--preset"], "resume": [],
    "data": [], "data preset": ["--preset"], "data encoding": ["n.ipynb", "--encoding"],
    "generate": [], "generate prompts": ["llama-tiny-tales", "--prompts"], "sampling": [],
    "evaluate": [], "evaluate text": ["llama-tiny-tales", "--text"], "compare": [],
    "find-rate": [], "sweep": [], "runs delete": ["--delete"], "export": [], "import": [],
    "import name": ["binary.bin", "--name"], "tokenizer": [], "notebook": [],
    "notebook parameters": ["n.ipynb", "--parameters"],
}


@pytest.mark.parametrize("argument", BAD.values(), ids=BAD)
def test_a_bad_argument_is_one_message(monkeypatch, tmp_path, capsys, argument):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    here = tmp_path / "here"  # a notebook is a text, so the cache is beside it
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "binary.bin").write_bytes(b"\xff\xfe\0\1")
    nbformat.write(nbformat.v4.new_notebook(), here / "n.ipynb")
    before, runs = sorted(here.iterdir()), run_names()
    for taker, flags in TAKERS.items():
        try:
            status = main([taker.split()[0], *flags, argument])
        except SystemExit as end:
            status = end.code
        said = capsys.readouterr().err
        assert status in (1, 2) and "Traceback" not in said, f"{taker} {argument!r}"
        assert status == 2 or (said.startswith("error: ") and said.endswith("\n")), f"{taker} {argument!r}: {said}"
    assert sorted(here.iterdir()) == before and run_names() == runs


@pytest.mark.parametrize("name", ["", "a b", "x" * 300, "con", "-", "\udcff"])
def test_a_bad_name_is_refused_before_anything(monkeypatch, capsys, name):
    def none(*_, **__):
        raise AssertionError("nothing is prepared for a bad name")

    monkeypatch.setattr("lab.runs.run.prepare", none)
    assert main(["train", f"--name={name}"]) == 1
    assert re.search("can't be a (run's )?name", capsys.readouterr().err)


def test_an_error_of_the_system_is_one_message(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device", "card.png")

    monkeypatch.setattr(Run, "open", full)
    assert main(["resume", "any"]) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'card.png'\n"


def test_nothing_is_asked_of_a_command_with_nul():
    with pytest.raises(ConfigError, match="NUL"):
        terminal.run_command(["runs", "\0"])


def test_the_terminal_works_without_a_home_and_in_a_folder_with_a_blank(tmp_path):
    place = tmp_path / "my tools"
    for name in ("settings", "tracing", "modules", "lab", "tokenizers"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config.py", "tools.py"):
        shutil.copy(ROOT / name, place)
    tiny = "--model.n-layers 1 --model.width 8 --model.n-heads 2 --model.context-length 8 --train.steps 2"
    data = "--train.data.tokenizer byte --train.data.max-documents 60 --train.data.validation-fraction 0.3"
    rest = "--name tiny --train.batch-size 2 --train.evaluation-tokens 64 --train.precision fp32 --train.compile off"
    for arguments, expected in {
        "runs": "no runs yet", "cache": "", "tokenizer byte": "1.00 bytes per token",
        f"train {tiny} {data} {rest}": "finished, 2 steps",
    }.items():
        command = [sys.executable, "tools.py", *arguments.split()]
        bare = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "OMP_NUM_THREADS") if name in os.environ}
        if arguments.startswith("train"):
            bare["GLASSBOX_CACHE"] = str(tmp_path / "cache")
        done = subprocess.run(command, cwd=place, env=bare, capture_output=True, encoding="utf-8", errors="replace")
        assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr
    assert (place / "trained" / "tiny" / "model.safetensors").exists()
