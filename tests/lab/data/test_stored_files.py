"""Files as people store them: packed, in other encodings, as pages and notebooks, in folders from which one chooses."""

import gzip
import io
import json
import random
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import nbformat
import pandas
import pytest

from config import DataConfig
from lab.adapting.labelled import own_task
from lab.data import stored_files
from lab.data.markup import html_text
from lab.data.own_files import LONGEST_TEXT, cut
from lab.data.packing import prepare
from lab.data.sources import load_documents
from settings.errors import ConfigError, DataError
from tests.helpers import crafted_zips

TEXTS = ["Naïve café number one.", "Two\nlines", "Ünïcödé 🦊 of a fox", "four, with \"quotes\" and 世界"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def read(source: str, **settings) -> list[str]:
    return list(load_documents(DataConfig(source=source, **settings)))


def write(files: dict[str, bytes]) -> None:
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


def notebook(*cells: tuple[str, str]) -> str:
    make = {"markdown": nbformat.v4.new_markdown_cell, "raw": nbformat.v4.new_raw_cell}
    made = [make.get(kind, nbformat.v4.new_code_cell)(source) for kind, source in cells]
    made[-1]["outputs"] = [nbformat.v4.new_output("stream", text="an output")] if cells[-1][0] == "code" else []
    return nbformat.writes(nbformat.v4.new_notebook(cells=made))


def of_every_kind() -> dict[str, bytes]:
    """A file of each kind."""
    frame = pandas.DataFrame({"id": range(len(TEXTS)), "text": TEXTS})
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    return {
        "a.txt": TEXTS[0].encode(), "a.md": TEXTS[1].encode(), "a.py": TEXTS[2].encode(),
        "a.html": f"<p>{TEXTS[0]}</p>".encode(), "a.htm": TEXTS[2].encode(),
        "a.ipynb": notebook(("markdown", TEXTS[0]), ("code", TEXTS[1])).encode(),
        "a.csv": frame.to_csv(index=False).encode(), "a.tsv": frame.to_csv(index=False, sep="\t").encode(),
        "a.jsonl": frame.to_json(orient="records", lines=True).encode(), "a.parquet": parquet.getvalue(),
    }


# --- gzip and zip -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", of_every_kind())
def test_packed_files_hold_the_same_documents(name):
    content = of_every_kind()[name]
    write({name: content, f"packed/{name}.gz": gzip.compress(content), f"packed/{name.upper()}.GZ": gzip.compress(b"")})
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"deep/er/{name}", content)
        archive.writestr(f"deep/{name}.gz", gzip.compress(content))
    single = {"txt": TEXTS[0], "md": TEXTS[1], "py": TEXTS[2], "html": f"{TEXTS[0]}\n\n", "htm": TEXTS[2],
              "ipynb": f"{TEXTS[0]}\n\n{TEXTS[1]}"}.get(name[2:])
    expected = [single] if single else TEXTS
    assert read(name) == expected
    assert read(f"packed/{name}.gz") == read("packed") == expected
    assert read("a.zip") == expected * 2 == read("*.zip")
    assert read("a.zip", include=("deep/er/*",)) == expected


def test_two_packed_parts_are_one_file_as_gzip_joins_them():
    write({"a.txt.gz": gzip.compress(b"one\n") + gzip.compress(b"two\n")})
    assert read("a.txt.gz") == ["one\ntwo\n"]


def test_a_zip_stands_for_its_readable_files_in_order():
    names = ["b.txt", "sub/a.txt", "sub.txt", "Z.md", "sub/deep/c.jsonl"]
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in [*names, "picture.png", ".hidden/x.txt", "__MACOSX/._b.txt", "sub/.x.txt", "inner.zip", "x.tar.gz"]:
            archive.writestr(name, f'{{"text": "{name}"}}' if name.endswith("jsonl") else name)
        archive.mkdir("folder.txt")
    assert read("a.zip") == ["Z.md", "b.txt", "sub.txt", "sub/a.txt", "sub/deep/c.jsonl"]
    made = load_documents(DataConfig(source="a.zip"))
    assert list(made) == list(made) and "5 files, " in repr(made)
    one, other = iter(made), iter(made)
    assert [next(one), next(other), *one, *other] == ["Z.md", "Z.md", *list(made)[1:], *list(made)[1:]]


