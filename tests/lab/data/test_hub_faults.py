"""What goes wrong with sets of the hub: tried again where that can help, then one error with its remedy."""

import errno
import time

import numpy as np
import pytest

from config import DataConfig, TrainConfig, preset
from lab.data import hub_errors
from lab.data import shards as shards_file
from lab.data.cache import list_cache
from lab.data.packing import prepare
from lab.data.sources import load_documents
from lab.data.splitting import held_out_place
from lab.runs.run import Run
from lab.terminal import main
from settings.errors import DataError
from settings.hub import HubConfig
from settings.paths import ROOT
from tests.helpers.hub_server import Fault, Repo, card_of, files_of, parquet_file, serve

TEXTS = [f"document {number}: " + "word and naïve wörds " * (number % 17) for number in range(400)]
FILE = "GET .*train-.*"
BUSY = {"Retry-After": "1"}


@pytest.fixture(autouse=True)
def small_chunks(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards_file, "CHUNK", 3000)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve(tmp_path / "hf", monkeypatch) as server:
        server.repos["someone/texts"] = Repo(files_of(TEXTS, "jsonl"))
        monkeypatch.setattr(hub_errors, "sleep", lambda seconds: time.sleep(seconds / 100))
        yield server


def config_of(**changes) -> DataConfig:
    settings = {"source": "hub:someone/texts", "tokenizer": "byte", "tokens_per_epoch": 10**6}
    return DataConfig(**settings | {"validation_fraction": 0.1} | changes)


def expected() -> np.ndarray:
    return np.array([token for text in TEXTS if held_out_place(text) >= 0.1 for token in [*text.encode(), 256]])


# --- tried again: nothing lost, nothing twice --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FILE, "drop", 3), Fault(FILE, "refuse", 2), Fault(FILE, 503, 3), Fault(FILE, 429, 2, headers=BUSY),
        Fault(FILE, 504, 2), Fault("GET /api/.*/revision", 503, 2), Fault("GET /api/.*/tree", 502, 2),
        Fault("GET /api/datasets/someone/texts$", 429, 2, headers=BUSY), Fault("GET /api/datasets/someone/texts$", 503),
        Fault("HEAD .*README", 503, 2), Fault("HEAD .*dataset_infos", 500),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.pattern[-12:]}",
)
def test_faults_that_pass_lose_nothing(hub, fault):
    hub.faults.append(Fault(**vars(fault)))
    assert np.array_equal(prepare(config_of()).train.tokens, expected())
    assert hub.faults[0].times == 0, "the fault came"


@pytest.mark.parametrize("kind", ["drop", 503])
def test_faults_while_a_set_is_downloaded_lose_nothing(hub, kind):
    hub.faults.append(Fault(FILE, kind, 2))
    data = prepare(config_of(tokens_per_epoch=None, hub=HubConfig(streamed=False)))
    assert np.array_equal(data.train.tokens, expected())


