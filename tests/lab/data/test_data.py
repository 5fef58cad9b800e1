"""Documents, their split, the packed stream, and the windows taken from it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from config import DataConfig
from lab.data import packing, tales
from lab.data.hub_sets import HUB_SETS
from lab.data.own_files import cut
from lab.data.packing import prepare
from lab.data.sources import list_sources, load_documents
from lab.data.token_file import TokenFile
from settings.errors import DataError, GlassboxError, TokenizerError
from settings.paths import ROOT

TEXTS = [f"Document {number}: " + "one two three. " * (number % 7) for number in range(200)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def write_jsonl(path: Path, texts) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return str(path)


def byte_config(source: str, **settings) -> DataConfig:
    return DataConfig(source=source, tokenizer="byte", **settings)


def documents_of(side: TokenFile, tokenizer) -> list[str]:
    """The texts of a side: the stream split at the end of text, decoded."""
    parts = np.split(side.tokens, np.flatnonzero(side.tokens == tokenizer.end_of_text) + 1)
    assert len(parts.pop()) == 0, "the stream must end with the end of text"
    return [tokenizer.decode(part[:-1].tolist()) for part in parts]


def stream(length: int) -> TokenFile:
    """Tokens that are their own positions."""
    return TokenFile("train", np.arange(length, dtype=np.uint16), n_documents=1, n_bytes=length)


# --- split and packing ------------------------------------------------------------------------------------------


def test_split_by_hash_is_stable_under_growth_and_never_leaks(tmp_path):
    half = prepare(byte_config(write_jsonl(tmp_path / "half.jsonl", TEXTS[:100]), validation_fraction=0.2))
    grown = TEXTS[150:] + TEXTS[:150] + TEXTS[:30]
    whole = prepare(byte_config(write_jsonl(tmp_path / "whole.jsonl", grown), validation_fraction=0.2))
    before = {side.name: set(documents_of(side, half.tokenizer)) for side in (half.train, half.validation)}
    after = {side.name: documents_of(side, whole.tokenizer) for side in (whole.train, whole.validation)}
    for name in before:
        assert before[name] == set(after[name]) & set(TEXTS[:100])
    assert not set(after["train"]) & set(after["validation"])
    assert len(after["train"]) + len(after["validation"]) == len(grown)


def test_held_out_share_is_the_fraction():
    places = [packing.held_out_place(f"text {number}") for number in range(4000)]
    assert min(places) >= 0 and max(places) < 1
    for fraction in (0.05, 0.5):
        deviation = np.sqrt(fraction * (1 - fraction) / len(places))
        assert np.mean(np.array(places) < fraction) == pytest.approx(fraction, abs=4 * deviation)
    digest = hashlib.blake2b("naïve".encode(), digest_size=6).hexdigest()
    assert packing.held_out_place("naïve") == int(digest, 16) / 16**12


@pytest.mark.parametrize(("tokenizer", "mapped"), [("byte", False), ("bpe-512", False), ("bpe-512", True)])
def test_stream_holds_the_documents_of_each_side_in_order(tmp_path, monkeypatch, tokenizer, mapped):
    monkeypatch.setattr(packing, "MAPPED", 0 if mapped else packing.MAPPED)
    texts = [*TEXTS, "an <|endoftext|> inside", "naïve Ünïcödé 🦊\n\n  spaces  ", *TEXTS[:3]]
    source = write_jsonl(tmp_path / "a.jsonl", texts)
    data = prepare(DataConfig(source=source, tokenizer=tokenizer, validation_fraction=0.3))
    for side, held_out in ((data.train, False), (data.validation, True)):
        expected = [text for text in texts if (packing.held_out_place(text) < 0.3) == held_out]
        assert documents_of(side, data.tokenizer) == expected
        assert side.n_documents == len(expected)
        assert side.n_bytes == sum(len(text.encode("utf-8")) for text in expected)
        assert side.tokens.dtype == np.uint16 and isinstance(side.tokens, np.memmap) == mapped
        assert type(side.batch(0, 0, 2, 3)) is type(next(side.windows(3, 2))) is np.ndarray
    assert data.floor is None


def test_chunks_change_nothing(tmp_path, monkeypatch):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    large = prepare(byte_config(source))
    large_tokens = np.array(large.train.tokens)
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(packing, "CHUNK", 300)
    assert np.array_equal(prepare(byte_config(source)).train.tokens, large_tokens)


def test_floor_of_tales_is_their_entropy_per_token():
    data = prepare(DataConfig(tokenizer="bpe-512", max_documents=120, seed=3, validation_fraction=0.2))
    stories = list(tales.stories(120, seed=3))
    held_out = [story for story in stories if packing.held_out_place(story.text) < 0.2]
    assert documents_of(data.validation, data.tokenizer) == [story.text for story in held_out]
    n_tokens = sum(len(data.tokenizer.encode(story.text)) + 1 for story in held_out)
    assert len(data.validation) == n_tokens
    assert data.floor == pytest.approx(-sum(story.log_probability for story in held_out) / n_tokens, rel=1e-12)
    bits_per_byte = data.floor * n_tokens / data.validation.n_bytes / np.log(2)
    assert bits_per_byte == pytest.approx(tales.entropy(held_out), rel=1e-12)


class WideTokenizer:
    """One id per character, far above what 16 bits hold."""

    name, fingerprint, vocab_size, end_of_text = "wide", "wide-1", 70_257, 70_256

    def encode_batch(self, texts):
        return [[70_000 + byte for byte in text.encode("utf-8")] for text in texts]


def test_large_vocabularies_take_32_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "load_tokenizer", lambda name: WideTokenizer())
    data = prepare(byte_config(write_jsonl(tmp_path / "a.jsonl", TEXTS)))
    assert data.train.tokens.dtype == np.uint32
    first = next(text for text in TEXTS if packing.held_out_place(text) >= 0.05)
    expected = [70_000 + byte for byte in first.encode("utf-8")] + [70_256]
    assert data.train.tokens[: len(expected)].tolist() == expected


def test_tokens_out_of_the_vocabulary_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(WideTokenizer, "vocab_size", 70_100)
    monkeypatch.setattr(packing, "load_tokenizer", lambda name: WideTokenizer())
    with pytest.raises(TokenizerError, match=r"wide gives ids from 70\d+ to 70256, but its vocab_size is 70100"):
        prepare(byte_config(write_jsonl(tmp_path / "a.jsonl", TEXTS)))


def test_progress_counts_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "CHUNK", 1000)
    calls = []
    prepare(byte_config(write_jsonl(tmp_path / "a.jsonl", TEXTS)), progress=lambda *counts: calls.append(counts))
    assert calls[-1] == (200, 200) and len(calls) > 5
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_reprs_tell_the_sizes(tmp_path):
    data = prepare(byte_config(write_jsonl(tmp_path / "a.jsonl", TEXTS)))
    assert f"train: {len(data.train):,} tokens in {data.train.n_documents} documents" in repr(data)
    assert "validation: " in repr(data) and "bytes per token" in repr(data)
    assert "1 file, " in repr(load_documents(data.config))


# --- batches and windows ----------------------------------------------------------------------------------------


def test_batch_is_a_pure_function():
    one, other = stream(1000), stream(1000)
    first = one.batch(seed=5, step=7, batch_size=4, length=10)
    assert first.shape == (4, 11) and first.dtype == np.int64
    for step in range(200):
        other.batch(seed=6, step=step, batch_size=3, length=9)
    assert np.array_equal(first, other.batch(seed=5, step=7, batch_size=4, length=10))
    first[:] = -1
    assert np.array_equal(one.batch(5, 7, 4, 10), other.batch(5, 7, 4, 10))
    assert not np.array_equal(one.batch(5, 7, 4, 10), one.batch(5, 8, 4, 10))
    assert not np.array_equal(one.batch(5, 7, 4, 10), one.batch(6, 7, 4, 10))


@pytest.mark.parametrize(("n_tokens", "length"), [(1000, 10), (1001, 10), (1009, 10), (21, 20), (39, 20), (50, 1)])
def test_each_window_comes_once_per_epoch(n_tokens, length):
    tokens = stream(n_tokens)
    n_windows = tokens.n_windows(length)
    assert n_windows * length > n_tokens - 1 - length
    epochs = [tokens.batch(0, epoch, n_windows, length) for epoch in range(3)]
    for windows in epochs:
        assert np.array_equal((windows[:, :1] + np.arange(length + 1)) % n_tokens, windows)
        assert len(np.unique(windows[:, 1:])) == n_windows * length
    if n_windows > 2:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.all(np.diff(epochs[0][:, 0]) > 0), "the order must be random"


def test_batches_run_through_the_epochs_whatever_their_size():
    tokens = stream(103)  # 10 windows of 10 an epoch: batches of 7 and of 25 straddle epochs
    one_by_one = np.concatenate([tokens.batch(1, step, 1, 10) for step in range(175)])
    for batch_size in (5, 7, 25):
        batches = [tokens.batch(1, step, batch_size, 10) for step in range(175 // batch_size)]
        assert np.array_equal(np.concatenate(batches), one_by_one)


def test_every_token_becomes_a_target_at_every_place():
    tokens = stream(25)
    rows = np.concatenate([tokens.batch(0, step, 2, 10) for step in range(400)])
    assert all(len(np.unique(column)) == 25 for column in rows.T)


@pytest.mark.parametrize("max_tokens", [None, 1, 9, 10, 57, 990, 10_000])
@pytest.mark.parametrize("n_tokens", [11, 1000, 1001])
def test_windows_score_each_target_exactly_once(n_tokens, max_tokens):
    tokens = stream(n_tokens)
    windows = list(tokens.windows(length=10, batch_size=4, max_tokens=max_tokens))
    targets = np.concatenate([window[:, 1:].ravel() for window in windows])
    assert targets.tolist() == list(range(1, min(n_tokens, (max_tokens or n_tokens) + 1)))
    for window in windows:
        assert window.dtype == np.int64 and len(window) <= 4
        assert np.array_equal(window[:, 1:], window[:, :-1] + 1)
    assert all(window.shape[1] == 11 for window in windows[:-1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tokens: tokens.batch(0, 0, 1, 20), "the train tokens are 20, too few for one window of 20"),
        (lambda tokens: tokens.windows(20, 1), "too few for one window of 20"),
        (lambda tokens: tokens.n_windows(0), "1 target or more, not 0"),
        (lambda tokens: tokens.batch(-1, 0, 1, 5), "seed and step >= 0"),
        (lambda tokens: tokens.batch(0, -1, 1, 5), "seed and step >= 0"),
        (lambda tokens: tokens.batch(0, 0, 0, 5), "batch_size >= 1"),
        (lambda tokens: tokens.windows(5, 0), "must be 1 or more, not 0"),
        (lambda tokens: tokens.windows(5, 1, 0), "must be 1 or more, not 1 and 0"),
    ],
)
def test_impossible_windows_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(stream(20))


# --- sources ----------------------------------------------------------------------------------------------------


def test_built_in_sources():
    assert list(list_sources()) == ["tales", "pydocs", "pycode", *HUB_SETS]
    assert len(load_documents(DataConfig())) == 20_000
    documents = load_documents(DataConfig(max_documents=5, seed=2))
    assert list(documents) == [tales.story(index, 2).text for index in range(5)] == list(documents)
    code = load_documents(DataConfig(source="pycode", max_documents=3))
    assert len(code) == 3 and all("def " in text or "import " in text for text in code)
    prints = {load_documents(DataConfig(**settings)).fingerprint for settings in (
        {}, {"seed": 1}, {"max_documents": 9}, {"source": "pydocs"}, {"source": "pycode"},
        {"source": "pycode", "max_documents": 9},
    )}
    assert len(prints) == 6


def test_folder_is_read_in_order_without_hidden_files(tmp_path):
    folder = tmp_path / "my [odd] folder"
    for name, text in {
        "b.txt": "second", "a/z.md": "first", ".git/c.txt": "hidden", ".d.txt": "hidden", "empty.py": "",
        "c.py": "x = 1\n" * 2000, "e.jsonl": '{"text": "row"}\n', "picture.png": "\0", "blank.txt": " \n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    expected = ["first", "second", "x = 1\n" * 2000, "row"]
    assert list(load_documents(DataConfig(source=str(folder)))) == expected
    assert list(load_documents(DataConfig(source="my [[]odd] folder/**/*.txt"))) == ["second"]
    assert list(load_documents(DataConfig(source=str(folder), max_documents=2))) == expected[:2]


def test_texts_lose_byte_order_mark_and_carriage_returns(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(load_documents(DataConfig(source="a.txt"))) == ["one\ntwo\n"]


@pytest.mark.parametrize("text", [
    "\n\n".join("A paragraph of some length. " * (number % 9) for number in range(200)),
    "a line\n" * 3000, "word " * 4000, "x" * 9001, "", "short", "y" * 4000,
])
def test_cut_pieces_are_the_text(text):
    pieces = list(cut(text))
    assert "".join(pieces) == text
    assert all(2000 <= len(piece) <= 4000 for piece in pieces[:-1]) and len(pieces[-1]) <= 4000
    boundary = next((sign for sign in ("\n\n", "\n", " ") if sign in text), "")
    assert all(piece.endswith(boundary) for piece in pieces[:-1])


def test_a_single_book_gives_both_sides(tmp_path):
    book = "\n\n".join(f"Paragraph {number} " + "says something. " * 20 for number in range(600))
    (tmp_path / "book.txt").write_text(book, encoding="utf-8")
    data = prepare(byte_config("book.txt"))
    assert data.train.n_bytes + data.validation.n_bytes == len(book)
    assert 0.01 < data.validation.n_bytes / len(book) < 0.12


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tables(tmp_path, kind):
    texts = ['one, "two"\nthree', None, "NA", "ümläut", "   ", "007"]
    rows = pandas.DataFrame({"id": range(6), "author": "A", "story": texts, "letter": list("abcdef")})
    if kind == "jsonl":
        rows.to_json("rows.jsonl", orient="records", lines=True)
    elif kind == "csv":
        rows.to_csv("rows.csv", index=False)
    else:
        rows.to_parquet("rows.parquet")
    expected = [texts[0], "NA", "ümläut", "007"]
    assert list(load_documents(DataConfig(source=f"rows.{kind}"))) == expected
    assert list(load_documents(DataConfig(source=f"rows.{kind}", text_field="letter"))) == list("abcdef")


def test_csv_cells_are_text_whatever_they_look_like(tmp_path):
    rows = ["0" + str(number) for number in range(300)]
    (tmp_path / "a.csv").write_text("id,text\n1,first\n" + "".join(f"2,{row}\n" for row in rows), encoding="utf-8")
    assert list(load_documents(DataConfig(source="a.csv"))) == ["first", *rows]


def test_the_only_text_column_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("id,utterance\n1,hello\n2,bye\n", encoding="utf-8")
    assert list(load_documents(DataConfig(source="a.csv"))) == ["hello", "bye"]


def test_nothing_heavy_is_imported_and_nothing_global_changes(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", TEXTS)
    code = (
        "import os, sys; from pathlib import Path; import lab.data.packing; from config import DataConfig\n"
        "heavy = {'torch', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules); assert not heavy, heavy\n"
        "before, home = dict(os.environ), Path.home()\n"
        "lab.data.packing.prepare(DataConfig(source='a.jsonl', tokenizer='byte'))\n"
        "assert dict(os.environ) == before\n"
        "assert not (home / '.cache').exists(), list((home / '.cache').rglob('*'))\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))},
        "HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8",
    }
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# --- bad input --------------------------------------------------------------------------------------------------

FILES = {
    "empty.txt": b"", "blank.txt": b" \n\n", "nul.txt": b"abc\0def", "latin.txt": b"x" * (1 << 20) + b"caf\xe9 noir",
    "split.md": b"y" * ((1 << 20) - 1) + b"\xc3\xa9\xc3(", "cut.txt": b"abc\xe2\x82", "notes.docx": b"PK",
    "bad.jsonl": b'{"text": "x"}\n{"text":\n', "empty.jsonl": b"", "blank.jsonl": b"\n\n",
    "two.jsonl": b'{"title": "a", "plot": "b", "year": 1}\n', "numbers.csv": b"a,b\n1,2\n",
    "head.csv": b"text,b\n", "ragged.csv": b"a,b\n1,2\n1,2,3,4\n", "bad.parquet": b"PAR1 no PAR1",
    "mixed.jsonl": b'{"text": "x"}\n{"text": 3}\n', "one.txt": b"only one document", "strings.jsonl": b'"a"\n"b"\n',
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "tails"}, r"unknown source 'tails'; did you mean 'tales'\? choose from: pycode, pydocs, tales, or"),
        ({"source": "TinyStories"}, r"unknown source 'TinyStories'.*pycode, pydocs, tales"),
        ({"source": "books/none.txt"}, r"no file or folder 'books/none.txt'.*pycode, pydocs, tales"),
        ({"source": "Once upon a time " * 300}, r"unknown source 'Once upon a time .*pycode, pydocs, tales"),
        ({"source": "~nobody-known/x.txt"}, r"no file or folder '~nobody-known/x.txt'"),
        ({"source": "nothing-*.txt"}, r"no file matches 'nothing-\*.txt', searched in"),
        ({"source": "hollow"}, r"folder .*hollow holds no file of the kinds .txt, .md"),
        ({"source": "notes.docx"}, r"can't read notes.docx: its kind is none of .txt, .md"),
        ({"source": "empty.txt"}, r"empty.txt is empty"),
        ({"source": "empty.jsonl"}, r"empty.jsonl is empty"),
        ({"source": "blank.txt"}, r"no text in blank.txt"),
        ({"source": "[be][lm][ap][nt][ky].txt"}, r"no text in blank.txt and 1 more"),
        ({"source": "nul.txt"}, r"nul.txt is not text: byte 3 is NUL.*UTF-8"),
        ({"source": "latin.txt"}, r"latin.txt is not UTF-8 text: invalid continuation byte at byte 1048579\."),
        ({"source": "split.md"}, r"split.md is not UTF-8 text: invalid continuation byte at byte 1048577\."),
        ({"source": "cut.txt"}, r"cut.txt is not UTF-8 text: unexpected end of data at byte 3\."),
        ({"source": "bad.jsonl"}, r"can't read bad.jsonl: "),
        ({"source": "strings.jsonl"}, r"can't read strings.jsonl: "),
        ({"source": "bad.parquet"}, r"can't read bad.parquet: "),
        ({"source": "ragged.csv"}, r"can't read ragged.csv: .*line 3"),
        ({"source": "blank.jsonl"}, r"blank.jsonl has no rows"),
        ({"source": "head.csv"}, r"head.csv has no rows"),
        ({"source": "two.jsonl"}, r"are title, plot, year; with text: title, plot. Choose .*text_field='title'"),
        ({"source": "two.jsonl", "text_field": "text"}, r"no text in a column 'text'. Its columns are title, plot"),
        ({"source": "two.jsonl", "text_field": "year"}, r"no text in a column 'year'"),
        ({"source": "numbers.csv"}, r"columns are a, b; with text: none. Give a file with a column of text"),
        ({"source": "mixed.jsonl"}, r"row 2 of mixed.jsonl holds no text in 'text', but 3 \(int\)"),
        ({"source": "one.txt"}, r"leaves 1 for train and 0 for validation of 1 documents. Give two documents or more"),
        ({"source": "one.txt", "text_field": "text"}, r"text_field='text' names a column, but one.txt has no columns"),
        ({"source": "pydocs", "text_field": "text"}, r"'pydocs' has no columns: leave text_field out"),
        ({"source": "one.txt", "seed": 1}, r"seed=1 is a setting of tales, not of 'one.txt': leave seed at 0"),
        ({"source": "tales", "tokenizer": "bpe-77"}, r"unknown tokenizer 'bpe-77'"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(tmp_path, settings, message):
    (tmp_path / "hollow").mkdir()
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GlassboxError, match=message):
        prepare(DataConfig(**{"tokenizer": "byte"} | settings))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("small", [True, False])
def test_an_empty_side_names_the_fraction_that_fills_it(tmp_path, small):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS[:10])
    with pytest.raises(DataError, match=r"of 10 documents. Give more documents, or a fraction of") as caught:
        prepare(byte_config(source, validation_fraction=1e-6 if small else 0.999999))
    remedy = float(str(caught.value).rsplit("a fraction of ")[1].split()[0])
    data = prepare(byte_config(source, validation_fraction=remedy))
    assert (data.validation if small else data.train).n_documents == 1


def test_tokenizers_share_the_split(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    byte, bpe = (prepare(DataConfig(source=source, tokenizer=name)) for name in ("byte", "bpe-512"))
    assert byte.validation.n_bytes == bpe.validation.n_bytes
    assert len(byte.validation) > len(bpe.validation)