def test_a_folder_may_hold_zips():
    with zipfile.ZipFile("m.zip", "w") as archive:
        archive.writestr("a.txt", "in the zip")
        archive.writestr("b/a.md", "deep in the zip")
    write({"all/a.txt": b"before", "all/z.txt": b"behind", "all/pictures.zip": b""})
    Path("m.zip").rename("all/m.zip")
    with zipfile.ZipFile("all/pictures.zip", "w") as archive:
        archive.writestr("a.png", b"\0")
    assert read("all") == ["before", "in the zip", "deep in the zip", "behind"]
    assert read("all", exclude=("m.zip",)) == ["before", "behind"]
    assert read("all", exclude=("**/a.*",)) == ["behind"]
    assert read("all", include=("m.zip/**",)) == ["in the zip", "deep in the zip"]
    with pytest.raises(DataError, match=r"all/pictures.zip holds no file of the kinds .txt, .md"):
        read("all/pictures.zip")


def test_a_task_of_labelled_texts_may_be_packed():
    rows = "".join(f'{{"text": "text {number}", "label": {number % 2}}}\n' for number in range(60))
    write({"a.jsonl": rows.encode(), "b.jsonl.gz": gzip.compress(rows.encode())})
    assert own_task("a.jsonl").fingerprint == own_task("b.jsonl.gz").fingerprint


@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl", "parquet"])
def test_a_gzip_that_was_cut_is_told(kind):
    content = of_every_kind()[f"a.{kind}"]
    whole = gzip.compress(content + (b"" if kind == "parquet" else b"\n" * 3))
    for size in (3, 9, 12, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        write({f"a.{kind}.gz": whole[:size]})
        with pytest.raises(DataError, match=rf"a.{kind}.gz is damaged: .*\. Copy or download it again"):
            read(f"a.{kind}.gz")


def test_any_damage_to_a_packed_file_is_the_text_or_an_error():
    text = "".join(f"line {number} of the text\n" for number in range(400)).encode()
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", text)
    files, chance, told = {"a.zip": Path("a.zip").read_bytes(), "a.txt.gz": gzip.compress(text)}, random.Random(0), 0
    for name, content in files.items():
        for _ in range(150):
            harmed = bytearray(content)
            harmed[chance.randrange(len(harmed))] ^= 1 << chance.randrange(8)
            write({name: bytes(harmed)})
            try:
                assert "".join(read(name)) == text.decode()
            except DataError as error:
                assert name in str(error)
                told += 1
    assert told > 200
    for size in (0, 1, 10, len(files["a.zip"]) // 2, len(files["a.zip"]) - 1):
        write({"a.zip": files["a.zip"][:size]})
        with pytest.raises(DataError, match=r"a.zip is damaged: .*Copy or download it again"):
            read("a.zip")


def test_an_encrypted_file_and_an_unknown_method_are_named():
    crafted_zips.write("a.zip", {"sub/b.txt": b"text"})
    data = Path("a.zip").read_bytes()
    local, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    locked = bytearray(data)
    locked[local + 6] |= 1
    locked[central + 8] |= 1
    write({"a.zip": bytes(locked)})
    with pytest.raises(DataError, match=r"a.zip/sub/b.txt is encrypted: .* leave this file out \(exclude\)"):
        read("a.zip")
    strange = bytearray(data)
    strange[local + 8] = strange[central + 10] = 99
    write({"a.zip": bytes(strange)})
    with pytest.raises(DataError, match=r"a.zip/sub/b.txt is packed in a way that Python can't read.*unpack it first"):
        read("a.zip")


@pytest.mark.parametrize("name", ["a.zip", "a.txt.gz", "b.zip"])
def test_a_bomb_is_refused_before_it_fills_memory(name):
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(96)) + packer.flush()
    write({"a.txt.gz": packed})
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.txt", "w") as member:
        for _ in range(96):
            member.write(b"x" * (1 << 20))
    with zipfile.ZipFile("b.zip", "w") as archive:  # a bomb in it
        archive.writestr("a.txt.gz", packed)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{name}.* and unpacks to [\d,]+ or more, over 200 times as many.*unpack it"):
        read(name)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_nothing_is_written_outside_of_the_cache(tmp_path):
    names = ("../../up.txt", "/absolute.txt", "a/../../b.txt")
    crafted_zips.write("a.zip", {name: name.encode() for name in names} | {f"{n}.txt": b"%d" % n for n in range(40)})
    prepare(DataConfig(source="a.zip", tokenizer="byte", validation_fraction=0.3))
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "here"} and [*Path.cwd().iterdir()] == [
        Path("a.zip").absolute()
    ]


