"""The preview's numbers are those of the documents; what is odd is said in words."""

import gzip
import json
import tracemalloc
from pathlib import Path
from statistics import median

import pytest

from config import DataConfig, list_presets, preset
from lab.data import memory, preview
from lab.data.memory import register_texts
from lab.data.packing import prepare
from lab.data.preview import preview_data
from lab.data.sources import load_documents
from lab.data.tokenizers import load_tokenizer
from lab.terminal import main
from lab.terminal_data import Previewing, parse_previewing
from settings.checked import field_types
from settings.errors import ConfigError, DataError, TokenizerError
from tests.helpers.text_files import TEXTS


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_REGISTERED", {})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def jsonl(name: str, texts) -> None:
    Path(name).write_text("".join(json.dumps({"story": text, "id": 1}) + "\n" for text in texts), encoding="utf-8")


SOURCES = {
    "file": lambda: jsonl("a.jsonl", [*TEXTS, None, *TEXTS[:3], "naïve 世界"]) or "a.jsonl",
    "memory": lambda: register_texts([*TEXTS, *TEXTS[:3], " ", "naïve 世界"]),
    "tales": lambda: "tales",
    "book": lambda: Path("a.txt").write_text("\n".join(TEXTS * 9), encoding="utf-8") and "a.txt",
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("limit", [None, 30])
@pytest.mark.parametrize("split", ["hash", "tail"])
def test_the_numbers_are_those_of_the_documents(tmp_path, kind, limit, split):
    limit = limit or (50 if kind == "tales" else None)
    config = DataConfig(source=SOURCES[kind](), max_documents=limit, tokenizer="bpe-512", validation_fraction=0.3)
    config = config.replace(split="hash" if kind == "tales" else split)
    texts = list(load_documents(config))
    sizes = [len(text.encode()) for text in texts]
    found = preview_data(config, "gpt2-tiny")
    assert (found.n_documents, found.n_bytes) == (len(texts), sum(sizes))
    assert found.sizes == (min(sizes), median(sizes), max(sizes))
    assert found.n_copies == len(texts) - len(set(texts))
    encode = load_tokenizer("bpe-512").encode
    assert found.is_exact and found.n_tokens == sum(len(encode(text)) + 1 for text in texts)
    model, train = preset("gpt2-tiny")
    seen = train.steps * train.batch_size * model.context_length
    assert found.epochs == pytest.approx(seen / (0.7 * found.n_tokens))
    assert list(found.first_lines) == [f"{text[:90]}{'...' * (len(text) > 90)}" for text in (
        text.splitlines()[0] for text in texts[:3]
    )]
    assert not (tmp_path / "cache").exists(), "nothing is stored"
    if kind != "book" and config.split == "hash":
        data = prepare(config)
        assert found.n_tokens == len(data.train) + len(data.validation)
    for said in (repr(found), found._repr_html_()):
        assert f"{found.n_documents:,} of {found.n_bytes:,} bytes" in said and config.source in said


def test_oddities_are_told_in_words():
    jsonl("a.jsonl", [*TEXTS, *TEXTS, *[None] * 20, *[" \n"] * 20, "wrong \ufffd\ufffd", "big " * 5000])
    Path("b.txt").write_bytes(("x" * 5_000_000 + "\nshort").encode("utf-16"))
    Path("c.csv.gz").write_bytes(gzip.compress(b"text,other\n<b>one</b>,1\n"))
    Path("d.csv").write_bytes(b"")
    told = preview_data(DataConfig(source=".", tokenizer="byte"))
    assert (told.n_empty, told.encodings) == (40, {"UTF-8": 2, "UTF-16": 1})
    assert told.text_fields == {"story": 1, "text": 1}
    n = told.n_documents
    expected = [
        f"{40 / (40 + n):.0%} of {40 + n:,} are empty and left out",
        f"{told.n_copies / n:.0%} of {n:,} documents are copies of an earlier one ({told.n_copies:,})",
        "1 document with U+FFFD, which is the mark of a wrong encoding", "one line of 5.0 million characters",
        "files in 2 encodings",
    ]
    assert list(told.oddities) == expected and told.n_copies >= 80
    assert all(oddity in repr(told) for oddity in expected)
    few = preview_data(DataConfig(source="c.csv.gz", tokenizer="byte"))
    assert few.oddities[0] == "one document alone, which can't be split by its hash: give more, or split='tail'"
    assert few.oddities[1] == "the part held out is too short for one window of 128 tokens"
    assert "&lt;b&gt;one&lt;/b&gt;" in few._repr_html_()
    jsonl("e.jsonl", [*TEXTS, "a long one " * 10_000])
    assert preview_data(DataConfig(source="e.jsonl")).oddities == ("one document is 97% of the text",)
    jsonl("f.jsonl", TEXTS * 3)
    assert preview_data(DataConfig(source="f.jsonl", max_documents=80, tokenizer="byte")).oddities == ()
    assert "oddities:     none" in repr(preview_data(DataConfig(source="f.jsonl", max_documents=80, tokenizer="byte")))


def test_a_long_text_is_tokenised_by_a_sample_in_little_memory(monkeypatch):
    monkeypatch.setattr(preview, "TOKENISED", 1 << 17)
    monkeypatch.setattr(preview, "BATCH", 1 << 16)
    texts = [f"{text} {number}" for number in range(400) for text in TEXTS]
    jsonl("a.jsonl", texts)
    config = DataConfig(source="a.jsonl", tokenizer="bpe-512")
    preview_data(config.replace(max_documents=5))
    tracemalloc.start()
    found = preview_data(config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 < sum(map(len, texts)) * 8
    data = prepare(config)
    exact = len(data.train) + len(data.validation)
    assert not found.is_exact and found.n_tokens == pytest.approx(exact, rel=0.02)
    assert f"about {found.n_tokens:,} by bpe-512" in repr(found)


@pytest.mark.parametrize(("settings", "name", "error", "message"), [
    ({"source": "none.txt"}, "llama-tiny", DataError, "no file or folder 'none.txt'"),
    ({"source": "a.jsonl", "text_field": "id"}, "llama-tiny", DataError, "no text in a column 'id'"),
    ({"source": "a.jsonl", "include": ("*.md",)}, "llama-tiny", DataError, "choose files of a folder"),
    ({"source": ".", "include": ("*.md",)}, "llama-tiny", DataError, r"include '\*.md' names no readable file"),
    ({"source": "pydocs", "seed": 1}, "llama-tiny", DataError, "seed=1 is a setting of tales"),
    ({"source": "blank.txt"}, "llama-tiny", DataError, "no text in blank.txt"),
    ({"source": "memory:none"}, "llama-tiny", DataError, "no texts named 'memory:none'"),
    ({"source": "a.jsonl", "tokenizer": "bite"}, "llama-tiny", TokenizerError, "did you mean 'byte'"),
    ({"source": "a.jsonl"}, "lama-tiny", ConfigError, "did you mean 'llama-tiny'"),
])
def test_bad_input_is_refused(settings, name, error, message):
    jsonl("a.jsonl", TEXTS)
    Path("blank.txt").write_text(" \n")
    with pytest.raises(error, match=message):
        preview_data(DataConfig(**settings), name)


def test_the_command_has_all_settings_as_flags(capsys):
    jsonl("a.jsonl", TEXTS)
    with pytest.raises(SystemExit):
        main(["data", "--help"])
    shown = capsys.readouterr().out
    for name in field_types(DataConfig).keys() - {"source"}:
        assert f"--{name.replace('_', '-')}" in shown
    flags = ["--include", "*.md", "a/**", "--split", "tail", "--preset", "gpt2-character"]
    expected = preset("gpt2-character").train.data.replace(
        source="my text.txt", include=("*.md", "a/**"), split="tail"
    )
    assert parse_previewing(["my text.txt", *flags]) == Previewing(preset="gpt2-character", data=expected)
    assert main(["data", "a.jsonl", "--max-documents", "7", "--tokenizer", "byte"]) == 0
    expected = preview_data(DataConfig(source="a.jsonl", max_documents=7, tokenizer="byte"))
    assert capsys.readouterr().out == f"{expected!r}\n" and "llama-tiny" in list_presets()
    assert main(["data", "none.txt"]) == 1 and "no file or folder 'none.txt'" in capsys.readouterr().err
