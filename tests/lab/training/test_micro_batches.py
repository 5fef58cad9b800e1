"""micro_batch_size="auto": what fits is found, tried, kept over a stop, and said."""

import json
from contextlib import closing

import pytest
import torch

from lab.costs import fitting
from lab.costs.memory import training_memory
from lab.data.packing import prepare
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.runs.weights import read_header
from lab.training.loop import open_state, train
from lab.training.micro_batches import find_micro_batch, fits
from lab.training.rate_finder import find_learning_rate
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run

AUTO = dict(micro_batch_size="auto", steps=6)


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


def room_for(monkeypatch, size: int) -> None:
    """As much memory as the estimate says for micro-batches of `size`, with the margin; for a smaller number less."""
    needed = training_memory(MODEL, TRAIN.replace(micro_batch_size=size), "fp32").total
    monkeypatch.setattr(fitting, "training_memory_limit", lambda device: round(needed * fitting.MARGIN["cpu"]) + 1)


def progress(run: Run) -> dict:
    return json.loads(read_header(run.checkpoint_path)[1]["progress"])


def stop(run: Run, data, step: int) -> None:
    with closing(train(run, data)) as steps:
        for taken in steps:
            if taken.step == step:
                break


def full_above(monkeypatch, size: int) -> list[int]:
    """A model that runs out of memory for more sequences than that; returns how many it was given, as it goes."""
    losses, tried = Transformer.losses, []

    def limited(model, windows, *rest):
        if type(windows) is not torch.Tensor:  # those of the estimate, which have no numbers
            return losses(model, windows, *rest)
        tried.append(len(windows))
        if len(windows) > size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return losses(model, windows, *rest)

    monkeypatch.setattr(Transformer, "losses", limited)
    return tried


def test_the_numbers_are_those_of_the_size_that_was_found_also_after_a_stop(tmp_path, data, monkeypatch):
    room_for(monkeypatch, 2)
    run, fixed = new_run(tmp_path, **AUTO), new_run(tmp_path, "fixed", steps=6, micro_batch_size=2)
    stop(run, data, 3)
    assert progress(run)["micro_batch_size"] == 2
    assert progress(run)["why"].startswith("cpu, micro-batches of 2, the most that fit; fp32, as set;")
    room_for(monkeypatch, 4)  # what was found before stays, so that the numbers stay
    list(train(Run.open(run.folder), data))
    list(train(fixed, data))
    assert_same(run, fixed)
    assert progress(run)["micro_batch_size"] == 2 and progress(fixed)["micro_batch_size"] == 0
    assert progress(run)["why"] in run.card_path.read_text(encoding="utf-8")
    assert Run.open(run.folder).train_config.micro_batch_size == "auto"


def test_changed_between_two_parts_it_is_found_anew_or_obeyed(tmp_path, data, monkeypatch):
    room_for(monkeypatch, 4)
    run = new_run(tmp_path, steps=6)
    stop(run, data, 1)
    for wanted, found in ("auto", 4), (1, 0), ("auto", 4):
        settings = json.loads((run.folder / "train_config.json").read_text()) | {"micro_batch_size": wanted}
        (run.folder / "train_config.json").write_text(json.dumps(settings))
        run = Run.open(run.folder)
        stop(run, data, run.steps_done() + 1)
        assert progress(run)["micro_batch_size"] == found
        assert ("micro-batches of 4" in progress(run)["why"]) == bool(found)


def test_a_trial_that_runs_out_of_memory_leads_to_the_next_smaller_one(tmp_path, data, monkeypatch):
    room_for(monkeypatch, 4)
    run = new_run(tmp_path, **AUTO)
    tried = full_above(monkeypatch, 2)
    list(train(run, data))
    assert tried[:3] == [4, 2, 2] and set(tried[3:]) == {2} and progress(run)["micro_batch_size"] == 2


def test_where_one_sequence_does_not_fit_the_training_says_what_to_do(tmp_path, data, monkeypatch):
    run = new_run(tmp_path, **AUTO)
    full_above(monkeypatch, 0)
    with pytest.raises(RunError, match=r"out of memory .*: set gradient_checkpointing=True; or train a smaller model"):
        next(train(run, data))


def test_a_trial_changes_nothing(tmp_path, data):
    state = open_state(new_run(tmp_path, **AUTO), data)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    random, config = torch.get_rng_state(), state.config
    assert fits(state, 2) and find_micro_batch(state) == 4
    assert state.config is config and torch.equal(random, torch.get_rng_state()) and not state.optimizer.state
    assert all(torch.equal(before[name], tensor) for name, tensor in state.model.state_dict().items())
    assert all(parameter.grad is None for parameter in state.model.parameters())


def test_another_fault_in_a_trial_is_no_lack_of_memory(tmp_path, data, monkeypatch):
    state = open_state(new_run(tmp_path, **AUTO), data)
    monkeypatch.setattr(state.model, "losses", lambda windows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fits(state, 2)


def test_what_can_not_fit_is_refused_before_a_run_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "training_memory_limit", lambda device: 1000)
    for wanted in "auto", 2:
        with pytest.raises(ConfigError, match=r"can't fit into memory: .* a step takes .* cpu has 1\.00 kB"):
            new_run(tmp_path, micro_batch_size=wanted)
    assert run_names(tmp_path) == []


def test_the_test_of_rates_knows_auto_too(data, monkeypatch):
    room_for(monkeypatch, 2)
    tried = full_above(monkeypatch, 4)
    auto = find_learning_rate((MODEL, TRAIN.replace(micro_batch_size="auto")), data, steps=12)
    assert set(tried) == {2}
    assert auto.losses == find_learning_rate((MODEL, TRAIN.replace(micro_batch_size=2)), data, steps=12).losses