# --- encodings ----------------------------------------------------------------------------------------------------

FAMILY = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
MARKED = {name: "\ufeff" if name.endswith("e") else "" for name in FAMILY}  # those that Python writes without a mark


@pytest.mark.parametrize("encoding", FAMILY)
@pytest.mark.parametrize("kind", ["txt", "py", "csv", "tsv", "jsonl", "html", "ipynb"])
def test_a_byte_order_mark_tells_the_encoding(kind, encoding):
    content = of_every_kind()[f"a.{kind}"]
    write({f"plain/a.{kind}": content, f"a.{kind}": (MARKED[encoding] + content.decode()).encode(encoding)})
    write({f"a.{kind}.gz": gzip.compress(Path(f"a.{kind}").read_bytes())})
    assert read(f"a.{kind}") == read(f"a.{kind}.gz") == read(f"plain/a.{kind}")


@pytest.mark.parametrize(("encoding", "text"), [
    ("cp1252", "L'été dernier, le garçon a mangé une crêpe – “très” bonne."), ("latin-1", "naïve café"),
    ("cp1251", "Жили-были дед и баба."), ("shift_jis", "むかしむかし、あるところに"),
    ("gb18030", "从前有座山,山里有座庙。"),
    ("utf-16-le", "no mark"), ("UTF_8", "é"), ("koi8-r", "Жили"),
])
def test_an_encoding_that_is_given_is_used(encoding, text):
    row = f'{{"text":"{text}"}}'
    write({"a.txt": text.encode(encoding), "b.txt": text.encode("utf-16"), "c.jsonl": row.encode(encoding)})
    assert read("a.txt", encoding=encoding) == [text]
    assert read(".", encoding=encoding) == [text] * 3, "a mark is stronger than what is given"


def test_an_encoding_that_a_file_declares_is_used():
    write({
        "a.py": "#!/usr/bin/python\n# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
        "b.py": "# vim: set fileencoding=cp1251 :\nx = 'Ж'\n".encode("cp1251"),
        "a.html": '<html><meta charset="iso-8859-1"><p>“é”'.encode("cp1252"),
        "b.html": '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>むか'.encode("shift_jis"),
        "c.html": '<meta charset="no-such"><p>é'.encode(),
    })
    assert [read(name)[0].splitlines()[-1] for name in ("a.py", "b.py")] == ["x = 'é'", "x = 'Ж'"]
    assert [read(f"{name}.html") for name in "abc"] == [["“é”"], ["むか"], ["é"]]
    late = b"<html><!--" + b"x" * 900 + b'--><meta charset="cp1251"><p>' + "Ж".encode("cp1251")
    write({"d.html": late, "d.html.gz": gzip.compress(late)})
    with zipfile.ZipFile("d.zip", "w") as archive:
        archive.writestr("d.html", late)
    assert read("d.html") == read("d.html.gz") == read("d.zip") == ["Ж"]
    assert read("a.html", encoding="latin-1") == ["\x93é\x94"], "what is given is stronger than what is declared"


@pytest.mark.parametrize(("encoding", "text"), [
    ("cp1252", "It costs nothing.\nL'été dernier, le garçon a mangé une crêpe à la fête. Où est-il allé?"),
    ("cp1251", "Жили-были дед и баба, и была у них курочка Ряба. Снесла курочка яичко."),
    ("cp932", "むかしむかし、あるところに、おじいさんとおばあさんが住んでいました。"),
    ("gb18030", "从前有座山,山里有座庙,庙里有个老和尚在讲故事。"),
])
def test_the_error_names_the_likely_encoding_and_what_it_gives(encoding, text):
    write({"a.txt": text.encode(encoding)})
    with pytest.raises(DataError, match=r"a.txt is not UTF-8 text: .* at byte") as told:
        read("a.txt")
    begin = text.splitlines()[-1][:10]
    assert f"encoding={encoding!r}, which reads '{begin}" in str(told.value).replace('"', "'")


