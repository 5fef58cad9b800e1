"""Folders as people have them: links, pipes, odd names, files that change or can't be read, paths mistyped."""

import bz2
import gzip
import lzma
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config import DataConfig
from lab.data import packing
from lab.data.cache import list_cache
from lab.data.packing import prepare
from lab.data.paths import absolute, find_files, printable
from lab.data.sources import absolute_source, load_documents
from settings.errors import DataError
from settings.paths import ROOT

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and links as POSIX has them")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def write(files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))


def read(source: str, **settings) -> list[str]:
    return list(load_documents(DataConfig(source=source, **settings)))


# --- links and what is no file ----------------------------------------------------------------------------------


@posix
def test_links_to_folders_are_followed_once_and_loops_end():
    write({"data/a.txt": "a", "data/sub/b.txt": "b", "far/c.txt": "c", "far/deep/d.txt": "d"})
    for link, target in {
        "data/self": ".", "data/up": "..", "data/sub/loop": "../..", "data/again": "sub", "data/far": "../far",
        "far/deep/back": "..", "far/deep/root": "/",
    }.items():
        Path(link).symlink_to(target)
    assert read("data") == ["a", "c", "d", "b"]  # in the order of their paths: data/a, data/far/c, ..., data/sub/b
    Path("linked").symlink_to("data")
    assert read("linked") == read("data") == read(str(Path("data").absolute()))


@posix
def test_a_pattern_that_a_link_leads_round_is_refused():
    write({"data/a.txt": "a"})
    Path("data/self").symlink_to(".")
    with pytest.raises(
        DataError, match=r"self is a link to a folder above it.*name the folder in place of the pattern"
    ):
        find_files("data/**/*.txt")
    assert read("data/*.txt") == ["a"]


def make_dangling(path: str) -> None:
    Path(path).symlink_to("/nowhere/at-all")


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


@posix
@pytest.mark.parametrize(("make", "message"), [
    (make_dangling, r"bad.txt is a link that leads nowhere \(/nowhere/at-all\): mend it or remove it"),
    (os.mkfifo, r"bad.txt is a pipe"),
    (make_socket, r"bad.txt is a pipe, a socket"),
    (lambda path: os.symlink("/dev/zero", path), "bad.txt is .* a device, not a regular file"),
])
@pytest.mark.parametrize("source", ["data", "data/bad.txt", "data/*.txt", "data/**"])
def test_what_is_no_file_is_refused_by_name_and_not_waited_for(make, message, source):
    write({"data/a.txt": "a"})
    make("data/bad.txt")
    with pytest.raises(DataError, match=message):
        find_files(source)  # not read: a pipe would be waited for, a device never ends


def test_a_folder_or_file_that_cannot_be_read_is_named(monkeypatch):
    write({"data/a.txt": "a", "data/closed/b.txt": "b"})
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"can't read data.closed: Permission denied"):
        find_files("data")


# --- names ------------------------------------------------------------------------------------------------------

ODD = [
    "new\nline.txt",
    "#a.txt",
    "[b].txt",
    "50%.txt",
    "-x.txt",
    "sp ace.txt",
    "ü.TXT",
    "$HOME.txt",
    "*.txt",
    "c.jsonl",
]


@posix
def test_odd_names_are_read_and_messages_can_be_printed():
    folder = "a:/[odd] #1 %20"
    write({f"{folder}/{name}": f'{{"text": "{number}"}}' for number, name in enumerate(ODD)})
    found = set(read(folder))
    assert found == {f'{{"text": "{number}"}}' for number in range(len(ODD) - 1)} | {str(len(ODD) - 1)}
    for number, name in enumerate(ODD[:-1]):
        assert read(f"a://[odd] #1 %20/{name}") == [f'{{"text": "{number}"}}']
    rows = "text,label\n" + "".join(f"row {number},1\n" for number in range(50))
    write({"new\nline.csv": rows, os.fsdecode(b"raw/caf\xe9\n.csv"): rows})
    for source in ("new\nline.csv", "raw"):
        data = prepare(DataConfig(source=source, tokenizer="byte", validation_fraction=0.3))
        assert data.train.n_documents + data.validation.n_documents == 50
    assert r"new\nline.csv (1 file" in list_cache()[0].description
    write({os.fsdecode(b"raw/caf\xe9\n.csv"): b"\0"})
    with pytest.raises(DataError, match=r"caf\\udce9\\n\.csv is not text"):
        read("raw")
    assert printable("x" * 5000) == "x" * 200 + "..."


@pytest.mark.parametrize(("source", "message"), [
    ("books/mouse_storys.txt", r"folder 'books/mouse_storys.txt'; the nearest name there is 'books.mouse_stories.txt'"),
    ("boks/mouse_stories.txt", r"the nearest name there is 'books'"),
    ("./bokks", r"the nearest name there is 'books'"),
    ("boooks", r"unknown source 'boooks'; the nearest name there is 'books'"),
    ("books/zzzzzz.txt", r"no file or folder 'books/zzzzzz.txt'; choose from"),
    ("a\0b.txt", r"source 'a\\x00b.txt' holds NUL"), ("/" + "x" * 5000, r"no file or folder '/x{199}\.\.\.'"),
    ("/dev/zero", "/dev/zero is .* not a regular file"), ("/dev/null", "/dev/null is .* not a regular file"),
])
def test_a_wrong_path_is_refused_with_the_nearest_name(source, message):
    write({"books/mouse_stories.txt": "a"})
    with pytest.raises(DataError, match=message):
        read(source)


