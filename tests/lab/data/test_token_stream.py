"""Sets of the hub, streamed shard by shard from a server on loopback: which tokens, what is kept, what is made anew."""

import errno
import gc
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiktoken
from filelock import FileLock

from config import DataConfig
from lab.data import hub_sets
from lab.data import shards as shards_file
from lab.data.cache import clear_cache, list_cache, load_or_build
from lab.data.hub_sets import HUB_SETS
from lab.data.leases import Lease, is_leased
from lab.data.packing import prepare
from lab.data.preview import preview_data
from lab.data.shards import Stopped
from lab.data.splitting import held_out_place
from lab.data.token_file import TokenFile
from lab.data.token_stream import TokenStream
from lab.data.tokenizers import Tokenizer
from settings.errors import DataError
from settings.hub import HubConfig
from settings.paths import ROOT
from tests.helpers.hub_server import FIRST_COMMIT, Fault, Repo, card_of, files_of, serve

TEXTS = [f"document {number}: " + "word and naïve wörds " * (number % 17) for number in range(600)]
FRACTION = 0.1
N = 10_000  # tokens of a shard


@pytest.fixture(autouse=True)
def small_chunks(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLASSBOX_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(shards_file, "CHUNK", 3000)
    monkeypatch.setattr(shards_file, "SAVE_EVERY", 2)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve(tmp_path / "hf", monkeypatch) as server:
        server.repos["someone/texts"] = Repo(files_of(TEXTS))
        yield server
        gc.collect()  # readers that were left open close their files while the server is there


def streamed(**changes) -> DataConfig:
    settings = {"source": "hub:someone/texts", "tokenizer": "byte", "tokens_per_epoch": N}
    return DataConfig(**settings | {"validation_fraction": FRACTION} | changes)


def ring(texts=TEXTS, encode=lambda text: list(text.encode()), end: int = 256, laps: int = 3) -> np.ndarray:
    """The tokens of the training documents, over and over."""
    documents = [[*encode(text), end] for text in texts if held_out_place(text) >= FRACTION]
    return np.array([token for document in documents for token in document] * laps)


def shard_keys() -> set[str]:
    return {entry.key[-6:] for entry in list_cache() if "-" in entry.key}


# --- which tokens -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "arrow", "json.gz"])
def test_shards_follow_each_other_without_gap_or_repetition(hub, kind):
    hub.repos["someone/texts"].files = files_of(TEXTS, kind, 3)
    data, expected = prepare(streamed()), ring()
    assert isinstance(data.train, TokenStream) and len(data.train) == N
    n_shards = len(ring(laps=1)) // N + 3  # past the set's end
    for number in range(n_shards):
        assert np.array_equal(data.train.shards.open(number).tokens, expected[number * N : (number + 1) * N])


def test_a_set_of_very_many_files_is_read_file_by_file(hub, monkeypatch):
    monkeypatch.setattr(hub_sets, "MOST_FILES_SPLIT", 1)
    stream = prepare(streamed()).train
    for number in (1, 3, 2):
        shard = prepare(streamed()).train.shards.open(number)
        assert np.array_equal(shard.tokens, ring()[number * N : (number + 1) * N])
    assert stream.shards.source.stream.num_shards == 2


def test_the_rows_are_those_that_datasets_reads_and_tiktoken_encodes(hub):
    from datasets import load_dataset

    rows = load_dataset("hf://datasets/someone/texts", split="train", revision=FIRST_COMMIT)["text"]
    data = prepare(streamed(tokenizer="bpe-512", tokens_per_epoch=5000))
    encode = data.tokenizer.encoding.encode_ordinary
    assert type(data.tokenizer.encoding) is tiktoken.Encoding
    expected = ring(list(rows), encode, data.tokenizer.end_of_text)
    found = np.concatenate([data.train.shards.open(number).tokens for number in range(4)])
    assert np.array_equal(found, expected[:20_000])


def test_held_out_documents_are_in_no_shard(hub):
    data = prepare(streamed())
    held = [text for text in TEXTS if held_out_place(text) < FRACTION]
    text = bytes(token for token in data.validation.tokens if token != 256).decode()
    assert text and "".join(held).startswith(text) and data.validation.n_documents < len(held)
    for number in range(len(ring(laps=1)) // N + 2):
        documents = bytes(np.where((tokens := data.train.shards.open(number).tokens) == 256, 10, tokens)).decode(
            errors="ignore"
        ).split("\n")
        assert not set(documents) & set(held)


def test_a_set_smaller_than_a_shard_is_one_that_holds_all(hub):
    data = prepare(streamed(tokens_per_epoch=10**6))
    assert np.array_equal(data.train.tokens, ring(laps=1)) and "the whole set" in repr(data.train)
    assert data.validation.n_documents == sum(held_out_place(text) < FRACTION for text in TEXTS)
    n_windows = data.train.n_windows(64)
    whole = TokenFile("train", ring(laps=1), 1, 1)
    for first in (0, n_windows - 3, 5 * n_windows):
        assert np.array_equal(data.train.rows(7, first, 8, 64), whole.rows(7, first, 8, 64))
    assert shard_keys() == {"000000"}


def test_a_set_of_exactly_a_shard(hub):
    size = len(ring(laps=1))
    data = prepare(streamed(tokens_per_epoch=size))
    assert np.array_equal(data.train.tokens, ring(laps=1)) and data.train.shards.index.whole


def test_max_documents_ends_the_set(hub):
    data = prepare(streamed(max_documents=150, tokens_per_epoch=10**6))
    assert np.array_equal(data.train.tokens, ring(TEXTS[:150], laps=1))
    ending = prepare(streamed(max_documents=150, tokens_per_epoch=4000)).train.shards
    expected = ring(TEXTS[:150], laps=4)
    for number in range(8):
        assert np.array_equal(ending.open(number).tokens, expected[number * 4000 : (number + 1) * 4000])


def test_blank_rows_are_left_out(hub):
    texts = [text for pair in zip(TEXTS, ["", None, " \n", "\t"] * 150) for text in pair]
    hub.repos["someone/texts"].files = files_of(texts)
    data = prepare(streamed(tokens_per_epoch=10**6))
    assert np.array_equal(data.train.tokens, ring(laps=1))


def test_the_subset_the_split_and_the_column_are_chosen(hub):
    files = files_of(TEXTS[:100], n_files=1) | {f"b/{name}": file for name, file in files_of(TEXTS[100:]).items()}
    splits = {"train": "b/data/*-00000-*", "rest": "b/data/*-00001-*"}
    files["README.md"] = card_of({"a": {"train": "data/*"}, "b": splits})
    hub.repos["someone/texts"].files = files
    data = prepare(streamed(tokens_per_epoch=10**6, hub=HubConfig(subset="b", split="rest"), text_field="text"))
    assert np.array_equal(data.train.tokens, ring(TEXTS[350:], laps=1))


def test_downloaded_gives_the_same_documents(hub):
    data = prepare(streamed(tokens_per_epoch=None, hub=HubConfig(streamed=False)))
    assert isinstance(data.train, TokenFile) and np.array_equal(data.train.tokens, ring(laps=1))
    before = len(hub.requests)
    again = prepare(data.config)
    assert np.array_equal(again.train.tokens, data.train.tokens) and len(hub.requests) == before


def test_short_names_are_complete():
    assert list(HUB_SETS) == ["tinystories", "tinystories-v2", "fineweb-edu", "wikipedia", "python-code"]
    assert HUB_SETS["fineweb-edu"].subset == "sample-10BT" and HUB_SETS["wikipedia"].subset == "20231101.en"


def test_a_short_name_means_its_set(hub):
    files = files_of(TEXTS) | {"README.md": card_of({"20231101.en": {"train": "data/*"}, "other": {"train": "x/*"}})}
    hub.repos["wikimedia/wikipedia"] = Repo(files)
    data = prepare(streamed(source="wikipedia"))
    assert np.array_equal(data.train.tokens, ring()[:N])


def test_a_revision_may_stand_behind_the_name(hub):
    hub.repos["someone/texts"].past["c" * 40] = files_of(TEXTS[300:])
    data = prepare(streamed(source=f"hub:someone/texts@{'c' * 40}", tokens_per_epoch=10**6))
    assert np.array_equal(data.train.tokens, ring(TEXTS[300:], laps=1))
    same = prepare(streamed(hub=HubConfig(revision="c" * 40), tokens_per_epoch=10**6))
    assert same.train.fingerprint == data.train.fingerprint and len(shard_keys()) == 1
    with pytest.raises(DataError, match=r"has a revision, and hub\.revision='main' another: give one"):
        prepare(streamed(source="hub:someone/texts@v1", hub=HubConfig(revision="main")))


def test_a_preview_reads_the_first_documents(hub):
    seen = preview_data(streamed(max_documents=20))
    assert seen.n_documents == 20 and seen.n_bytes == sum(len(text.encode()) for text in TEXTS[:20])
    with pytest.raises(DataError, match="preview its first documents, as by max_documents=1000"):
        preview_data(streamed())


# --- windows ----------------------------------------------------------------------------------------------------


def test_each_epoch_takes_the_windows_of_its_shard(hub):
    data = prepare(streamed())
    n_windows = data.train.n_windows(50)
    assert n_windows == (N - 1) // 50
    for epoch in (0, 1, 2):
        shard = TokenFile("train", ring()[epoch * N : (epoch + 1) * N], 1, 1)
        expected = shard.rows(3, epoch * n_windows, n_windows, 50)
        assert np.array_equal(data.train.rows(3, epoch * n_windows, n_windows, 50), expected)
    across = data.train.rows(3, n_windows - 2, 4, 50)
    assert np.array_equal(across[:2], data.train.rows(3, n_windows - 2, 2, 50))
    assert np.array_equal(across[2:], data.train.rows(3, n_windows, 2, 50))
    assert np.array_equal(data.train.batch(3, 5, 4, 50), data.train.rows(3, 20, 4, 50))
    data.train.close()


def test_the_next_shard_is_made_in_the_background(hub):
    data = prepare(streamed())
    half = data.train.n_windows(50) // 2
    data.train.rows(0, 0, half - 2, 50)
    assert data.train._background is None
    data.train.rows(0, half, 2, 50)
    shard, error = data.train._background.result()
    assert error is None and np.array_equal(shard.tokens, ring()[N : 2 * N])
    made = Tokenizer.encode_batch
    Tokenizer.encode_batch = lambda *_: pytest.fail("made twice")
    try:
        data.train.rows(0, 2 * half + 2, 2, 50)
    finally:
        Tokenizer.encode_batch = made


def test_shards_that_were_used_up_are_removed(hub, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", "2")
    data = prepare(streamed())
    n_windows = data.train.n_windows(50)
    for first in range(0, 6 * n_windows, 20):
        data.train.rows(0, first, 20, 50)
    data.train.close()
    gc.collect()
    assert len(shard_keys()) == 2 and "000005" in shard_keys()


def test_an_interrupted_second_making_is_not_taken_for_the_first(hub, tmp_path, monkeypatch):
    """Shard 0 is made again, without the documents that are held out, and stopped; then these are lost, too."""
    data = prepare(streamed())
    shards, folder = data.train.shards, tmp_path / "cache" / "data" / data.train.shards.key
    clear_cache([f"{shards.key}-000000"])
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(shards, "tell", lambda what: shards.stopping.set())
        patch.setattr(shards_file, "SECONDS_BETWEEN", 0)
        shards.open(0)
    shards.stopping.clear()
    assert (folder / "making.json").exists()
    (folder / "validation.bin").unlink()
    again = prepare(data.config)
    assert np.array_equal(again.validation.tokens, data.validation.tokens)
    assert np.array_equal(again.train.tokens, ring()[:N])


def test_closing_leaves_no_thread(hub):
    data = prepare(streamed())
    hub.faults.append(Fault("GET .*parquet", "slow", times=99, seconds=0.3))
    data.train.rows(0, data.train.n_windows(50) - 2, 1, 50)
    assert any(thread.name == "shard 1" for thread in threading.enumerate())
    data.train.close()
    assert not any(thread.name == "shard 1" for thread in threading.enumerate())
    hub.faults.clear()
    assert np.array_equal(data.train.shards.open(1).tokens, ring()[N : 2 * N])


def test_a_forgotten_stream_leaves_no_thread(hub):
    data = prepare(streamed())
    hub.faults.append(Fault("GET .*parquet", "slow", times=99, seconds=0.2))
    data.train.rows(0, data.train.n_windows(50) - 2, 1, 50)
    del data
    gc.collect()
    assert not any(thread.name == "shard 1" for thread in threading.enumerate())


def test_what_failed_in_the_background_is_tried_again_and_then_told(hub):
    data = prepare(streamed())
    n_windows, files = data.train.n_windows(50), hub.repos["someone/texts"].files
    hub.repos["someone/texts"].files = {name: file[:3000] for name, file in files.items()}
    data.train.shards._ring.place = None  # as after a restart: nothing is left of what was read ahead
    data.train.rows(0, n_windows - 2, 1, 50)
    shard, error = data.train._background.result()
    assert shard is None and isinstance(error, DataError)
    with pytest.raises(DataError, match=r"someone/texts.*damaged") as caught:
        data.train.rows(0, n_windows, 1, 50)
    assert caught.value.__cause__ is error
    hub.repos["someone/texts"].files = files
    assert data.train.rows(0, n_windows, 1, 50).shape == (1, 51)
    data.train.close()


# --- kept, bounded, made anew -----------------------------------------------------------------------------------


def test_a_second_time_nothing_is_read(hub, monkeypatch):
    config = prepare(streamed()).config
    assert config.hub.revision == FIRST_COMMIT
    before = len(hub.requests)
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda *_: pytest.fail("tokenised again"))
    again = prepare(config)
    assert np.array_equal(again.train.tokens, ring()[:N]) and len(hub.requests) == before


def test_a_bounded_number_of_shards_is_kept(hub, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", "3")
    stream = prepare(streamed()).train
    stream.rows(0, 0, 1, 50)
    for number in range(1, 6):
        stream.shards.open(number)
    assert shard_keys() == {"000000", "000004", "000005"}  # 0 is in use
    del stream
    gc.collect()
    prepare(streamed()).train.shards.open(6)
    assert len(shard_keys()) == 3 and "000006" in shard_keys()


def test_the_held_out_documents_stay_when_shards_go(hub, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", "1")
    data = prepare(streamed())
    for number in (1, 2):
        data.train.shards.open(number)
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda *_: pytest.fail("made again"))
    again = prepare(data.config)
    assert np.array_equal(again.validation.tokens, data.validation.tokens) and len(again.train) == N


@pytest.mark.parametrize("text", ["0", "many", "-1", "1.5"])
def test_a_bad_bound_is_named(hub, monkeypatch, text):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", text)
    with pytest.raises(DataError, match=f"GLASSBOX_CACHE_SHARDS='{text}' is not a number of shards"):
        prepare(streamed())
    assert list_cache() == []


def test_a_shard_that_was_removed_is_made_anew_with_the_same_tokens(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", "1")
    config = prepare(streamed()).config
    for number in (1, 2, 0, 2, 1):
        stream = prepare(config).train  # as another process: nothing read ahead
        assert np.array_equal(stream.shards.open(number).tokens, ring()[number * N : (number + 1) * N])
        del stream
        gc.collect()


def test_other_documents_at_the_same_commit_are_refused(hub, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE_SHARDS", "1")
    hub.repos["someone/texts"].files = files_of(TEXTS, "jsonl")
    config = prepare(streamed()).config
    prepare(config).train.shards.open(1)
    gc.collect()
    prepare(config).train.shards.open(2)
    gc.collect()
    assert "000001" not in shard_keys()
    hub.repos["someone/texts"].files = files_of([text.replace("word", "wurd") for text in TEXTS], "jsonl")
    with pytest.raises(DataError, match=r"someone/texts.* is another than it was: shard 1 was made again"):
        prepare(config).train.shards.open(1)


def test_a_shard_whose_making_was_killed_goes_on_where_it_was(hub, tmp_path):
    """A process is killed in the middle of shard 0; the next one reads on from there."""
    code = (
        "import os\n"
        "from lab.data import shards; shards.CHUNK, shards.SAVE_EVERY = 3000, 1\n"
        "from huggingface_hub import constants; import datasets.config\n"
        f"constants.ENDPOINT = datasets.config.HF_ENDPOINT = {hub.endpoint!r}\n"
        f"constants.HUGGINGFACE_CO_URL_TEMPLATE = {hub.endpoint!r} + '/{{repo_id}}/resolve/{{revision}}/{{filename}}'\n"
        "made = shards.Shards._save\n"
        "def killed(self, work):\n"
        "    made(self, work)\n"
        "    if work.train.n_tokens > 6000: os._exit(7)\n"
        "shards.Shards._save = killed\n"
        "from config import DataConfig; from lab.data.packing import prepare\n"
        f"prepare(DataConfig.from_json('''{streamed().to_json()}'''))\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "USE_TORCH": "0"}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 7, ended.stderr
    made, encode = [], Tokenizer.encode_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode_batch", lambda self, texts: encode(self, made.extend(texts) or texts))
        data = prepare(streamed())
    assert np.array_equal(data.train.tokens, ring()[:N])
    assert sum(map(len, made)) < 8000  # the first 6,000 tokens were kept
    held = [text for text in TEXTS if held_out_place(text) < FRACTION]
    assert "".join(held).startswith(bytes(token for token in data.validation.tokens if token != 256).decode())


def test_two_processes_do_not_make_the_same_shard(hub):
    config = prepare(streamed()).config
    streams = [prepare(config).train for _ in range(2)]
    made, encode = [], Tokenizer.encode_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode_batch", lambda self, texts: encode(self, made.extend(texts) or texts))
        threads = [threading.Thread(target=stream.shards.open, args=(1,)) for stream in streams]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert np.array_equal(streams[0].shards.open(1).tokens, ring()[N : 2 * N])
    assert np.array_equal(streams[1].shards.open(1).tokens, ring()[N : 2 * N])
    encoded = [text for text in made if text]  # of documents that are held out, nothing is encoded
    assert encoded and len(encoded) == len(set(encoded)), "one of them makes it, the other opens what is there"


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_old_record_does_not_speak_of_a_file_that_was_written_over(hub):
    """A stop in shard 2, then a kill in shard 1 before its first record: both write the same file."""
    stream = prepare(streamed()).train
    stream.shards.open(1)
    encode, calls = Tokenizer.encode_batch, []

    def stop_later(self, texts):
        calls.append(1)
        if len(calls) == 1:
            stream.shards.stopping.set()
        return encode(self, texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokenizer, "encode_batch", stop_later)
        with pytest.raises(shards_file.Stopped):
            stream.shards.open(2)
    stream.shards.stopping.clear()
    again = prepare(streamed()).train.shards
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_file.Shards, "_save", lambda self, work: None)  # killed: no record is written any more
        patch.setattr(shards_file.Shards, "_finish", interrupt)
        clear_cache([f"{again.key}-000001"])
        with pytest.raises(KeyboardInterrupt):
            again.open(1)
    assert np.array_equal(prepare(streamed()).train.shards.open(2).tokens, ring()[2 * N : 3 * N])


def test_a_stop_behind_documents_that_were_put_back_leaves_none_out(hub):
    shards = prepare(streamed()).train.shards
    shards.open(0)
    read, turns = shards_file.EncodedRing.read, []

    def stop_after_the_first(self, held_out_too):
        turns.append(1)
        if len(turns) == 2:
            raise KeyboardInterrupt
        return read(self, held_out_too)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_file.EncodedRing, "read", stop_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            shards.open(1)
    (shards._folder() / "making.json").unlink()
    assert np.array_equal(shards.open(1).tokens, ring()[N : 2 * N])


def test_the_index_is_made_again_where_it_alone_was_removed(hub):
    data = prepare(streamed())
    tokens, key = data.validation.tokens.copy(), data.train.shards.key
    del data
    gc.collect()
    clear_cache([key])
    again = prepare(streamed())
    assert np.array_equal(again.validation.tokens, tokens)
    assert np.array_equal(again.train.shards.open(1).tokens, ring()[N : 2 * N])


def test_a_full_disk_says_so_and_keeps_what_was_made(hub, monkeypatch):
    config, opened = prepare(streamed()).config, shards_file._opened

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 3

        def write(self, content):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(content)

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(shards_file, "_opened", lambda *given: Full(opened(*given)))
        with pytest.raises(DataError, match=r"can't use the cache folder .*No space left on device.*GLASSBOX_CACHE"):
            prepare(config).train.shards.open(1)
    assert np.array_equal(prepare(config).train.shards.open(1).tokens, ring()[N : 2 * N])


# --- leases -----------------------------------------------------------------------------------------------------


def make_entry(key: str) -> None:
    def build(folder):
        (folder / "file").write_bytes(b"x" * 1000)

    load_or_build(key, key, build, lambda folder: (folder / "file").read_bytes())


def test_an_entry_in_use_is_not_removed(monkeypatch):
    make_entry("a")
    lease = Lease("a")
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", "1")
    make_entry("b")
    assert {entry.key for entry in list_cache()} == {"a", "b"}
    lease.release()
    make_entry("c")
    assert {entry.key for entry in list_cache()} == {"c"}


def test_prepared_data_is_in_use_while_it_is_there(monkeypatch):
    data = prepare(DataConfig(tokenizer="byte", max_documents=50))
    (entry,) = list_cache()
    assert is_leased(entry.key)
    del data
    gc.collect()
    assert not is_leased(entry.key)


def test_another_process_keeps_its_entry_until_it_dies(tmp_path):
    make_entry("a")
    code = "from lab.data.leases import Lease; lease = Lease('a'); print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True)
    assert other.stdout.readline() == "held\n" and is_leased("a")
    other.kill()
    other.wait()
    assert not is_leased("a")
    assert list((tmp_path / "cache" / "leases").glob("a.*")) == []
    other.stdin.close()
    other.stdout.close()


def test_a_lock_left_by_a_dead_process_is_no_lease(tmp_path):
    folder = tmp_path / "cache" / "leases"
    folder.mkdir(parents=True)
    (folder / "a.0123.lock").touch()
    assert not is_leased("a") and list(folder.iterdir()) == []
    with FileLock(folder / "a.0123.lock"):
        assert is_leased("a")


def test_the_index_is_json_that_says_where_each_shard_begins(hub, tmp_path):
    stream = prepare(streamed()).train
    stream.shards.open(1)
    index = json.loads((tmp_path / "cache" / "data" / stream.shards.key / "index.json").read_text(encoding="utf-8"))
    assert len(index["starts"]) == 3 and [count["n_tokens"] for count in index["counts"]] == [N, N]