@pytest.mark.parametrize(("settings", "message"), [
    ({"encoding": "utf-8"}, r"a.txt is not UTF-8 text: .*Leave encoding='utf-8' out, or give the right one"),
    ({"encoding": "cp932"}, r"a.txt is not cp932 text: .* at byte 3"),
    ({"source": "b.txt"}, r"byte 1 is NUL\. It looks like UTF-16 without its .*give encoding='utf-16-le'"),
    ({"source": "b.txt", "encoding": "cp1252"}, r"is not cp1252 text: it holds NUL characters"),
    ({"source": "c.txt"}, r"c.txt is not UTF-16 text: .* at byte"),
    ({"source": "d.parquet", "encoding": "cp1252"}, r"encoding='cp1252' is not used"),
    ({"source": "tales", "encoding": "cp1252"}, r"encoding='cp1252' is a setting of your own files, not of 'tales'"),
    ({"source": "tales", "include": ("*.md",)}, r"include=\('\*.md',\) is a setting of your own files, not of 'tales'"),
])
def test_a_wrong_encoding_is_refused(settings, message):
    write({"a.txt": "caf\xe9 noir".encode("latin-1"), "b.txt": "no mark".encode("utf-16-le"), "c.txt": b"\xff\xfea"})
    pandas.DataFrame({"text": TEXTS}).to_parquet("d.parquet")
    with pytest.raises(DataError, match=message):
        read(**{"source": "a.txt"} | settings)


@pytest.mark.parametrize("name", ["no-such", "", "base64", "rot13", "a\0b", "zlib", "x" * 1000])
def test_what_is_no_encoding_is_an_error_of_the_settings(name):
    with pytest.raises(ConfigError, match=r"encoding '.*' is none that Python knows; there is 'cp1252'"):
        DataConfig(encoding=name)


def test_other_line_ends_are_the_same_text():
    text = "".join(f"Line {number}.\n\n" + "word " * 40 + "\n" for number in range(300))
    sides = set()
    for name, end in {"lf": "\n", "crlf": "\r\n", "cr": "\r"}.items():
        for mark in ("", "\ufeff"):
            write({f"{name}.txt": (mark + text.replace("\n", end)).encode()})
            data = prepare(DataConfig(source=f"{name}.txt", tokenizer="byte", validation_fraction=0.3))
            sides.add((data.train.fingerprint, data.validation.fingerprint, data.train.tokens.tobytes()))
    assert len(sides) == 1
    write({"a.jsonl": json.dumps({"text": "one\r\ntwo"}).encode()})
    assert read("a.jsonl") == ["one\r\ntwo"], "cells stay as they are"


# --- pages and notebooks ------------------------------------------------------------------------------------------

