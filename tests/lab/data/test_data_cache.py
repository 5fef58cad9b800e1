"""The cache of prepared data: found again, bounded, rebuilt when damaged, whole or absent."""

import errno
import json
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from config import DataConfig
from lab.data import cache, packing
from lab.data.cache import clear_cache, list_cache
from lab.data.packing import prepare
from lab.data.tokenizers import Tokenizer
from lab.files.atomic import ABANDONED
from settings.errors import DataError
from settings.paths import ROOT

TEXTS = [f"document number {number} of some" for number in range(60)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The cache's data folder, not there yet."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLASSBOX_CACHE_LIMIT", raising=False)
    return tmp_path / "cache" / "data"


@pytest.fixture
def config(tmp_path):
    return config_of(tmp_path, "a", TEXTS)


def config_of(tmp_path, name: str, texts, **settings) -> DataConfig:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8", newline="\n")
    return DataConfig(**{"source": str(path), "tokenizer": "byte", "validation_fraction": 0.3} | settings)


def several(tmp_path, names: str) -> dict[str, str]:
    """Prepares data of equal size, in this order, as if an hour apart; gives the keys by name."""
    keys = {}
    for hour, name in enumerate(names):
        prepare(config_of(tmp_path, name, [text + name for text in TEXTS]))
        newest = max(cache._data_folder().glob("*/meta.json"), key=lambda path: path.stat().st_mtime_ns).parent
        keys[name] = newest.name
        for path in newest.iterdir():
            os.utime(path, (hour * 3600, hour * 3600))
    return keys


def names_left(keys: dict[str, str]) -> str:
    left = {entry.key for entry in list_cache()}
    return "".join(name for name, key in keys.items() if key in left)


# --- found again ------------------------------------------------------------------------------------------------


def test_second_time_nothing_is_tokenised(config, monkeypatch):
    first = prepare(config)
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda *_: pytest.fail("tokenised again"))
    again = prepare(config, progress=lambda *_: pytest.fail("nothing is made, so there is no progress"))
    for side in ("train", "validation"):
        one, two = getattr(first, side), getattr(again, side)
        assert np.array_equal(one.tokens, two.tokens)
        assert (one.n_documents, one.n_bytes, one.log_probability) == (two.n_documents, two.n_bytes, None)


def test_equal_content_is_found_wherever_it_lies(config, tmp_path):
    prepare(config)
    prepare(config_of(tmp_path, "elsewhere", TEXTS))
    assert len(list_cache()) == 1


def test_each_setting_has_its_own_entry(config, tmp_path):
    prepare(config)
    for settings in ({"validation_fraction": 0.4}, {"max_documents": 50}, {"tokenizer": "bpe-512"}):
        prepare(config.replace(**settings))
    prepare(config_of(tmp_path, "a", [*TEXTS, "one more"]))
    for settings in ({}, {"seed": 1}, {"max_documents": 60}):
        prepare(DataConfig(**{"tokenizer": "byte", "max_documents": 61} | settings))
    assert len(list_cache()) == 8


def test_use_makes_an_entry_young(tmp_path, folder):
    keys = several(tmp_path, "abc")
    assert [entry.key for entry in list_cache()] == [keys["c"], keys["b"], keys["a"]]
    prepare(config_of(tmp_path, "a", [text + "a" for text in TEXTS]))
    assert [entry.key for entry in list_cache()] == [keys["a"], keys["c"], keys["b"]]


# --- bounded, listed, cleared -----------------------------------------------------------------------------------


def test_longest_unused_go_first_and_the_new_one_stays(tmp_path, monkeypatch):
    keys = several(tmp_path, "abcd")
    size = list_cache()[0].bytes
    prepare(config_of(tmp_path, "a", [text + "a" for text in TEXTS]))
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", str(3 * size + size // 2))
    keys |= several(tmp_path, "e")
    assert names_left(keys) == "ade"
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", "1")
    keys |= several(tmp_path, "f")
    assert names_left(keys) == "f"


@pytest.mark.parametrize(
    ("text", "size"),
    [("123", 123), ("2k", 2048), ("1.5M", 3 << 19), ("4G", 4 << 30), ("1 TB", 1 << 40), ("", 4 << 30), (None, 4 << 30)],
)
def test_limit_is_read(monkeypatch, text, size):
    if text is not None:
        monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", text)
    assert cache._limit() == size


@pytest.mark.parametrize("text", ["many", "-1", "4 GiBs", "1e9", "G"])
def test_bad_limit_is_named_before_any_work(monkeypatch, config, folder, text):
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", text)
    monkeypatch.setattr(Tokenizer, "encode_batch", lambda *_: pytest.fail("work was done"))
    with pytest.raises(DataError, match=rf"GLASSBOX_CACHE_LIMIT='{text}' is not a size: .* as in 4G"):
        prepare(config)
    assert not folder.exists()


