"""Each of our widgets keeps a static twin that is seen where the widgets are not, and leaves the keyboard to them."""

import pytest
from ipywidgets.widgets.widget import _instances as widget_instances

import lab.display.static_twin
from config import preset
from lab.data.tokenizers import load_tokenizer
from lab.display.plots import bars
from lab.display.quiz import ask
from lab.display.static_twin import Html, WithTwin
from lab.notebooks import WIDGET
from lab.widgets import sampling_panel
from modules.transformer import Transformer


def sampling() -> WithTwin:
    model = Transformer(preset("llama-tiny").model.replace(vocab_size=257, width=16))
    return sampling_panel(model, load_tokenizer("byte"), prompt="Once", max_tokens=2)


def plain() -> WithTwin:
    return WithTwin([], Html("<b>kept</b>", "kept"))


@pytest.fixture
def outputs(monkeypatch):
    """What is displayed, in order: [what, whether raw], the updates of each behind it."""
    shown = []

    def display(thing, raw=False, display_id=None):
        shown.append([thing])
        return type("Handle", (), {"update": lambda self, thing, raw=False, place=shown[-1]: place.append(thing)})()

    monkeypatch.setattr(lab.display.static_twin, "display", display)
    monkeypatch.setattr(lab.display.static_twin, "has_reader", lambda: True)
    return shown


QUESTIONS = ask("?", 1, "so", typed=True), ask("?", 1, "so", {2: "no"})


@pytest.mark.parametrize("make", [sampling, *(question.widget for question in QUESTIONS), plain])
def test_twin_and_widgets_are_two_outputs_each_hiding_the_other(outputs, make):
    widgets = make()
    widgets._ipython_display_()
    (twin,), (live,) = outputs
    assert live[WIDGET]["model_id"] == widgets.model_id and WIDGET not in twin, "a widget's output shows nothing else"
    mark, own = widgets.mark("twin"), widgets.mark("widgets")
    assert f'<div class="{mark}">' in twin["text/html"] and twin["text/plain"] == str(widgets.twin)
    style = widgets.children[0].value
    assert f".{mark}{{display:none}}" in style and f":has(.{mark}){{display:none}}" in style, "they hide the twin"
    after = f":has(.{mark})+.jp-OutputArea-child:not(:has(.{own})){{display:none}}"
    assert after in twin["text/html"], "and where they are not, the twin hides JupyterLab's message"
    assert own in widgets._dom_classes and "glassbox-widgets" in widgets._dom_classes


def test_keys_go_to_the_element_that_has_the_focus(outputs):
    """JupyterLab leaves alone what bears this attribute; only on the focused element itself it counts."""
    style = plain().children[0].value
    assert "data-lm-suppress-shortcuts" in style and "event.target.toggleAttribute" in style
    assert "window.addEventListener" in style, "by itself the name would mean the element's own"


def test_the_twin_follows_the_widgets(outputs):
    widgets = plain()
    widgets.keep(bars(["a"], [1], "s"))
    widgets._ipython_display_()
    assert "data:image/png" in outputs[0][0]["text/html"] and outputs[0][0]["text/plain"] == "Bars: a 1 s"
    widgets.keep(Html("<i>later</i>", "later"))
    assert "<i>later</i>" in outputs[0][1]["text/html"] and len(outputs) == 2


def test_a_program_that_executes_a_notebook_gets_the_twin_alone(outputs, monkeypatch):
    monkeypatch.setattr(lab.display.static_twin, "has_reader", lambda: False)
    question = ask("?", 1, "so", {2: "no"})
    question._ipython_display_()
    assert outputs == [[Html(question.html, str(question))]]


def test_closing_leaves_no_widget():
    before = set(widget_instances)
    sampling().close_all()
    assert set(widget_instances) == before
