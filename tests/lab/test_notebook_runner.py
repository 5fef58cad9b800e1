"""`python tools.py notebook`: parameters, what is no notebook, streams of words, and signals that end it early."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from lab.notebooks import NotebookError, assigned_names, run_notebook
from lab.runs.run import Run
from lab.terminal import main
from lab.training.loop import train
from settings.paths import ROOT
from tests.helpers.small_notebooks import a_notebook

TRAINING = """\
import sys
sys.path.insert(0, {root!r})
from config import DataConfig, ModelConfig, TrainConfig
from tools import Run, live, train
model = ModelConfig(vocab_size=257, context_length=8, n_layers=1, n_heads=2, width=8)
data = DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3)
config = TrainConfig(data=data, steps=100_000, batch_size=2, evaluation_tokens=64, precision="fp32", compile="off")
run = Run.create("one", model, config, folder={folder!r})
for step in live(train(run), run):
    pass
"""


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_training_with_a_line_and_keeps_the_run(tmp_path, number, status):
    source = TRAINING.format(root=str(ROOT), folder=str(tmp_path))
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", source, "print('the next cell')")
    command = [sys.executable, "tools.py", "notebook", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    log = tmp_path / "one" / "log_data.csv"
    while not log.exists() and process.poll() is None:
        time.sleep(0.05)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == status, said
    assert "Traceback" not in said and "the next cell" not in said
    assert "n.ipynb was stopped in cell 2 of 3; a training that ran is kept" in said
    assert kernels and not any(kernel.is_running() for kernel in kernels)
    run = Run.open(tmp_path / "one")
    done = run.steps_done()
    assert run.checkpoint_path.exists() and done >= 1 and run.card_path.exists()
    with contextlib.closing(train(run)) as resumed:
        assert next(resumed).step == done + 1


STUBBORN = """\
import time
while True:
    try:
        print("at work", flush=True)
        time.sleep(100)
    except KeyboardInterrupt:
        pass
"""


def test_a_second_signal_ends_a_cell_that_does_not_stop(tmp_path):
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", STUBBORN, "print('the next cell')")
    command = [sys.executable, "tools.py", "notebook", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    kernels = []
    for _ in range(2):
        assert process.stdout.readline() == "at work\n"
        kernels += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and said in ("", "at work\n"), said
    assert kernels and not any(kernel.is_running() for kernel in kernels)


def test_parameters_are_all_names_that_the_cell_assigns(tmp_path, capsys):
    source = "a, b = 1, 2\nfirst, *rest = [3, 4]\n(x, [y, z]) = 5, [6, 7]\nwidth: int = 8\ndeep = high = 9"
    names = {"a", "b", "first", "rest", "x", "y", "z", "width", "deep", "high"}
    assert assigned_names(source) == names
    assert assigned_names("settings['steps'] = 1\nmodel.width = 2\nif True:\n    hidden = 3") == set()
    path = a_notebook(tmp_path / "n.ipynb", source, "print(a, b, rest, width)")
    run_notebook(path, {"a": 10, "rest": [0], "width": 80})
    assert capsys.readouterr().out == "10 2 [0] 80\n"


@pytest.mark.parametrize("given", ["[1]", "5", '"steps"', "null", "{", '{"step": 1}', '{"steps": }', "[" * 5000])
def test_parameters_that_are_none_are_one_message(tmp_path, capsys, given):
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", "1 / 0")
    assert main(["notebook", str(path), "--parameters", given]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "ZeroDivision" not in said and "Traceback" not in said


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"5", b'{"nbformat": 4}', b'{"nbformat": 4, "cells": {}}', b'{"nbformat": 4, "cells": [1]}',
        b'{"nbformat": 3, "worksheets": []}', b"\xff\xfe{", b"[" * 100_000,
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "odd"}]}).encode(),
    ],
    ids=range(11),
)
def test_what_is_no_notebook_is_one_message(tmp_path, capsys, content):
    path = tmp_path / "n.ipynb"
    path.write_bytes(content)
    assert main(["notebook", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path} can't be read as a notebook: ")
    assert path.read_bytes() == content


def test_a_folder_and_a_missing_file_are_no_notebooks(tmp_path):
    for path in (tmp_path, tmp_path / "none.ipynb"):
        with pytest.raises(NotebookError, match="can't be read as a notebook"):
            run_notebook(path)


def test_a_text_printed_word_by_word_stays_one_text(tmp_path):
    source = "import time\nfor word in ['Once', ' there', ' was']:\n  print(word, end='', flush=True); time.sleep(0.1)"
    path = a_notebook(tmp_path / "n.ipynb", "steps = 5", source)
    run_notebook(path, keep_outputs=True)
    (output,) = nbformat.read(path, as_version=4).cells[1].outputs
    assert output.text == "Once there was"