PAGES = {
    "<h1>Title</h1><p>One &amp; two&nbsp;&#228;.<p>Three": "Title\n\nOne & two\xa0ä.\n\nThree",
    "<p>a <b>bold</b>\n  word,<i> and</i> <u> more </u></p>": "a bold word, and more",
    "<ul><li>one</li><li>two</ul>after<br>line<br/>end": "one\ntwo\n\nafter\nline\nend",
    "<script>var x = '<p>no</p>';</script><style>p {}</style>yes<template><p>no</p></template>": "yes",
    "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>": "a b\n1 2\n\n",
    "x<pre>  two\n    lines\n</pre>y": "x\n\n  two\n    lines\n\ny",
    "<!DOCTYPE html><!-- a <p>comment</p> -->a < b &lt; c &unknown; & d": "a < b < c &unknown; & d",
    "no tags": "no tags", "<p></p><div> </div>": "",
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_a_page_is_its_text_in_whatever_blocks_it_comes(page, size):
    blocks = [page[start : start + size] for start in range(0, len(page), size)]
    assert "".join(html_text(blocks, "a.html")).rstrip("\n") == PAGES[page].rstrip("\n")


def test_a_long_page_is_cut_like_a_text_and_an_endless_tag_is_refused():
    paragraphs = [f"Paragraph {number}: " + "word " * 60 + "end." for number in range(100)]
    write({"a.html": "".join(f"<p>{text}</p>" for text in paragraphs).encode()})
    pieces = read("a.html")
    assert len(pieces) > 5 and "".join(pieces) == "".join(f"{text}\n\n" for text in paragraphs)
    blocks = ("<!--" + "x" * (1 << 20) for _ in range(40))
    with pytest.raises(DataError, match=r"a.html has a tag or a comment that does not end"):
        list(html_text(blocks, "a.html"))


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<a " * 100_000, "has a tag or a comment that does not end"),  # the parser alone would take minutes
        ("<!--" * 100_000, "ends within a tag or a comment"),
    ],
)
def test_signs_that_only_look_like_tags_are_refused(page, message):
    with pytest.raises(DataError, match=message):
        list(html_text([page], "a.html"))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>x<img src='data:image/png;base64," + "A" * 100_000 + "'>y</p>", "xy\n\n"),
        ("<script>" + "if (a<b) {}" * 10_000 + "</script>z", "z"),
        ("<script>" + "if (a<b) {}" * 10_000, ""),
        ("<!--" + "<p>x</p>" * 10_000 + "-->z", "z"),
        ("<p " + "a='<b>' " * 40 + ">z", "z"),
        ("word " * 2000 + "AT&T", "word " * 2000 + "AT&T"),
    ],
)
def test_long_tags_comments_and_scripts_are_read(page, text):
    assert "".join(html_text([page], "a.html")) == text


def test_a_notebook_is_its_cells():
    cells = [("markdown", "# Title\n\nWords."), ("raw", "left out"), ("code", ""), ("code", "x = 1\nprint(x)\n")]
    write({"a.ipynb": notebook(*cells).encode()})
    assert read("a.ipynb") == ["# Title\n\nWords.\n\nx = 1\nprint(x)"]
    old = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=[
        nbformat.v3.new_text_cell("markdown", source="old"), nbformat.v3.new_code_cell(input="y = 2"),
    ])])
    write({"b.ipynb": nbformat.writes(old, version=3).encode()})
    assert read("b.ipynb") == ["old\n\ny = 2"]


@pytest.mark.parametrize("text", [
    "", "{", "[]", "{}", '{"cells": 5, "nbformat": 4, "nbformat_minor": 5}', "[" * 100_000,
    '{"cells": [{}], "nbformat": 4, "nbformat_minor": 5}', '{"nbformat": 99}',
])
def test_what_is_no_notebook_is_told(text):
    write({"a.ipynb": text.encode()})
    with pytest.raises(DataError, match=r"a.ipynb is empty|can't read a.ipynb: it is no notebook"):
        read("a.ipynb")


# --- patterns -----------------------------------------------------------------------------------------------------

TREE = ["a.txt", "b.md", "[x].txt", "docs/a.md", "docs/deep/c.md", "docs/deep/er/d.txt", "src/a.py", "src/lib/b.py"]


@pytest.mark.parametrize("pattern", [
    "*.md", "**/*.md", "docs/*.md", "docs/**/*.md", "**/deep/*", "*/*.??", "src/[ab].py", "**/[!a]*", "a.txt",
    "docs/deep/er/d.txt", "**/**/*.py", "[[]x].txt",
])
def test_patterns_mean_what_they_mean_to_pathlib(pattern):
    write({f"all/{name}": name.encode() for name in TREE})
    expected = {path.relative_to("all").as_posix() for path in Path("all").glob(pattern) if path.is_file()}
    assert expected and set(read("all", include=(pattern,))) == expected
    assert set(read("all", exclude=(pattern,))) == set(TREE) - expected
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in TREE:
            archive.writestr(name, name)
    assert set(read("a.zip", include=(pattern,))) == expected