def test_list_and_clear(tmp_path, folder):
    assert list_cache() == [] and clear_cache() == 0 and not folder.exists()
    keys = several(tmp_path, "abc")
    entries = {entry.key: entry for entry in list_cache()}
    for key, entry in entries.items():
        assert entry.bytes == sum(path.stat().st_size for path in (folder / key).iterdir()) > 1000
        assert f"{entry.bytes:,} bytes" in str(entry) and ".jsonl (1 file, " in str(entry) and "by byte" in str(entry)
    with pytest.raises(DataError, match=r"no prepared data with the key 'x'; there are: [0-9a-f]{20}, "):
        clear_cache([keys["a"], "x"])
    assert len(list_cache()) == 3
    assert clear_cache([keys["b"]]) == entries[keys["b"]].bytes
    assert names_left(keys) == "ac"
    assert clear_cache() == entries[keys["a"]].bytes + entries[keys["c"]].bytes
    assert list(folder.iterdir()) == []


def test_what_others_put_there_is_never_touched(tmp_path, folder, monkeypatch):
    foreign = folder / "mine" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("keep", encoding="utf-8")
    (folder / "loose.bin").write_bytes(b"keep")
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", "1")
    several(tmp_path, "ab")
    clear_cache()
    assert {path.name for path in folder.rglob("*")} == {"mine", "notes.txt", "loose.bin"}


def test_abandoned_work_is_listed_and_cleared_but_work_in_progress_is_not(tmp_path, config, folder):
    for name, age in (("0a.11111111.part", 2 * ABANDONED), ("0b.22222222.part", 0)):
        (folder / name).mkdir(parents=True)
        for file in (cache.MARKER, "train.bin"):
            (folder / name / file).write_bytes(b"some")
            then = (folder / name / file).stat().st_mtime - age
            os.utime(folder / name / file, (then, then))
    assert [entry.key for entry in list_cache()] == ["0a.11111111.part"]
    assert clear_cache() == 8
    assert [path.name for path in folder.iterdir()] == ["0b.22222222.part"]


def test_an_entry_that_is_open_elsewhere_stays(tmp_path, monkeypatch):
    keys = several(tmp_path, "a")

    def in_use(folder):
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(cache, "_remove", in_use)  # as Windows answers
    monkeypatch.setenv("GLASSBOX_CACHE_LIMIT", "1")
    with pytest.warns(UserWarning, match="can't be removed now: .*in use"):
        keys |= several(tmp_path, "b")
    assert names_left(keys) == "ab"
    with pytest.raises(DataError, match="in use"):
        clear_cache()


# --- damaged ----------------------------------------------------------------------------------------------------


def shorten(entry):
    with open(entry / "train.bin", "r+b") as file:
        file.truncate(100)


def damaged_meta(old: str, new: str | None = None):
    """Writes `new` over `old` in meta.json, or `old` alone as all of it."""

    def damage(entry):
        path = entry / "meta.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(old if new is None else text.replace(old, new), encoding="utf-8")

    return damage


