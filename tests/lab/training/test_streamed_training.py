"""Trainings on sets of the hub: stopped and resumed over several shards, whatever happened meanwhile."""

import gc
import threading

import pytest

from config import DataConfig, Preset
from lab.comparison.sweep import sweep
from lab.compute.training_state import TrainingState
from lab.data import shards as shards_file
from lab.data.cache import clear_cache, list_cache
from lab.data.token_stream import TokenStream
from lab.runs.run import Run
from lab.training.loop import train
from lab.training.rate_finder import find_learning_rate
from lab.training.start import open_or_create
from settings.errors import DataError
from settings.hub import HubConfig
from settings.mixture import MixtureConfig
from tests.helpers.hub_server import FIRST_COMMIT, Repo, files_of, jsonl_file, serve
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run

TEXTS = [f"document {number}: " + "some more words " * (number % 7) for number in range(200)]
LATER = [text.replace("some", "sane") for text in TEXTS]
DATA = DataConfig(source="hub:someone/texts", tokenizer="byte", tokens_per_epoch=400, validation_fraction=0.5)
# 24 windows of 16 tokens an epoch: 12 steps of 4 windows are two epochs


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards_file, "CHUNK", 100)
    with serve(tmp_path / "hf", monkeypatch) as server:
        server.repos["someone/texts"] = Repo(files_of(TEXTS, "jsonl"))
        yield server
        gc.collect()


def take(run: Run, n_steps: int) -> None:
    steps = train(run)
    for _, step in zip(range(n_steps), steps):
        assert step.loss > 0
    steps.close()


def remove_shards() -> None:
    gc.collect()
    clear_cache([entry.key for entry in list_cache() if "-" in entry.key])


def move_on(hub) -> None:
    """The set has a new commit with other documents."""
    repo = hub.repos["someone/texts"]
    hub.repos["someone/texts"] = Repo(files_of(LATER, "jsonl"), "b" * 40, past={repo.commit: repo.files})


@pytest.mark.parametrize(
    ("stop", "meanwhile"), [(3, "nothing"), (8, "shards removed"), (3, "cache cleared"), (8, "set moved on")]
)
def test_resumed_is_uninterrupted(hub, tmp_path, stop, meanwhile):
    whole, stopped = (new_run(tmp_path / name, data=DATA) for name in ("one", "two"))
    for _ in train(whole):
        pass
    take(stopped, stop)
    if meanwhile == "shards removed":
        remove_shards()
    if meanwhile in ("cache cleared", "set moved on"):
        clear_cache()
    if meanwhile == "set moved on":
        move_on(hub)
    for _ in train(Run.open("run", tmp_path / "two")):
        pass
    assert_same(whole, stopped)
    assert not any(thread.name.startswith("shard") for thread in threading.enumerate())


def test_a_run_keeps_the_commit_that_it_began_with(hub, tmp_path):
    run = new_run(tmp_path, data=DATA)
    assert run.train_config.data.hub == HubConfig(revision=FIRST_COMMIT)
    assert run.load_data().train.fingerprint == run.text.train
    move_on(hub)
    again = open_or_create("run", MODEL, TRAIN.replace(data=DATA), tmp_path)
    assert again.name == "run" and again.train_config == run.train_config
    other = open_or_create("run", MODEL, TRAIN.replace(data=DATA.replace(hub=HubConfig(revision="main"))), tmp_path)
    assert other.name == "run-2" and other.train_config.data.hub.revision == "b" * 40


def test_a_sweep_that_is_run_again_goes_on_with_its_commit(hub, tmp_path):
    variants = {"mine": Preset(MODEL, TRAIN.replace(data=DATA, steps=4))}
    steps = sweep(variants, [0], tmp_path)
    next(steps)
    steps.close()
    move_on(hub)
    assert [step.step for _, step in sweep(variants, [0], tmp_path)] == [2, 3, 4]


def test_other_documents_are_refused(hub, tmp_path):
    run = new_run(tmp_path, data=DATA)
    take(run, 3)
    clear_cache()
    hub.repos["someone/texts"] = Repo(files_of(LATER, "jsonl"))  # at the same commit
    with pytest.raises(DataError, match="the text of 'run' is another than it was: the train documents of hub"):
        take(Run.open("run", tmp_path), 1)


def test_a_mixture_keeps_the_commits_of_its_sets(hub, tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_bytes(jsonl_file([f"note {number}" for number in range(50)]))
    mixture = MixtureConfig(sources=("hub:someone/texts", str(notes)), start=(3.0, 1.0))
    mixed = DATA.replace(source="tales", mixture=mixture, max_documents=150)
    whole, stopped = (new_run(tmp_path / name, data=mixed) for name in ("one", "two"))
    assert stopped.train_config.data.mixture.sources == (f"hub:someone/texts@{FIRST_COMMIT}", str(notes))
    for _ in train(whole):
        pass
    take(stopped, 8)
    clear_cache()
    move_on(hub)
    assert open_or_create("run", MODEL, TRAIN.replace(data=mixed), tmp_path / "two").name == "run"
    for _ in train(Run.open("run", tmp_path / "two")):
        pass
    assert_same(whole, stopped)
    assert not any(thread.name.startswith("shard") for thread in threading.enumerate())


def test_a_commit_that_is_gone_is_named(hub, tmp_path):
    run = new_run(tmp_path, data=DATA)
    take(run, 3)
    clear_cache()
    hub.repos["someone/texts"] = Repo(files_of(LATER, "jsonl"), "b" * 40)
    with pytest.raises(DataError, match=r"someone/texts.*the hub has no such revision \(any more\)"):
        take(Run.open("run", tmp_path), 1)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_training_that_waits_for_its_shard_can_be_stopped(hub, tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(TrainingState, "runs_ahead", ahead)  # as on CUDA
    whole, stopped = (new_run(tmp_path / name, data=DATA) for name in ("one", "two"))
    for _ in train(whole):
        pass
    take(stopped, 5)
    remove_shards()
    stopping, read = threading.Event(), shards_file.EncodedRing.read

    def press_stop(ring, *given):
        stopping.set()
        return read(ring, *given)

    with monkeypatch.context() as patch:
        patch.setattr(shards_file.EncodedRing, "read", press_stop)
        run = Run.open("run", tmp_path / "two")
        assert list(train(run, stopping=stopping)) == [] and run.steps_done() == 5
    assert not any(thread.name.startswith("shard") for thread in threading.enumerate())
    for _ in train(Run.open("run", tmp_path / "two")):
        pass
    assert_same(whole, stopped)


def test_the_progress_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_file, "SECONDS_BETWEEN", 0)
    said = []
    Run.create("told", MODEL, TRAIN.replace(data=DATA), tmp_path, tell=said.append)
    assert len(said) > 1 and "shard 0: 0.0 of 0.0 million tokens" in said[0] and "documents" in said[0]


def test_a_test_of_rates_ends_what_is_made_in_the_background(hub, monkeypatch):
    closed, close = [], TokenStream.close
    monkeypatch.setattr(TokenStream, "close", lambda self: closed.append(close(self)))
    find_learning_rate(Preset(MODEL, TRAIN.replace(data=DATA)), steps=20, highest=1e-2)
    assert closed and not [thread for thread in threading.enumerate() if thread.name.startswith("shard")]