def test_include_and_exclude_go_together():
    write({f"all/{name}": name.encode() for name in TREE})
    assert read("all", include=("**/*.md", "src/**"), exclude=("docs/deep/**",)) == [
        "b.md", "docs/a.md", "src/a.py", "src/lib/b.py"
    ]
    one, other = (load_documents(DataConfig(source="all", include=(pattern,))) for pattern in ("*.txt", "**/*.py"))
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(("settings", "message"), [
    ({"include": ("docs",)}, r"include 'docs' names no readable file in all; did you mean 'docs/\*\*'\?"),
    ({"exclude": ("docs/",)}, r"exclude 'docs/' names no readable file in all; did you mean 'docs/\*\*'\?"),
    ({"include": ("d.txt",)}, r"include 'd.txt' names no readable file in all; did you mean '\*\*/d.txt'\?"),
    ({"exclude": ("*.rst",)}, r"exclude '\*.rst' names no readable file .* such as '\[x\].txt', and \*\* stands for"),
    ({"exclude": ("**",)}, r"all holds no file of the kinds .*, that is chosen"),
    ({"source": "all/a.txt", "include": ("a.txt",)}, r"choose files of a folder or a zip, not of 'all/a.txt'"),
    ({"source": "all/*.txt", "exclude": ("a.txt",)}, r"include and exclude choose files of a folder or a zip"),
])
def test_a_pattern_that_chooses_nothing_is_refused(settings, message):
    write({f"all/{name}": name.encode() for name in TREE})
    with pytest.raises(DataError, match=message):
        read(**{"source": "all"} | settings)


@pytest.mark.parametrize("patterns", [("",), ("/",), ["*.md"], "*.md", (5,), ("x",) * 1025])
def test_what_is_no_pattern_is_an_error_of_the_settings(patterns):
    with pytest.raises(ConfigError, match=r"a pattern of include or exclude is empty|include must be a tuple of texts"):
        DataConfig(include=patterns)


# --- long lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sign", ["x", "word ", "字字字字字。", "e\u0301"])
def test_a_long_line_is_cut_in_little_memory(sign, packed, monkeypatch):
    monkeypatch.setattr(stored_files, "MOST_TIMES", 10**6)
    text = sign * (8_000_000 // len(sign))
    name = "a.txt.gz" if packed else "a.txt"
    write({name: gzip.compress(text.encode(), 1) if packed else text.encode()})
    tracemalloc.start()
    pieces = 0
    for piece in load_documents(DataConfig(source=name)):
        assert len(piece) <= LONGEST_TEXT and piece.endswith(sign[-1])
        pieces += len(piece)
    assert pieces == len(text)
    assert tracemalloc.get_traced_memory()[1] < 12 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 7, 4001, 100_000])
def test_blocks_change_no_piece(size):
    text = "".join(random.Random(1).choice(["word ", "\n", "\n\n", "x" * 90, "字"]) for _ in range(8000))
    blocks = [text[start : start + size] for start in range(0, len(text), size)]
    assert list(cut(blocks)) == list(cut([text])) and "".join(cut(blocks)) == text


def test_a_line_of_jsonl_is_bounded(monkeypatch):
    monkeypatch.setattr("lab.data.tables.LONGEST_JSON", 1 << 17)
    write({"a.jsonl": json.dumps({"text": "x"}).encode() + b"\n" + json.dumps({"text": "y" * 200_000}).encode()})
    with pytest.raises(DataError, match=r"line 2 of a.jsonl has 131,072 characters or more: cut it into rows"):
        read("a.jsonl")
    write({"a.jsonl": json.dumps(["some words"] * 20_000).encode()})
    with pytest.raises(DataError, match=r"a.jsonl is JSON of [\d,]+ characters or more in one piece: write"):
        read("a.jsonl")


def test_a_zip_that_changes_while_it_is_read_is_noticed():
    def pack(texts) -> None:
        with zipfile.ZipFile("a.zip", "w") as archive:
            for number, text in enumerate(texts):
                archive.writestr(f"{number}.txt", text)

    pack(["one", "two", "three"])
    texts = iter(load_documents(DataConfig(source="a.zip")))
    assert next(texts) == "one"
    pack(["another", "text", "of other lengths"])
    with pytest.raises(DataError, match=r"a.zip changed while it was read: prepare the data again"):
        list(texts)