def test_a_slow_source_is_waited_for_and_then_asked_again(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.faults.append(Fault(FILE, "slow", 2, seconds=0.5))
    assert np.array_equal(prepare(config_of()).train.tokens, expected())


def test_retry_after_is_waited_for(hub, monkeypatch):
    waits = []
    monkeypatch.setattr(hub_errors, "sleep", waits.append)
    hub.faults.append(Fault("GET /api/datasets/someone/texts$", 429, 2, headers={"Retry-After": "7"}))
    prepare(config_of())
    assert [wait for wait in waits if wait == 7.0] == [7.0, 7.0]


# --- given up: one error, and what was made is kept ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("drop", "the hub dropped the connection or was too slow"), (503, "the hub answers with status 503"),
        (429, "the hub lets nobody ask so often"), ("refuse", "the hub dropped the connection or was too slow"),
    ],
)
def test_a_fault_that_stays_is_one_error_and_the_next_call_goes_on(hub, kind, message):
    config = prepare(config_of(tokens_per_epoch=5000)).config  # shard 0 is there
    hub.faults.append(Fault(r"GET .*train-00001.*", kind, 10**6))
    stream = prepare(config).train
    with pytest.raises(DataError, match=rf"someone/texts.*{message}.*(Try again later|Wait some minutes)") as caught:
        for number in range(1, 20):
            stream.shards.open(number)
    assert "It got as far as document" in str(caught.value) and "goes on from there" in str(caught.value)
    hub.faults.clear()
    again = prepare(config).train.shards
    found = np.concatenate([again.open(number).tokens for number in range(len(expected()) // 5000)])
    assert np.array_equal(found, expected()[: len(found)])


def test_a_file_that_was_cut_is_named_damaged(hub):
    whole = parquet_file(TEXTS)
    hub.repos["someone/texts"].files = {"data/train-0.parquet": whole, "data/train-1.parquet": whole[: len(whole) // 2]}
    with pytest.raises(DataError, match=r"someone/texts.*a file of it is damaged.*another hub\.revision"):
        prepare(config_of())


def test_a_full_disk_while_downloading_names_the_folders(hub, monkeypatch):
    from datasets.download import DownloadManager

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DownloadManager, "download", full)
    with pytest.raises(DataError, match=r"the disk is full\. Make room, .*HF_HOME.*GLASSBOX_CACHE"):
        prepare(config_of(tokens_per_epoch=None, hub=HubConfig(streamed=False)))
    assert list_cache() == []


# --- refused before a run folder exists ----------------------------------------------------------------------------


def split_card() -> dict[str, bytes]:
    return files_of(TEXTS) | {"README.md": card_of({"a": {"train": "data/*"}, "b": {"test": "data/*"}})}


@pytest.mark.parametrize(
    ("changes", "files", "message"),
    [
        ({"source": "hub:someone/nothing"}, None, r"the hub has no such set, or it is private.*hf auth login"),
        ({"source": "hub:nothing"}, None, "'hub:nothing' names no set of the hub: write hub:owner/name"),
        ({"hub": HubConfig(revision="v9")}, None, "the hub has no such revision"),
        ({"hub": HubConfig(revision="b" * 40)}, None, "the hub has no such revision"),
        ({"hub": HubConfig(split="test")}, None, r"has no split 'test'; it has train: choose one by hub\.split"),
        ({"hub": HubConfig(subset="c")}, split_card, r"has no subset 'c'; it has a, b: choose one by hub\.subset"),
        ({}, split_card, r"has several subsets: a, b: choose one by hub\.subset"),
        ({"text_field": "body"}, None, "no text in a column 'body'. Its columns are id, text; with text: text"),
        ({"text_field": "id"}, None, "no text in a column 'id'. Its columns are id, text; with text: text"),
        ({}, lambda: files_of([]), "has no rows in one of its files"),
        ({}, lambda: files_of([], "arrow"), "split 'train' has no rows"),
        ({}, lambda: files_of([1, 2, 3]), "with text: none. Give a file with a column of text"),
        ({}, lambda: {"texts.py": b"print(1)", "README.md": b"no data"}, "made by a script, and no set's code is run"),
        ({}, lambda: {"README.md": b"no data"}, "holds no files that can be read as text"),
        ({}, lambda: files_of(["   ", "\n", ""] * 5), "leaves 0 documents for train and 0 for validation"),
        ({"validation_fraction": 1e-9}, None, "leaves 400 documents for train and 0 for validation"),
        ({"seed": 3}, None, "seed=3 is a setting of tales"),
    ],
)
def test_bad_input_is_named_before_a_run_folder_exists(hub, tmp_path, changes, files, message):
    if files:
        hub.repos["someone/texts"].files = files()
    model, train = preset("llama-tiny")
    data = config_of(**changes)
    with pytest.raises(DataError, match=message):
        Run.create("mine", model.replace(vocab_size=257), train.replace(data=data), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_set_says_how_to_log_in(hub, status):
    hub.repos["someone/texts"].gated = status
    with pytest.raises(DataError, match=r"is gated.*Ask on .*/datasets/someone/texts, then log in by"):
        prepare(config_of())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hub": HubConfig(split="test")}, "hub is a setting of the hub's sets, and 'tales' is none: leave it out"),
        ({"tokens_per_epoch": 5}, "tokens_per_epoch is a setting of the hub's sets, and 'tales' is none"),
    ],
)
def test_settings_of_the_hub_are_refused_for_other_sources(settings, message):
    with pytest.raises(DataError, match=message):
        load_documents(DataConfig(**settings))


def test_offline_is_said_at_once(tmp_path, monkeypatch):
    """Nobody listens at the hub's address: no answer is waited for, and what works instead is named."""
    with serve(tmp_path / "hf", monkeypatch):
        pass
    monkeypatch.setattr("huggingface_hub.utils._http.time", None)  # a second try would sleep
    with pytest.raises(DataError, match=r"can't reach the Hugging Face hub.*Without a network there are tales, pydocs"):
        Run.create("mine", *preset("llama-tiny")[:1], TrainConfig(data=config_of()), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(DataError, match="can't reach the Hugging Face hub"):
        prepare(config_of(hub=HubConfig(revision="a" * 40)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set\. Without a network there are tales"):
        prepare(config_of())


def test_a_prepared_set_works_offline(hub, monkeypatch):
    config = prepare(config_of()).config
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert np.array_equal(prepare(config).train.tokens, expected())


def test_the_terminal_says_it_in_one_message(tmp_path, monkeypatch, capsys):
    with serve(tmp_path / "hf", monkeypatch):
        pass
    assert main(["train", "--train.data.source", "tinystories", "--name", "offline-test"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the hub's set 'roneneldan/TinyStories': can't reach the Hugging Face hub")
    assert not (ROOT / "trained" / "offline-test").exists()
