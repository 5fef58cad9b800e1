"""Texts in memory are a source like any other; a run tells them apart by their content and needs the same to go on."""

import os
import subprocess
import sys

import numpy as np
import pandas
import pytest

from config import DataConfig
from lab.data import memory
from lab.data.memory import register_texts
from lab.data.packing import prepare
from lab.data.sources import list_sources, load_documents
from lab.runs.run import Run
from lab.training.loop import train
from settings.errors import DataError
from settings.paths import ROOT
from tests.helpers.small_trainings import assert_same, new_run
from tests.helpers.text_files import TEXTS, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "_REGISTERED", {})


def read(source: str, **settings) -> list[str]:
    return list(load_documents(DataConfig(source=source, **settings)))


WAYS = {
    "list": list, "tuple": tuple, "iterator": iter, "generator": lambda texts: (text for text in texts),
    "pandas": lambda texts: pandas.DataFrame({"text": texts})["text"], "numpy": np.array,
    "strings of pandas": lambda texts: pandas.Series(texts, dtype="string", index=range(5, 5 + len(texts))),
}


@pytest.mark.parametrize("way", WAYS)
def test_any_row_of_texts_is_a_source(way):
    source = register_texts(WAYS[way](TEXTS), name="mine")
    assert source == "memory:mine"
    assert read(source) == read(source) == TEXTS and all(type(text) is str for text in read(source))
    assert read(source, max_documents=3) == TEXTS[:3]
    assert repr(load_documents(DataConfig(source=source))) == (
        f"Documents('memory:mine': 80 texts in memory, {sum(map(len, TEXTS)):,} characters)"
    )
    assert list_sources()["memory:mine"].startswith("80 texts in memory")


def test_a_source_in_memory_is_the_text_that_a_file_holds(tmp_path):
    file = write(tmp_path / "a.jsonl", TEXTS)
    settings = dict(tokenizer="byte", validation_fraction=0.3)
    for split in ("hash", "tail"):
        one = prepare(DataConfig(source=register_texts([*TEXTS, " \n", ""]), split=split, **settings))
        other = prepare(DataConfig(source=str(file), split=split, **settings))
        assert one.train.tokens.tobytes() == other.train.tokens.tobytes()
        assert (one.train.fingerprint, one.validation.fingerprint) == (
            other.train.fingerprint, other.validation.fingerprint
        )


def test_texts_of_the_same_name_replace_those_before():
    first = load_documents(DataConfig(source=register_texts(TEXTS)))
    second = load_documents(DataConfig(source=register_texts(TEXTS[::-1])))
    assert (list(first), list(second)) == (TEXTS, TEXTS[::-1]) and first.fingerprint != second.fingerprint
    joined = load_documents(DataConfig(source=register_texts(["ab", "c"])))
    assert joined.fingerprint != load_documents(DataConfig(source=register_texts(["a", "bc"]))).fingerprint


@pytest.mark.parametrize(("texts", "message"), [
    (["a", None], r"row 2 is no text, but None \(NoneType\): leave such rows out, as column.dropna\(\)"),
    (pandas.Series(["a", "b", None]), r"row 3 is no text, but (None|nan) "),
    ([float("nan")], r"row 1 is no text, but nan"),
    (["a", "b", 5], r"row 3 is no text, but 5 \(int\)"), ([b"a"], r"row 1 is no text, but b'a' \(bytes\)"),
    (["a", "\ud800"], r"row 2 holds half of a surrogate pair"), ([["a"]], r"row 1 is no text, but \['a'\] \(list\)"),
    ("a text", r"takes many texts: put a single one into a list"), (b"ab", r"put a single one into a list"),
    (5, r"takes a list of texts, not 5, a int"), (None, r"takes a list of texts, not None, a NoneType"),
    ([], r"no text among these 0 rows"), ([" ", "\n"], r"no text among these 2 rows"),
    (pandas.DataFrame({"text": ["a"]}), r"a DataFrame has columns: give the one with the texts, as in table\['text'\]"),
    ({"a": 1}, r"a dict has columns"),
])
def test_what_is_no_text_is_refused_with_its_row(texts, message):
    register_texts(["before"])
    with pytest.raises(DataError, match=message):
        register_texts(texts)
    assert read("memory:mine") == ["before"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 81, 5, None, "a\n"])
def test_a_name_is_of_letters_and_digits(name):
    with pytest.raises(DataError, match=r"can't be the name of texts: use up to 80 letters"):
        register_texts(TEXTS, name)


@pytest.mark.parametrize(("settings", "message"), [
    ({"source": "memory:none"}, r"no texts named 'memory:none'; there are: memory:mine\. .*texts, name='none'\), then"),
    ({"text_field": "text"}, r"'memory:mine' has no columns"),
    ({"encoding": "cp1252"}, r"encoding='cp1252' is a setting of"), ({"seed": 1}, r"seed=1 is a setting of tales"),
    ({"source": "memori"}, r"choose from: memory:mine, pycode, pydocs, tales"),
])
def test_errors_know_the_sources_in_memory(settings, message):
    register_texts(TEXTS)
    with pytest.raises(DataError, match=message):
        read(**{"source": "memory:mine"} | settings)


CODE = """
import sys
from pathlib import Path
from lab.data.memory import register_texts
from lab.runs.run import Run
from lab.training.loop import train
from settings.errors import DataError
from tests.helpers.text_files import TEXTS
run = Run.open(Path(sys.argv[1]))
print(run.remark)
for texts in (None, TEXTS[::-1], TEXTS):
    if texts:
        register_texts(texts, name="mine")
    try:
        print(sum(1 for step in train(run)), "steps")
    except DataError as error:
        print(error)
"""


def test_a_run_goes_on_with_the_same_text_and_with_no_other(tmp_path):
    data = DataConfig(source=register_texts(TEXTS), tokenizer="byte", validation_fraction=0.3)
    whole, here, there = (new_run(tmp_path, name, data=data) for name in ("whole", "here", "there"))
    assert "learns texts in memory (memory:mine)" in whole.remark
    assert len(list(train(whole))) == 12
    assert "register_texts(texts, name='mine')" in whole.card_path.read_text(encoding="utf-8")
    for run in (here, there):
        steps = train(run)
        assert [next(steps).step for _ in range(7)][-1] == 7
        steps.close()
    assert len(list(train(Run.open(here.folder)))) == 5
    assert_same(here, whole)
    result = subprocess.run(
        [sys.executable, "-c", CODE, str(there.folder)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    remark, missing, other, steps = result.stdout.splitlines()
    assert remark == there.remark and steps == "5 steps"
    assert "no texts named 'memory:mine'" in missing and "register_texts(texts, name='mine')" in missing
    assert "the text of 'there' is another than it was" in other
    assert_same(Run.open(there.folder), whole)


def test_a_run_is_not_made_without_the_texts(tmp_path):
    data = DataConfig(source="memory:mine", tokenizer="byte", validation_fraction=0.3)
    with pytest.raises(DataError, match=r"no texts named 'memory:mine'\. They are in the memory of the process"):
        new_run(tmp_path / "runs", data=data)
    assert not (tmp_path / "runs").exists()
