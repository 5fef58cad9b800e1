"""The tail of a text is held out as the character-level baselines hold it out: exactly, and without cuts."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from config import DataConfig
from lab.data import own_files
from lab.data.packing import prepare
from lab.data.sources import load_documents
from lab.data.token_file import TokenFile
from settings.errors import DataError

LINES = [f"Line {number} of a text, naïve and 世界: {'word ' * (number % 40)}" for number in range(900)]
TEXT = "\n".join(LINES) + "\n\n  "


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def prepared(source: str, **settings):
    usual = {"source": source, "tokenizer": "byte", "split": "tail", "validation_fraction": 0.1}
    return prepare(DataConfig(**usual | settings))


def texts_of(side: TokenFile, tokenizer) -> list[str]:
    """The documents of a side, as its tokens give them."""
    parts = np.split(side.tokens, np.flatnonzero(side.tokens == tokenizer.end_of_text) + 1)
    assert len(parts.pop()) == 0
    return [tokenizer.decode(part[:-1].tolist()) for part in parts]


@pytest.mark.parametrize("tokenizer", ["byte", "character", "bpe-512"])
@pytest.mark.parametrize("piece", [64, own_files.LONGEST_PIECE])
@pytest.mark.parametrize("fraction", [0.1, 0.05, 0.5, 0.9999])
def test_one_text_is_cut_once_as_nanogpt_cuts_it(monkeypatch, tokenizer, piece, fraction):
    monkeypatch.setattr(own_files, "LONGEST_PIECE", piece)
    Path("a.txt").write_text(TEXT, encoding="utf-8")
    data = prepared("a.txt", tokenizer=tokenizer, validation_fraction=fraction)
    border = int(len(TEXT) * (1 - fraction))
    assert texts_of(data.train, data.tokenizer) == [TEXT[:border]]
    assert texts_of(data.validation, data.tokenizer) == [TEXT[border:]]
    assert (data.train.n_documents, data.validation.n_documents) == (1, 1)
    assert data.train.n_bytes == len(TEXT[:border].encode())
    if tokenizer == "byte":
        stream = [*data.train.tokens[:-1], *data.validation.tokens[:-1]]
        assert bytes(stream) == TEXT.encode() and data.train.tokens[-1] == data.tokenizer.end_of_text


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.777])
def test_of_many_documents_the_last_characters_are_held_out(fraction):
    Path("a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES), encoding="utf-8")
    data = prepared("a.jsonl", validation_fraction=fraction)
    train, held_out = (texts_of(side, data.tokenizer) for side in (data.train, data.validation))
    whole = "".join(LINES)
    border = int(len(whole) * (1 - fraction))
    assert ("".join(train), "".join(held_out)) == (whole[:border], whole[border:])
    assert train[:-1] == LINES[: len(train) - 1] and held_out[1:] == LINES[len(LINES) - len(held_out) + 1 :]


def test_a_border_between_documents_cuts_none():
    rows = [json.dumps({"text": text}) for text in ("12345", "67890", "abcde", "fghij")]
    Path("a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = prepared("a.jsonl", validation_fraction=0.25)
    assert texts_of(data.train, data.tokenizer) == ["12345", "67890", "abcde"]
    assert texts_of(data.validation, data.tokenizer) == ["fghij"]


def test_each_text_file_is_one_document(monkeypatch):
    for name, text in {"a.txt": TEXT, "b.md": " \n " * 50_000, "c.txt": TEXT[:9000]}.items():
        Path(name).write_text(text, encoding="utf-8")
    Path("d.txt.gz").write_bytes(gzip.compress(TEXT[:20_000].encode()))
    documents = load_documents(DataConfig(source="?.*", split="tail"))
    assert list(documents) == [TEXT, TEXT[:9000], TEXT[:20_000]] and len(documents) == 3
    assert list(load_documents(DataConfig(source="?.*", split="tail", max_documents=2))) == [TEXT, TEXT[:9000]]
    calls = []
    prepare(DataConfig(source="?.*", split="tail", tokenizer="byte"), progress=lambda *counts: calls.append(counts))
    assert calls[-1] == (3, 3)


def test_equal_texts_have_equal_fingerprints_however_they_are_stored():
    Path("a.txt").write_text(TEXT * 30, encoding="utf-8")
    Path("a.jsonl").write_text(json.dumps({"text": TEXT * 30}), encoding="utf-8")
    Path("b.txt.gz").write_bytes(gzip.compress((TEXT * 30).replace("\n", "\r\n").encode("utf-16")))
    made = [prepared(source) for source in ("a.txt", "a.jsonl", "b.txt.gz")]
    assert len(TEXT * 30) > 4 * own_files.LONGEST_PIECE
    assert len({(data.train.fingerprint, data.validation.fingerprint) for data in made}) == 1
    assert len({data.train.tokens.tobytes() for data in made}) == 1
    other = prepared("a.txt", validation_fraction=0.2)
    assert other.train.fingerprint != made[0].train.fingerprint
    hashed = prepared("a.txt", split="hash")
    assert hashed.validation.fingerprint != made[0].validation.fingerprint and hashed.train.n_documents > 1


@pytest.mark.parametrize(("settings", "message"), [
    ({"source": "one.txt"}, r"one.txt: validation_fraction=0.1 leaves 0 characters for train and 1 for validation"),
    ({"source": "few.txt", "validation_fraction": 1e-17}, r"leaves 5 characters for train and 0 for validation."),
    ({"source": "tales"}, r"split='tail' would cut a tale in two, whose probability is unknown: leave split at 'hash'"),
])
def test_a_tail_that_can_not_be_is_refused(settings, message):
    Path("one.txt").write_text("x")
    Path("few.txt").write_text("short")
    with pytest.raises(DataError, match=message):
        prepared(**settings)
