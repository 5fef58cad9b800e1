"""Trainings on several sources: their shares in the log, in the card, and after a stop."""

import json
import shlex

import numpy as np
import pytest

from config import DataConfig
from lab.compute.mixture_preview import mixture_preview
from lab.data.memory import register_texts
from lab.data.mixture import mixture_weights, rows_before
from lab.runs.run import Run
from lab.runs.text import RunText
from lab.sharing import export_run, import_run
from lab.terminal_training import parse_training
from lab.training.loop import train
from settings.errors import ConfigError, DataError, RunError
from settings.mixture import MixtureConfig
from tests.helpers.small_trainings import TRAIN, assert_same, new_run

MIXTURE = MixtureConfig(sources=("tales", "pydocs"), start=(1, 0), end=(1, 3), transition="step", jumps=2)
DATA = DataConfig(mixture=MIXTURE, tokenizer="byte", max_documents=60, validation_fraction=0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    run = new_run(tmp_path_factory.mktemp("whole"), data=DATA)
    list(train(run))
    return run


def test_the_log_has_the_share_of_each_source_in_every_batch(whole):
    log, names = whole.log(), ["share of tales", "share of pydocs"]
    rows = np.diff(rows_before(MIXTURE, TRAIN.steps, TRAIN.batch_size), axis=0)
    assert log[names].to_numpy().tolist() == (rows / TRAIN.batch_size).tolist()
    planned = mixture_weights(MIXTURE, TRAIN.steps).mean(axis=0)
    assert log[names].mean().to_numpy() == pytest.approx(planned, abs=1 / (TRAIN.steps * TRAIN.batch_size))


def test_the_run_shows_its_sources(whole):
    card = whole.card_path.read_text(encoding="utf-8")
    assert "trained on tales + pydocs" in card and "![share of each source by step](mixture.png)" in card
    assert "tales from 100 to 25 %, pydocs from 0 to 75 %" in card
    assert (whole.folder / "mixture.png").read_bytes()[:4] == b"\x89PNG" and whole.is_finished()
    (whole.folder / "mixture.png").rename(whole.folder / "gone.png")
    assert not Run.open(whole.folder).is_finished(), "a picture is missing"
    (whole.folder / "gone.png").rename(whole.folder / "mixture.png")


def test_the_cards_command_gives_the_same_settings(whole):
    command = whole.card_path.read_text(encoding="utf-8").rpartition("```\n")[0].rpartition("```\n")[2]
    found = parse_training(shlex.split(command)[3:])
    assert found.train.settled(found.model) == whole.train_config and found.model == whole.model_config


@pytest.mark.parametrize("at", [1, 7])
def test_stopped_and_resumed_is_the_same_as_uninterrupted(tmp_path, whole, at):
    run = new_run(tmp_path, data=DATA)
    for step in train(run):
        if step.step == at:
            break
    list(train(Run.open(run.folder)))
    assert_same(Run.open(run.folder), whole)


def test_the_number_of_steps_is_fixed_because_the_weights_move_over_them(tmp_path):
    run = new_run(tmp_path, data=DATA)
    for step in train(run):
        if step.step == 3:
            break
    settings = json.loads((run.folder / "train_config.json").read_text(encoding="utf-8"))
    (run.folder / "train_config.json").write_text(json.dumps(settings | {"steps": 20}), encoding="utf-8")
    with pytest.raises(RunError, match=r"train\.steps is 20 and was 12"):
        list(train(Run.open(run.folder)))


def test_a_shared_run_keeps_its_picture(tmp_path, whole):
    again = import_run(export_run(whole, tmp_path / "run.zip"), tmp_path / "runs")
    assert (again.folder / "mixture.png").read_bytes() == (whole.folder / "mixture.png").read_bytes()


def test_the_preview_tells_the_weights_and_the_shares_taken(whole):
    planned, taken = mixture_preview(whole.train_config), mixture_preview(whole.train_config, whole.log())
    assert repr(planned) == "Sources mixed, planned for 12 steps, step: tales from 100 to 25 %, pydocs from 0 to 75 %"
    assert "taken in 12 of 12 steps" in repr(taken)
    assert planned.png == taken.png, "the batches are as planned"
    assert mixture_preview(whole.train_config, whole.log().assign(**{"share of tales": 0.0})).png != planned.png


def test_a_preview_needs_a_mixture_and_its_log(whole):
    with pytest.raises(ConfigError, match="no mixture"):
        mixture_preview(TRAIN)
    with pytest.raises(ConfigError, match="belongs to a TrainConfig"):
        mixture_preview("llama-tiny")
    with pytest.raises(ConfigError, match="no column 'share of tales'"):
        mixture_preview(whole.train_config, whole.log().drop(columns="share of tales"))


def test_own_files_of_a_mixture_are_found_from_another_folder_and_where_the_project_was_moved(tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    for name in ("a", "b"):
        rows = (json.dumps({"text": f"{name} says {number} " * 4}) for number in range(80))
        (project / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(project)
    data = DATA.replace(mixture=MIXTURE.replace(sources=("a.jsonl", "b.jsonl")))
    run = new_run(project / "runs", data=data)
    for step in train(run):
        if step.step == 4:
            break
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    moved = Run.open(tmp_path / "moved" / "runs" / "run")
    list(train(moved))
    assert moved.is_finished() and len(moved.log()["share of a.jsonl"]) == TRAIN.steps
    rows = (json.dumps({"text": f"c says {number} " * 4}) for number in range(80))
    (tmp_path / "moved" / "b.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match="is another than it was"):
        moved.load_data()


def test_a_mixture_with_texts_in_memory_says_what_it_needs(tmp_path):
    register_texts([f"number {number} of many" for number in range(80)], name="mine")
    run = new_run(tmp_path, data=DATA.replace(mixture=MIXTURE.replace(sources=("tales", "memory:mine"))))
    assert "register_texts(texts, name='mine')" in run.remark
    assert RunText.from_json(run.text.to_json()) == run.text and run.text.without_path().parts is None
