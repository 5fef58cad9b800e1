"""Questions tell right from wrong, say why, and show their answers without a kernel too."""

import nbformat
import pytest
import torch

from lab.display.quiz import QuizError, ask
from lab.display.static_twin import Html
from lab.notebooks import run_notebook
from settings.paths import ROOT

QUERIES = (3, 4, 17, 10)


@pytest.fixture
def typed():
    return ask(
        "What is `q`'s shape?", torch.zeros(QUERIES).shape, "G only counts `k` and `v`.",
        wrong={(3, 2, 17, 10): "These are `k`'s heads."}, typed=True,
    )


@pytest.fixture
def chosen():
    return ask("Which stream moves?", "xt", "Attention adds to it.", wrong={"xe": "That is the MLP's.", "both": "No."})


def buttons(widget):
    return [part for part in widget.children if hasattr(part, "button_style")]


@pytest.mark.parametrize(
    "reply", ["(3, 4, 17, 10)", "3,4,17,10", " [3 4 17 10] ", "3x4x17x10", "(B=3, H=4, T=17, D=10)", QUERIES]
)
def test_a_shape_may_be_written_in_many_ways(typed, reply):
    assert typed.check(reply) == (True, "G only counts `k` and `v`.")


@pytest.mark.parametrize(
    "reply, said",
    [
        ((3, 2, 17, 10), "These are `k`'s heads."),
        ("(B=3, G=2, S=17, D=10)", "These are `k`'s heads."),
        ("3, 4, 10, 17", "Number 3 of 4"),
        ("34, 17, 10", "3 numbers, the answer has 4"),
        ("341710", "1 number, the answer has 4"),
        ("", "numbers alone"),
        ("four heads", "numbers alone"),
        ("(3, -4, 17, 10)", "numbers alone"),
    ],
)
def test_a_wrong_shape_is_told_what_is_wrong_with_it(typed, reply, said):
    verdict = typed.check(reply)
    assert not verdict.right and said in verdict.text


def test_a_single_number():
    question = ask("How many?", 40, "C.", typed=True)
    assert question.check(" 40 ").right and question.check(40).right and question.check("C=40").right
    assert question.check("41") == (False, "It is another number; look again.")


RIGHT = (
    "2208", " 2,208 ", "2 208", "2_208", "2'208", "2F=2208", "2F = 2,208", "2208 channels", "(2208,)",
    "torch.Size([2208])",
)
OTHER = ("2F=208", "2F = 208", "208", "F=208", "22 208 channels")
SEVERAL = ("2, 208", "(2,208)", "2 x 208", "F=104, 2F=208")
NO_NUMBER = (
    "2*1104=2208", "2208=2F", "2F=2208=2F", "1104*2", "2.208", "2208.", "2.2e3", "-2208", "2208 million", "2k",
    "2208 or 208", "22 08", "2,2,08", "(2208", "2208)", "",
)


@pytest.mark.parametrize(
    "replies, said", [(RIGHT, "F."), (OTHER, "another number"), (SEVERAL, "2 numbers"), (NO_NUMBER, "numbers alone")]
)
def test_what_is_typed_is_read_whole_or_not_at_all(replies, said):
    question = ask("How many hidden channels?", 2208, "F.", typed=True)
    for reply in replies:
        verdict = question.check(reply)
        assert said in verdict.text and verdict.right == (replies is RIGHT), reply


@pytest.mark.parametrize("reply", ["3,4,", "[3, 4]", "torch.Size([3, 4])", "3 heads, 4 channels", "3×4", "B=3 T=4"])
def test_a_shape_is_read_in_the_forms_that_people_copy(reply):
    assert ask("?", (3, 4), "so", typed=True).check(reply).right


@pytest.mark.parametrize("reply", ["3,,4", "3;4", "((3, 4))", "(3)(4)", "3 and 4", "3 4 or so", "3*4", "03, 4"])
def test_a_shape_is_not_read_from_what_is_none(reply):
    assert "numbers alone" in ask("?", (3, 4), "so", typed=True).check(reply).text


