"""The order of work for a device that runs ahead: the same run as in step, and nothing stored of a failed one."""

import pytest
import torch

from config import DropoutConfig
from lab.compute.readings import Readings
from lab.compute.training_state import TrainingState
from lab.data.packing import TokenData, prepare
from lab.runs.run import Run
from lab.training.loop import train
from settings.errors import RunError
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.fixture
def ahead(monkeypatch):
    monkeypatch.setattr(TrainingState, "runs_ahead", True)


def test_readings_are_the_scalars_as_they_were_when_it_was_made():
    scalar = torch.tensor(2.5, requires_grad=True)
    readings = Readings({"loss": scalar, "half": torch.tensor(0.5, dtype=torch.bfloat16)})
    with torch.no_grad():
        scalar.zero_()
    assert readings.read() == {"loss": 2.5, "half": 0.5}


@pytest.mark.parametrize("watch_every", [0, 5])
def test_a_run_ahead_stopped_and_resumed_is_the_run_in_step(tmp_path, data, monkeypatch, watch_every):
    in_step, run = (new_run(tmp_path / name, watch_every=watch_every) for name in ("in-step", "ahead"))
    monkeypatch.setattr(TrainingState, "runs_ahead", False)
    list(train(in_step, data))
    monkeypatch.setattr(TrainingState, "runs_ahead", True)
    for stop in (1, 6):
        for step in train(run, data):
            if step.step == stop:
                break
        run = Run.open("run", tmp_path / "ahead")
    list(train(run, data))
    assert_same(run, in_step)
    assert not watch_every or run.watch().equals(in_step.watch())


def test_each_batch_is_read_once_and_none_after_the_last_step(tmp_path, data, ahead, monkeypatch):
    read, batch = [], TokenData.batch
    monkeypatch.setattr(TokenData, "batch", lambda data, *which: read.append(which[1]) or batch(data, *which))
    list(train(new_run(tmp_path, steps=5, micro_batch_size=2), data))
    assert read == [0, 1, 2, 3, 4]


def test_a_step_that_is_not_finite_leaves_nothing_behind(tmp_path, data, ahead, monkeypatch):
    """The update is done when the number is read: the weights in memory are lost, and no file holds them."""
    run = new_run(tmp_path, model=MODEL.replace(dropout=DropoutConfig()), checkpoint_every=3, evaluate_every=2)
    clip = TrainingState.clip
    monkeypatch.setattr(
        TrainingState, "clip", lambda state: clip(state) * (float("nan") if state.progress.step == 4 else 1)
    )
    held = "the weights of step 4 .* and the checkpoint of step 3"
    with pytest.raises(RunError, match=f"step 5: the norm of the gradients is not finite. The run still holds {held}"):
        list(train(run, data))
    assert len(run.log()) == 4
    monkeypatch.setattr(TrainingState, "clip", clip)
    assert next(train(Run.open("run", tmp_path), data)).step == 4
