"""Labelled tasks: the split, the tasks that ship, one's own tables."""

import json
from collections import Counter
from itertools import islice

import pytest

from lab.adapting import tasks
from lab.adapting.labelled import HELD_OUT, LabelledText, make_task
from lab.adapting.tasks import PASSAGE, PRONOUN_WORDS, WORDS, list_tasks, load_task, without_docstrings
from lab.data.python_corpora import pycode, pydocs
from lab.data.sources import DEFAULT_TALES
from lab.data.splitting import held_out_place
from lab.data.tales import story
from lab.data.tales.plots import PLOTS
from settings.errors import DataError


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows(count: int = 60) -> list[dict]:
    return [{"text": f"text number {i}", "label": "odd" if i % 2 else "even"} for i in range(count)]


def test_a_document_is_on_one_side_by_its_hash_whatever_else_there_is():
    texts = [LabelledText(f"{i}", "ab"[i % 2], f"document {i // 3}") for i in range(300)]
    whole, part = make_task("toy", "", texts), make_task("toy", "", texts[::-1][:200])
    held_out = {one.document for one in whole.held_out}
    assert held_out.isdisjoint(one.document for one in whole.training)
    assert held_out == {one.document for one in texts if held_out_place(one.document) < HELD_OUT}
    assert {one.document for one in part.held_out} <= held_out
    assert whole.classes == ("a", "b")
    assert whole.fingerprint == make_task("other", "", texts).fingerprint != part.fingerprint
    assert "'a': " in repr(whole) and f"{len(whole.held_out)} held out" in repr(whole)


def test_prose_or_code_has_passages_of_one_length_as_many_of_each(monkeypatch):
    few = {"pydocs": list(islice(pydocs(), 30)), "pycode": list(islice(pycode(), 12))}
    monkeypatch.setattr(tasks, "load_documents", lambda config: few[config.source])
    monkeypatch.setattr(tasks, "PASSAGES", 200)
    task = make_task("prose-or-code", "", tasks.prose_or_code())
    both = [*task.training, *task.held_out]
    assert {len(one.text) for one in both} == {PASSAGE}
    assert Counter(one.label for one in both)["code"] == Counter(one.label for one in both)["prose"] == len(both) / 2
    assert len({one.text for one in both}) > 0.99 * len(both)
    assert all(one.text in one.document for one in both if one.label == "prose")


def test_code_is_read_without_its_docstrings():
    function = 'def f():\n    """Does\n    it."""\n    return 1\n'
    assert without_docstrings(f'"""Module."""\nX = "kept"\n\n{function}') == 'X = "kept"\n\ndef f():\n    return 1\n'
    assert without_docstrings('class A:\n    """An A."""\n\n    x = """b"""\n') == 'class A:\n\n    x = """b"""\n'


@pytest.fixture
def few_tales(monkeypatch):
    monkeypatch.setattr(tasks, "TALES", 200)
    tasks.load_built_in.cache_clear()
    yield
    tasks.load_built_in.cache_clear()


def test_a_probe_is_labelled_with_the_plot_of_its_tale(few_tales):
    task = load_task("tale-of-probe")
    assert set(task.classes) <= {plot.__name__ for plot in PLOTS}
    told = [story(index).text for index in range(DEFAULT_TALES, DEFAULT_TALES + 200)]  # behind those that runs learn
    both = [*task.training, *task.held_out]
    assert {one.document for one in both} == set(told) and len(both) == len(told)
    assert all(one.text in one.document and len(one.text.split(" ")) == WORDS for one in both)
    certain = {"contest": "judge", "surprise": "birthday", "learning": "prize"}
    for plot, word in certain.items():
        assert all(word in one.document for one in both if one.label == plot)


def test_half_of_the_pronouns_are_right_and_those_stand_in_the_tale(few_tales):
    task = load_task("pronoun-in-tale")
    for one in (*task.training, *task.held_out):
        assert len(one.text.split(" ")) <= PRONOUN_WORDS
        assert (f"{one.text} " in one.document or f"{one.text}." in one.document) is (one.label == "right")
    # 4 standard deviations of a fair coin thrown about 200 times: wrong once in 16,000 seeds
    counts = Counter(one.label for one in (*task.training, *task.held_out))
    assert abs(counts["right"] - counts["wrong"]) < 4 * sum(counts.values()) ** 0.5


def test_own_tables_of_every_kind(tmp_path):
    expected = load_task(write(tmp_path / "a.jsonl", rows()))
    lines = "".join(f"text number {i},{'odd' if i % 2 else 'even'}\n" for i in range(60))
    (tmp_path / "a.csv").write_text("text,label\n" + lines, encoding="utf-8")
    (tmp_path / "a.tsv").write_text("body\tkind\n" + lines.replace(",", "\t"), encoding="utf-8")
    for task in (
        load_task(str(tmp_path / "a.csv")),
        load_task(str(tmp_path / "a.tsv"), text_field="body", label_field="kind"),
    ):
        assert (task.training, task.held_out) == (expected.training, expected.held_out)
    numbered = load_task(write(tmp_path / "b.jsonl", [row | {"label": i % 2} for i, row in enumerate(rows())]))
    assert numbered.classes == ("0", "1")


def test_what_makes_no_task_is_refused_and_says_why(tmp_path):
    table = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match=r"unknown task 'prose-or-cod'; did you mean 'prose-or-code'\? choose from: "):
        load_task("prose-or-cod")
    assert len(list_tasks()) == 3
    with pytest.raises(DataError, match="'prose-or-code' has no columns: leave text_field and label_field out"):
        load_task("prose-or-code", label_field="kind")
    with pytest.raises(DataError, match=r"has no column 'kind' of labels. Its columns are text, label"):
        load_task(write(table, rows()), label_field="kind")
    with pytest.raises(DataError, match="has one class alone, 'even'; a classifier tells 2 to 256 apart"):
        load_task(write(table, rows()[::2]))
    with pytest.raises(DataError, match="has 300 classes; a classifier tells 2 to 256 apart"):
        load_task(write(table, [{"text": f"{i}", "label": f"{i:03}"} for i in range(300)]))
    with pytest.raises(DataError, match=r"has too few texts, 3 in all: .* and 2 are the fewest"):
        load_task(write(table, rows(3)))
    with pytest.raises(DataError, match="of class 'rare' to learn from, and 2 are the fewest"):
        load_task(write(table, [*rows(), {"text": "one", "label": "rare"}]))
    for label in (None, "", 1.5, ["a"], {"a": 1}):
        with pytest.raises(DataError, match=r"row 61 of .* has no label in 'label', but .*: a label is a text or"):
            load_task(write(table, [*rows(), {"text": "one", "label": label}]))
    text = tmp_path / "a.txt"
    text.write_text("some text", encoding="utf-8")
    with pytest.raises(DataError, match="has no labels: give a table with a text and a label"):
        load_task(str(text))
