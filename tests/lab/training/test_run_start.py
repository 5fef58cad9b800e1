"""A cell that trains can be run again: after a stop, an interrupt or a change; and what happens is told."""

import signal

import nbformat
import pytest

from config import DataConfig, ModelConfig, TrainConfig
from lab.compute import training_state
from lab.costs.estimates import estimate
from lab.data.packing import prepare
from lab.evaluation.evaluate import evaluate
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.training import computing
from lab.training.live import live
from lab.training.loop import train
from lab.training.start import open_or_create
from settings.paths import ROOT

MODEL = ModelConfig(vocab_size=257, context_length=16, n_layers=1, n_heads=2, width=16)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=6, batch_size=4,
    evaluate_every=3, evaluation_tokens=128, sample_every=4, sample_tokens=3, device="cpu", compile="off",
)


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


def cell(folder, data, train_config=TRAIN, stop_after: int = 0) -> Run:
    """What the notebook's cell does."""
    run = open_or_create("mine", MODEL, train_config, folder)
    for step in live(train(run, data), run):
        if step.step == stop_after:
            break
    return run


def test_the_cell_goes_on_with_what_it_began(tmp_path, data, capsys):
    assert cell(tmp_path, data, stop_after=2).remark == ""
    capsys.readouterr()
    assert cell(tmp_path, data).steps_done() == 6
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "'mine' has these settings: stopped at step 2 of 6" and last.startswith("mine: finished 6 steps")
    assert cell(tmp_path, data).name == "mine" and run_names(tmp_path) == ["mine"]
    first, last = capsys.readouterr().out.splitlines()
    assert first == "'mine' has these settings: finished, 6 steps"
    assert last == "mine: finished, 6 steps; no step was taken"


def test_other_settings_make_a_numbered_run_that_is_gone_on_with_too(tmp_path, data, capsys):
    cell(tmp_path, data)
    capsys.readouterr()
    cell(tmp_path, data, TRAIN.replace(seed=1), stop_after=1)
    assert capsys.readouterr().out.startswith("'mine' is taken, so this run is 'mine-2'\n")
    assert cell(tmp_path, data, TRAIN.replace(seed=1)).name == "mine-2" and run_names(tmp_path) == ["mine", "mine-2"]


def test_another_text_is_not_gone_on_with(tmp_path):
    text = tmp_path / "own.jsonl"
    settings = TRAIN.replace(data=TRAIN.data.replace(source=str(text)))
    for i, word in enumerate(("one ", "two ")):
        lines = [f'{{"text": "{word * 40}{n}"}}' for n in range(60)]
        text.write_text("\n".join(lines), encoding="utf-8")
        assert open_or_create("mine", MODEL, settings, tmp_path / "runs").name == ("mine", "mine-2")[i]


def test_a_damaged_run_is_not_gone_on_with(tmp_path, data):
    damaged = cell(tmp_path, data, stop_after=1)
    (damaged.folder / "train_config.json").write_text("{", encoding="utf-8")
    assert open_or_create("mine", MODEL, TRAIN, tmp_path).name == "mine-2"
    assert open_or_create("min", MODEL, TRAIN, tmp_path).name == "min", "not the numbered ones of another name"


@pytest.mark.parametrize(
    "where, when",
    [(training_state, "build_model"), (training_state, "build_optimizer"), (computing, "choose")],
)
def test_an_interrupt_before_the_first_step_ends_in_a_line_and_a_run_to_go_on_with(
    tmp_path, data, monkeypatch, capsys, where, when
):
    whole = getattr(where, when)

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)  # as the toolbar's square
        return whole(*arguments)

    monkeypatch.setattr(where, when, interrupted)
    run = cell(tmp_path, data)
    assert capsys.readouterr().out.splitlines()[-1] == "mine: new; no step was taken"
    assert run.summary().splitlines()[1] == "validation loss: not measured"
    monkeypatch.setattr(where, when, whole)
    assert cell(tmp_path, data).steps_done() == 6 and run_names(tmp_path) == ["mine"]


@pytest.mark.parametrize("stop_after", [1, 2, 4, 0])
def test_the_last_cell_of_the_notebook_holds_for_a_run_stopped_anywhere(tmp_path, data, stop_after):
    """Before the first validation too, when there is no best one that the stored weights could be of."""
    run = cell(tmp_path, data, stop_after=stop_after)
    model = run.load_model()
    result = evaluate(model, data.validation, run.tokenizer, TRAIN.evaluation_tokens)
    names = {"run": run, "model": model, "result": result, "data": data, "train": train, "estimate": estimate}
    *_, last = nbformat.read(ROOT / "notebooks" / "train.ipynb", as_version=4).cells[:-1]
    assert "a row for every step" in last.source
    exec(last.source, names | {"steps": TRAIN.steps, "model_config": MODEL})


def test_a_training_tells_what_it_does(tmp_path, data, capsys):
    run, told = Run.create("mine", MODEL, TRAIN, tmp_path), []
    run.listener = told.append
    notes = []
    for step in train(run):
        told.append(step.step)
        notes.append(step.note)
    assert notes == [told[2], None, None, None, None, None], "how it computes, with the first step"
    start, end = told[:4], told[4:]
    assert start[:2] == ["reading the data", "measuring how long a step takes, in both precisions"]
    assert start[2].startswith("cpu, ") and "less than a minute for 6 steps" in start[2] and start[3] == "taking step 1"
    sample, validation = "writing a sample", "validating on held-out tokens"
    assert end == [1, 2, validation, 3, sample, 4, 5, validation, sample, 6, "storing the run", sample]
    assert capsys.readouterr().out == "", "a library function prints nothing"