def test_choices_each_have_their_verdict(chosen):
    assert sorted(chosen.choices) == ["both", "xe", "xt"]
    assert chosen.check("xt") == (True, "Attention adds to it.")
    assert chosen.check("xe") == (False, "That is the MLP's.")
    assert str(chosen.check("both")) == "✗ Not so. No." and str(chosen.check("xt")).startswith("✓ Right.")
    with pytest.raises(QuizError, match="did you mean 'both'"):
        chosen.check("booth")


def test_the_place_of_the_right_choice_depends_on_the_texts_alone():
    assert ask("?", 3, "", wrong={17: "", 40: ""}).choices == ask("?", 17, "", wrong={40: "", 3: ""}).choices


def test_a_wrong_choice_that_is_right_with_these_sizes_is_left_out():
    question = ask("How many heads has k?", 4, "G is H.", wrong={4: "These are q's.", 1: "Multi-query has one."})
    assert question.choices == ["1", "4"] and question.check(4) == (True, "G is H.")


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(QuizError, match="needs wrong ones"):
        ask("Why?", "so", "because")
    with pytest.raises(QuizError, match="can't be typed"):
        ask("Why?", "so", "because", typed=True)


# --- shown ------------------------------------------------------------------------------------------------------


def test_buttons_judge_and_are_marked(chosen):
    widget = chosen.widget()
    by_name = {button.description: button for button in buttons(widget)}
    assert list(by_name) == chosen.choices and widget.children[-1].value == ""
    by_name["xe"].click()
    assert "✗" in widget.children[-1].value and "That is the MLP&#x27;s." in widget.children[-1].value
    by_name["xt"].click()
    assert "✓" in widget.children[-1].value and "Attention adds to it." in widget.children[-1].value
    assert [by_name[name].button_style for name in ("xe", "xt", "both")] == ["danger", "success", ""]


def test_a_field_judges_what_is_written(typed):
    widget = typed.widget()
    field, button = widget.children[2].children
    field.value = "3, 2, 17, 10"
    assert "These are <code>k</code>&#x27;s heads." in widget.children[-1].value
    field.value = "3, 4, 17, 10"
    assert "✓ Right." in widget.children[-1].value
    button.click()
    assert "✓ Right." in widget.children[-1].value


def test_the_static_twin_has_question_choices_and_folded_verdicts(chosen, typed):
    assert chosen.widget().twin == Html(chosen.html, str(chosen))
    assert chosen.html.count("<details>") == 3 and "Which stream moves?" in chosen.html
    assert "Attention adds to it." in chosen.html and "That is the MLP" in chosen.html
    before, folded = typed.html.split("<details>")
    assert str(QUERIES) not in before and str(QUERIES) in folded and "<script" not in typed.html
    assert str(chosen) == "? Which stream moves?\n  · xe\n  · xt\n  · both"
    assert str(QUERIES) not in str(typed), "a terminal does not give the answer away"


def test_texts_are_no_html():
    question = ask("is a < b & `a|b`?", "<b>", "a<b", wrong={"<i>": "no"})
    assert "is a &lt; b &amp; <code>a|b</code>?" in question.html
    assert "<summary style=\"cursor:pointer\">&lt;b&gt;</summary>" in question.html and "<i>" not in question.html


def test_a_stored_notebook_keeps_the_twin_and_no_widget(tmp_path):
    door = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tools import ask\n"
    ask_it = door + "ask('Is it?', 'yes', 'so', {'no': 'why not'})"
    slider = "import ipywidgets\nipywidgets.IntSlider()"
    cells = [nbformat.v4.new_code_cell(source) for source in (ask_it, slider)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
    run_notebook(tmp_path / "n.ipynb", keep_outputs=True)
    asked, slid = nbformat.read(tmp_path / "n.ipynb", as_version=4).cells
    assert set(asked.outputs[0].data) == {"text/html", "text/plain"} and "why not" in asked.outputs[0].data["text/html"]
    assert slid.outputs == []