DAMAGE = {
    "train.bin has 100 bytes instead of": shorten,
    "validation.bin is missing": lambda entry: (entry / "validation.bin").unlink(),
    "meta.json is missing": lambda entry: (entry / "meta.json").unlink(),
    "meta.json is not as it was written": lambda entry: (entry / "meta.json").write_bytes(b"{"),
    "meta.json is not as it was written: maximum recursion": damaged_meta("[" * 10_000),
    "meta.json is not as it was written: Exceeds": damaged_meta('{"train": ' + "1" * 5000 + "}"),
    "meta.json is not as it was written: 'object' and": damaged_meta('"uint16"', '"object"'),
    "meta.json is not as it was written: 'uint16' and": damaged_meta('"n_documents": ', '"n_documents": -'),
    "meta.json is not as it was written: log_prob": damaged_meta('"log_probability": null', '"log_probability": "x"'),
    "meta.json is not as it was written: 'train'": lambda entry: (entry / "meta.json").write_bytes(b"{}"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_entry_is_made_anew(config, folder, fault):
    whole = np.array(prepare(config).train.tokens)
    DAMAGE[fault](folder / list_cache()[0].key)
    with pytest.warns(UserWarning, match=f"a.jsonl .* is damaged \\({fault}.*made again"):
        again = prepare(config)
    assert np.array_equal(again.train.tokens, whole)
    assert len(list(folder.iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(config)


@pytest.mark.skipif(os.name != "posix", reason="Windows lets nobody cut a mapped file")
@pytest.mark.parametrize("mapped", ["0", "packing.MAPPED"])
def test_a_cache_file_cut_while_it_is_in_use_harms_nobody(config, mapped):
    """In a process of its own: reading a mapped file behind its end kills the process."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from config import DataConfig; from settings.errors import DataError\n"
        f"from lab.data import packing; from lab.data.packing import prepare; packing.MAPPED = {mapped}\n"
        "data = prepare(DataConfig.from_json(sys.argv[1])); side = data.train\n"
        "first = side.batch(0, 0, 2, 30); windows = side.windows(30, 2); next(windows)\n"
        "os.truncate(next(Path(os.environ['GLASSBOX_CACHE']).rglob('train.bin')), 0)\n"
        "for call in (lambda: side.batch(0, 0, 2, 30).sum() - first.sum(), lambda: len(next(windows)) - 2):\n"
        "    try: print(call())\n"
        "    except DataError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, config.to_json()]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lost = "the file of the train tokens in the cache was cut while it was in use: prepare the data again"
    for line in result.stdout.splitlines():
        assert line.startswith(lost) if mapped == "0" else line == "0"
    assert len(result.stdout.splitlines()) == 2
    with pytest.warns(UserWarning, match=r"train\.bin has 0 bytes instead of .* made again"):
        assert len(prepare(config).train) > 30


@pytest.mark.parametrize("times", [1, 2, 99])
def test_an_entry_that_another_process_clears_is_made_again(config, monkeypatch, times):
    expected, opened, left = prepare(config).train.tokens, packing._open, iter(range(times))

    def cleared_first(folder):
        if next(left, None) is not None:
            clear_cache()
        return opened(folder)

    monkeypatch.setattr(packing, "_open", cleared_first)
    if times < cache.ATTEMPTS:
        assert np.array_equal(prepare(config).train.tokens, expected)
    else:
        with pytest.raises(DataError, match=r"was removed 3 times as soon as it was made: another process clears"):
            prepare(config)


def test_a_description_that_is_no_text_is_listed(config, folder):
    prepare(config)
    (folder / list_cache()[0].key / cache.MARKER).write_bytes(b"caf\xe9")
    assert list_cache()[0].description == "caf\ufffd"


def test_an_unknown_home_in_the_name_of_the_cache_is_told(config, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", "~nobody-known/cache")
    with pytest.raises(DataError, match=r"no home directory is known for ~nobody-known/cache: .* GLASSBOX_CACHE"):
        prepare(config)


def test_a_foreign_folder_in_the_way_is_left_alone(config, folder):
    prepare(config)
    key = list_cache()[0].key
    clear_cache()
    (folder / key).mkdir()
    (folder / key / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(DataError, match=f"{key} is in the way, and Glassbox did not make it"):
        prepare(config)
    assert [path.name for path in folder.rglob("*")] == [key, "notes.txt"]


# --- whole or absent --------------------------------------------------------------------------------------------


class FullDisk:
    """Files that take some bytes, and then no more."""

    def __init__(self, path, mode):
        self.file = path.open(mode)

    def write(self, data):
        self.file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self):
        self.file.close()


def test_full_disk_leaves_nothing_and_harms_no_other(tmp_path, folder, monkeypatch):
    keys = several(tmp_path, "a")
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr("lab.data.token_writing.open", FullDisk, raising=False)
    with pytest.raises(DataError, match=r"No space left on device\. .*GLASSBOX_CACHE") as caught:
        several(tmp_path, "b")
    assert f"can't use the cache folder {folder}: " in str(caught.value)
    assert sorted(folder.rglob("*")) == before and names_left(keys) == "a"


def test_cache_folder_that_cannot_be_made_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"can't use the cache folder .*file.cache.data: .*GLASSBOX_CACHE"):
        prepare(config)


def test_read_only_cache_serves_what_it_has(config, monkeypatch):
    first = prepare(config)

    def read_only(path, *_, **__):
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(cache.os, "utime", read_only)
    assert np.array_equal(prepare(config).train.tokens, first.train.tokens)
    monkeypatch.setattr(cache.Path, "mkdir", read_only)
    with pytest.raises(DataError, match=r"can't use the cache folder .*: Read-only file system\. .*GLASSBOX_CACHE"):
        prepare(config.replace(max_documents=50))
    monkeypatch.setattr("numpy.fromfile", read_only)
    with pytest.raises(DataError, match=r"can't use the cache folder .*: Read-only file system"):
        prepare(config)


def test_stopping_in_the_middle_leaves_nothing(config, folder):
    def stop(done, total):
        assert len(list(folder.iterdir())) == 1, "the work goes on in the cache folder"
        assert list_cache() == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config, progress=stop)
    assert list(folder.iterdir()) == []
    assert prepare(config).train.n_documents > 0


def test_two_at_the_same_time_end_with_one_entry(config, folder):
    both_are_writing, results = threading.Barrier(2, timeout=60), []

    def work():
        results.append(prepare(config, progress=lambda done, total: both_are_writing.wait()))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and np.array_equal(results[0].train.tokens, results[1].train.tokens)
    assert [path.name for path in folder.iterdir()] == [list_cache()[0].key]


def test_two_processes_share_the_cache(folder):
    code = (
        "from config import DataConfig; from lab.data.packing import prepare\n"
        "print(prepare(DataConfig(tokenizer='byte', max_documents=300)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", code]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1] == f"{prepare(DataConfig(tokenizer='byte', max_documents=300))}\n"
    assert len(list(folder.iterdir())) == 1
