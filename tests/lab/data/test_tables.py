"""Tables: which sign separates cells, which column holds text, and lines that once ended the process."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from config import DataConfig
from lab.data.sources import load_documents
from lab.data.tables import SAMPLE
from settings.errors import DataError
from settings.paths import ROOT


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name: str, content: str, **settings) -> list[str]:
    Path(name).write_text(content, encoding="utf-8", newline="")
    return list(load_documents(DataConfig(source=name, **settings)))


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- separators, quotes, headers --------------------------------------------------------------------------------

TEXTS = ["Hello, you", "One; two | three", 'She said "no"', "two\nlines", "a\tb", "plain"]


@pytest.mark.parametrize("sign", [",", "\t", ";", "|"])
@pytest.mark.parametrize("columns", [["id", "text"], ["text", "label"], ["id", "text", "label"]])
def test_any_usual_separator_gives_the_same_documents(sign, columns):
    table = pandas.DataFrame({"id": range(len(TEXTS)), "text": TEXTS, "label": 1.5})[columns]
    assert read("a.csv", table.to_csv(sep=sign, index=False)) == TEXTS
    assert read("a.csv", table.to_csv(sep=sign, index=False, quoting=csv.QUOTE_ALL, lineterminator="\r\n")) == TEXTS
    if sign == "\t":
        assert read("a.tsv", table.to_csv(sep=sign, index=False)) == TEXTS


def test_a_decimal_comma_and_a_comma_in_a_header_do_not_mislead():
    assert read("a.csv", "value;text\n1,5;one, two\n2,5;three\n") == ["one, two", "three"]
    assert read("a.csv", "text;label, coded\nHello, you;1\nBye;0\n", text_field="text") == ["Hello, you", "Bye"]
    assert read("a.tsv", "text,all\tlabel;x\na\tb\n", text_field="text,all") == ["a"]


UNCLEAR = {
    "a,b;text\n1,2;x\n3,4;y\n": r"separated by commas or semicolons\? Put cells .* in quotes, or save .* \.tsv",
    "text\nHello, world\nBye, you\n": r"line 2 has 2 cells, but the header has 1: put cells that hold commas in quotes",
    "id,text\n1,fine\n2,Hello, world\n": r"line 3 has 3 cells, but the header has 2: put cells that hold commas",
    "id,text\n1,x,\n2,y,\n": r"line 2 has 3 cells, but the header has 2: .* or give each column a name",
    'text,label\n"He said \\"hi\\" then",1\n': r"line 2: a quote within a quoted cell must be written twice",
    "I loved this film.\nI hated it.\n": r"first line a header\? 'I loved this film\.' looks like a cell.* of names",
    "1,hello there\n2,bye now\n": r"first line a header\? '1' looks like a cell, not like the name of a column",
    f"id,{'x' * 61}\n1,hello\n": r"first line a header\? 'x{61}' looks like a cell",
}


@pytest.mark.parametrize("content", UNCLEAR)
def test_what_is_not_clear_in_a_csv_is_refused_with_the_remedy(content):
    with pytest.raises(DataError, match=rf"a\.csv: .*{UNCLEAR[content]}"):
        read("a.csv", content)


def test_a_named_column_is_a_header_whatever_it_looks_like():
    question = "What is the story about, in your own words, and why?"
    assert read("a.csv", f'"{question}"\nA mouse\n', text_field=question) == ["A mouse"]
    assert read("a.csv", "0,1\nhello,2\n", text_field="0") == ["hello"]


# --- which column -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"text_field": "text"}])
@pytest.mark.parametrize("early", [{"text": None, "title": "t"}, {"title": "t"}, {"text": None, "n": 1}])
def test_text_that_comes_late_is_found(settings, early):
    rows = [early] * (SAMPLE + 50) + [{"text": "late"}, {"n": 3}, {"text": "later", "title": "u"}]
    if "text" in early or settings:
        assert read("a.jsonl", lines(rows), **settings) == ["late", "later"]
    if "text" in early:
        frame = pandas.DataFrame(rows)
        assert read("a.csv", frame.to_csv(index=False), **settings) == ["late", "later"]
        frame.to_parquet("a.parquet")
        assert list(load_documents(DataConfig(source="a.parquet", **settings))) == ["late", "later"]


def test_a_column_of_nulls_gives_way_to_the_only_text():
    rows = [{"text": None, "title": f"title {number}"} for number in range(150)]
    assert read("a.jsonl", lines(rows))[149] == "title 149"


# --- the same documents as `datasets` gave ----------------------------------------------------------------------

# Files, and the documents that datasets 5.2.0 read from them.
AS_BEFORE = {
    "rownames.csv": ('text,label\n"1","hello","a"\n"2","bye","b"\n', ["hello", "bye"]),
    "short.csv": ("text,label\nhello\nbye,b\n", ["hello", "bye"]),
    "return.csv": ("text,l\rHello,1\rBye,2\r", ["Hello", "Bye"]),
    "mark.csv": ("\ufefftext,l\nHello,1\n", ["Hello"]),
    "twice.csv": ("text,text\nHello,x\n", ["Hello"]),
    "empty.csv": ('id,text\n1,""\n\n2,x\n', ["x"]),
    "bool.csv": ("id,say\nTrue,hello\nFalse,x\n", ["hello", "x"]),
    "index.csv": (",id,text\n0,1,x\n1,2,y\n", ["x", "y"]),
    "array.jsonl": ('[{"text":"a"},{"text":"b"}]', ["a", "b"]),
    "texts.jsonl": ('["a","b"]', ["a", "b"]),
    "pretty.jsonl": ('{\n "text": "a",\n "x": 1\n}\n{\n "text": "b"\n}\n', ["a", "b"]),
    "two.jsonl": ('{"text":"a"} {"text":"b"}\n{"text":"c"}\n', ["a", "b", "c"]),
    "mark.jsonl": ('\ufeff{"text":"a"}\n', ["a"]),
    "blank.jsonl": ('\n{"text":"a"}\n\n{"text":"b"}', ["a", "b"]),
    "missing.jsonl": ('{"id":"u"}\n{"text":"a"}\n{"id":"v","text":null}\n{}\n{"text":"b"}\n', ["a", "b"]),
    "nested.jsonl": ('{"text":"a","m":{"k":[1,2]}}\n{"text":"b","m":{"k":[]}}\n', ["a", "b"]),
    "nan.jsonl": ('{"text":"a","x":NaN}\n', ["a"]),
    "date.jsonl": ('{"text":"hello","t":"2020-01-01"}\n{"text":"x","t":"2020-01-02"}\n', ["hello", "x"]),
    "crlf.jsonl": ('{"text":"a"}\r\n{"text":"b\\r\\nc"}\r\n', ["a", "b\r\nc"]),
    "mixed.jsonl": ('{"text":"a","x":1}\n{"text":"b","x":"s"}\n', ["a", "b"]),
    "null.jsonl": ('{"text":"a"}\nnull\n', ["a"]),
    "pair.jsonl": ('{"text":"\\ud83d\\ude00"}\n', ["😀"]),
    "integer.jsonl": ('{"text":"a","x":123456789012345678901234567890}\n', ["a"]),
    "all.txt": ("\ufeffhello\r\nthere\rx\x0cy\x85z\u2028", ["hello\nthere\nx\x0cy\x85z\u2028"]),
}


@pytest.mark.parametrize("name", AS_BEFORE)
def test_the_same_documents_as_before(name):
    content, expected = AS_BEFORE[name]
    assert read(name, content) == expected


# --- lines that no reader may die of ----------------------------------------------------------------------------

DEEP = "[" * 10_000 + "]" * 10_000
DEADLY = {
    "null": ("null\n" + '{"text": "a"}\n', "['a']"), "nulls": ("null\n" * 3, "a.jsonl has no rows"),
    "deep": (DEEP, "can't read a.jsonl: value 1 is not a JSON object: its brackets are nested too deeply"),
    "deep cell": (f'{{"text": "a"}}\n{{"x": {DEEP}}}\n', "line 2 is not a JSON object: its brackets are nested"),
    "deep object": ('{"a":' * 10_000 + "1" + "}" * 10_000, "its brackets are nested too deeply"),
    "digits": ('{"text": "a"}\n{"x": ' + "1" * 5000 + "}\n", "line 2 is not a JSON object: Exceeds the limit"),
    "nested": ('{"text": ' + "[" * 900 + "]" * 900 + "}\n" + '{"text": "a"}\n', "row 1 of a.jsonl holds no text"),
    "number": ("5\n", "value 1 is not an object like {\"text\": ...} but 5"),
    "half": ('{"text": "\\ud800"}\n', "half of a surrogate pair"),
    "cut": ('{"text": "a"}\n{"text": "b', "line 2 is not a JSON object: Unterminated string"),
}


def test_no_line_of_jsonl_ends_the_process():
    for name, (content, _) in DEADLY.items():
        Path(name).mkdir()
        Path(name, "a.jsonl").write_text(content, encoding="utf-8")
    code = (
        "import os, sys; from config import DataConfig; from settings.errors import DataError\n"
        "from lab.data.sources import load_documents\n"
        "for name in sys.argv[1:]:\n"
        "    os.chdir(name)\n"
        "    try: print(name, list(load_documents(DataConfig(source='a.jsonl'))))\n"
        "    except DataError as error: print(name, error)\n"
        "    os.chdir('..')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *DEADLY]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    for line, (name, (_, message)) in zip(result.stdout.splitlines(), DEADLY.items(), strict=True):
        assert line.startswith(name) and message in line


@pytest.mark.parametrize("place", range(0, 600, 40))
def test_a_damaged_parquet_is_a_value_or_an_error(place):
    pandas.DataFrame({"text": [f"row {number}" for number in range(50)]}).to_parquet("a.parquet")
    content = bytearray(Path("a.parquet").read_bytes())
    content[-1 - place] ^= 0xFF
    Path("a.parquet").write_bytes(content)
    try:
        documents = list(load_documents(DataConfig(source="a.parquet")))
    except DataError as error:
        assert "a.parquet" in str(error)
    else:
        assert len(documents) <= 50
