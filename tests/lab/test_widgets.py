"""The panels do what the plain calls do; the sampling panel says what it can't do."""

import pytest

import lab.widgets
from config import preset
from lab.data.readable_bpe import learn_merges
from lab.data.tokenizers import load_tokenizer
from lab.display.plots import shaded_tokens
from lab.display.token_display import show_tokens
from lab.generation.generate import transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.widgets import merge_panel, sampling_panel
from modules.transformer import Transformer


@pytest.fixture
def parts(seeded):
    model = Transformer(preset("llama-tiny").model.replace(vocab_size=257, width=16, init_std=0.3))
    return model, load_tokenizer("byte")


@pytest.fixture
def panel(parts):
    return sampling_panel(*parts, prompt="Once", max_tokens=5)


def child(panel, description):
    parts = [part for row in panel.children for part in getattr(row, "children", [row])]
    found = [part for part in parts if part.description == description]
    assert len(found) == 1, description
    return found[0]


def shown(panel) -> str:
    return panel.children[-1].value


def expected(parts, **settings) -> str:
    (made,) = transcribe(*parts, ["Once"], max_tokens=5, sampling=SamplingConfig(**settings), seed=0)
    return shaded_tokens(made.texts, made.probabilities)._repr_html_()


def test_starts_with_the_balanced_strategy(parts, panel):
    settings = STRATEGIES["balanced"]
    assert shown(panel) == expected(parts, temperature=settings.temperature, top_p=settings.top_p)


def test_sliders_are_the_settings(parts, panel):
    child(panel, "temperature").value = 1.5
    child(panel, "top-k (0: all)").value = 3
    child(panel, "top-p").value = 1.0
    child(panel, "repetition penalty").value = 1.3
    child(panel, "Write").click()
    assert shown(panel) == expected(parts, temperature=1.5, top_k=3, repetition_penalty=1.3)


def test_a_strategy_moves_the_sliders(panel):
    child(panel, "start from").value = "creative"
    assert child(panel, "temperature").value == 1.2
    assert child(panel, "min-p").value == 0.05
    assert child(panel, "top-p").value == 1.0


def test_what_cannot_be_used_is_said_in_its_place(panel):
    before = shown(panel)
    child(panel, "prompt").value = ""
    child(panel, "Write").click()
    assert "empty" in shown(panel) and "Traceback" not in shown(panel)
    assert shown(panel).endswith(f'<div style="opacity:.75">{before}</div>'), "the text from before is marked as old"


@pytest.mark.parametrize("control, value", [("top-p", 0.3), ("seed", 7), ("prompt", "One"), ("start from", "greedy")])
def test_a_change_marks_the_text_as_old_until_a_new_one_is_written(panel, control, value):
    before = shown(panel)
    child(panel, control).value = value
    assert shown(panel) == f'<b>written before the last change: press Write</b><div style="opacity:.75">{before}</div>'
    history = []
    panel.children[-1].observe(lambda change: history.append(change["new"]), "value")
    child(panel, "Write").click()
    assert [text.startswith("<b>writing …</b>") for text in history] == [True, False]
    assert "opacity" not in shown(panel) and panel.twin._repr_html_() == shown(panel)


def test_an_interrupted_writing_is_said_and_passed_on(panel, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = shown(panel)
    monkeypatch.setattr(lab.widgets, "continuation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        child(panel, "Write").click()
    assert shown(panel).startswith("<b>the generation was interrupted</b>") and before in shown(panel)


def test_the_merge_panel_shows_the_text_after_as_many_merges_as_the_slider_says():
    text = "the cat, the hat & the <b>"
    steps = list(learn_merges([text]))
    panel = merge_panel(text, steps)
    _, slider, said, shown = panel.children
    assert slider.value == slider.max == len(steps), "it starts with all of them"
    for number in (len(steps), 2, 1, 0):
        slider.value = number
        tokenizer = steps[number - 1].tokenizer if number else load_tokenizer("byte")
        expected = show_tokens(text, tokenizer)
        assert shown.value == panel.twin._repr_html_() == expected._repr_html_()
    assert said.value == "each byte is a token"
    slider.value = 1
    assert said.value == "merge 1: h + e, 3 times; 23 tokens are left"