def test_a_path_names_the_same_documents_from_everywhere(tmp_path, monkeypatch):
    write({f"{name}": name for name in ("b.txt", "sub/a.txt", "sub.txt", "Z.md")})
    monkeypatch.setenv("HOME", str(Path.cwd()))
    everywhere = {
        source: absolute(source) for source in (".", "./sub", "*.txt", "**/*.txt", "sub/../b.txt", "~/b.txt", "~")
    }
    expected = {source: read(source) for source in everywhere}
    assert expected["."] == ["Z.md", "b.txt", "sub.txt", "sub/a.txt"]
    monkeypatch.chdir(tmp_path)
    assert {source: read(path) for source, path in everywhere.items()} == expected


def test_a_glob_stays_one_in_a_folder_whose_name_looks_like_one(tmp_path, monkeypatch):
    write({"[x]/a.txt": "a", "[x]/b.md": "b"})
    monkeypatch.chdir("[x]")
    path = absolute_source(DataConfig(source="*.txt"))
    monkeypatch.chdir(tmp_path)
    assert read(path) == ["a"]


# --- contents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_gzip_under_a_wrong_name_is_read(kind):
    write({f"a.{kind}": gzip.compress(b'{"text": "one"}\n' if kind == "jsonl" else b"text\none\n")})
    assert read(f"a.{kind}") == (["text\none\n"] if kind == "txt" else ["one"])


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("pack", "packer"), [
    (lzma.compress, "xz: unpack it first"), (bz2.compress, "bzip2: unpack it first"),
    (lambda text: b"\x28\xb5\x2f\xfd" + text, "zstd: unpack it first"),
    (lambda text: b"PK\x03\x04" + text, r"zip: name it \.zip"),
    (lambda text: gzip.compress(gzip.compress(text)), "gzip twice: unpack it first"),
])
def test_packed_files_under_a_wrong_name_say_so(kind, pack, packer):
    write({f"a.{kind}": pack(b"text")})
    with pytest.raises(DataError, match=rf"a.{kind} is not text but packed by {packer}"):
        read(f"a.{kind}")


def change(path: Path) -> None:
    path.write_text("text\nother\n" * 50, encoding="utf-8")


@pytest.mark.parametrize("harm", [change, Path.unlink])
@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("name", ["data/a.csv", "data/b.csv"])
def test_a_file_that_changes_while_it_is_read_is_noticed(harm, limit, name):
    rows = "text,label\n" + "".join(f"row {number},1\n" for number in range(300))
    write({"data/a.csv": rows, "data/b.csv": rows})
    documents = load_documents(DataConfig(source="data", max_documents=limit))
    texts = iter(documents)
    assert next(texts) == "row 0"
    harm(Path(name))
    with pytest.raises(DataError, match=rf"{name} changed while it was read"):
        list(texts)


def test_nothing_is_cached_of_a_file_that_changes(tmp_path, monkeypatch):
    write({"a.csv": "text,label\n" + "".join(f"row {number},1\n" for number in range(300))})
    monkeypatch.setattr(packing, "CHUNK", 200)
    with pytest.raises(DataError, match=r"a\.csv changed while it was read"):
        prepare(DataConfig(source="a.csv", tokenizer="byte"), progress=lambda done, total: change(Path("a.csv")))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_equal_texts_have_equal_fingerprints_whatever_the_settings():
    write({"a.csv": "text,label\n" + "".join(f"row {number},1\n" for number in range(100))})
    write({"b.jsonl": "".join(f'{{"text": "row {number}"}}\n' for number in range(100))})
    settings = ({"source": "a.csv"}, {"source": "a.csv", "max_documents": 1000}, {"source": "b.jsonl"},
                {"source": "a.csv", "text_field": "text", "max_documents": 100})
    made = [prepare(DataConfig(tokenizer="byte", **values)) for values in settings]
    assert len({(data.train.fingerprint, data.validation.fingerprint) for data in made}) == 1
    fewer = prepare(DataConfig(source="a.csv", tokenizer="byte", max_documents=99))
    assert fewer.train.fingerprint != made[0].train.fingerprint


# --- surroundings -----------------------------------------------------------------------------------------------


@posix
def test_no_home_directory_says_what_to_do():
    code = (
        "import os, pwd\n"
        "def unknown(_): raise KeyError('no such user')\n"
        "pwd.getpwuid = unknown\n"
        "from config import DataConfig\nfrom settings.errors import DataError\n"
        "from lab.data.cache import list_cache\nfrom lab.data.packing import prepare\n"
        "for call in (list_cache, lambda: prepare(DataConfig(tokenizer='byte', max_documents=40))):\n"
        "    try: print(call())\n"
        "    except DataError as error: print(error)\n"
    )
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "GLASSBOX", "HOME"))}
    environment = {**keep, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and os.listdir() == [], result.stderr
    assert result.stdout.count("no home directory is known") == 2 and result.stdout.count("GLASSBOX_CACHE") == 2


@pytest.mark.parametrize("wrong", ["tales", None, 5, ["a.txt"]])
def test_what_is_no_config_is_refused_with_an_example(wrong):
    example = wrong if isinstance(wrong, str) else "tales"
    for function in (prepare, load_documents):
        message = (
            rf"{function.__name__} takes a DataConfig, not {type(wrong).__name__}: DataConfig\(source='{example}'\)"
        )
        with pytest.raises(DataError, match=message):
            function(wrong)
