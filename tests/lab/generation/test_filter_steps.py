"""The next token's distribution step by step: against the filters in one go and the definitions, and what is drawn."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
import torch

from lab.data.tales import stories
from lab.data.tokenizers import load_tokenizer
from lab.display.style import PlotError
from lab.generation.filter_plots import filter_picture, ranks_shown
from lab.generation.filter_steps import NEUTRAL, filter_steps
from lab.generation.generate import next_token_probabilities
from lab.generation.sampling import probabilities
from lab.generation.sampling_settings import LESSON_PROMPT, STRATEGIES, SamplingConfig
from lab.runs.run import Run
from settings.errors import GenerationError
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")
EVERYTHING = SamplingConfig(temperature=0.7, top_k=20, top_p=0.8, min_p=0.1, repetition_penalty=1.5)
PROMPT = "a red ball"


@pytest.fixture(scope="module")
def spoken():
    """A model with more ids than its tokenizer."""
    return stirred_alike(vary("llama", vocab_size=300)).float(), load_tokenizer("byte")


def own_logits(model, tokenizer, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """By a plain pass: the logits (1, V) after the prompt, and the mark of its tokens."""
    ids = tokenizer.encode(prompt)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[:, -1]
    logits[:, tokenizer.vocab_size :] = -torch.inf
    return logits, torch.zeros(1, 300, dtype=torch.bool).index_fill(1, torch.tensor(ids), True)


@pytest.mark.parametrize("name", [*STRATEGIES, "everything"])
def test_each_step_starts_where_the_one_before_ends_and_the_last_is_what_sample_draws_from(spoken, name):
    sampling = STRATEGIES.get(name, EVERYTHING)
    found = filter_steps(*spoken, PROMPT, sampling)
    logits, seen = own_logits(*spoken, PROMPT)
    own = logits.softmax(-1)[0]
    order = own.argsort(descending=True, stable=True)
    torch.testing.assert_close(found.own, own[order])
    given = [found.own, *(step.after for step in found.steps)]
    for step, before in zip(found.steps, given):
        assert torch.equal(step.before, before)
    torch.testing.assert_close(given[-1], probabilities(logits, seen, sampling)[0][order])
    changing = [setting for setting, neutral in NEUTRAL.items() if getattr(sampling, setting) != neutral]
    assert [step.setting for step in found.steps] == changing
    for step in found.steps:
        assert step.kept <= step.possible and step.after.sum() == pytest.approx(1, abs=1e-5)
        assert step.kept_share == pytest.approx(sum(p for p, q in zip(step.before.tolist(), step.after) if q), abs=1e-5)


def test_each_step_does_what_its_setting_says(spoken):
    penalty, temperature, top_k, top_p, min_p = filter_steps(*spoken, PROMPT, EVERYTHING).steps
    assert penalty.kept == temperature.kept == 257 and top_k.kept == 20
    ratio = temperature.after / temperature.before ** (1 / 0.7)  # softmax(x / T) is proportional to softmax(x)^(1/T)
    torch.testing.assert_close(ratio[:257] / ratio[0], torch.ones(257), rtol=1e-3, atol=0)
    falling = sorted(top_p.before.tolist(), reverse=True)
    assert top_p.kept == 1 + sum(total < 0.8 for total in itertools.accumulate(falling))
    assert min_p.kept == sum(p >= 0.1 * min_p.before.max() for p in min_p.before)
    changed = (penalty.after != penalty.before).sum()
    assert changed and temperature.name == "temperature 0.7" and top_p.name == "top-p 0.8"


def test_greedy_is_one_step_that_leaves_one_token(spoken):
    (step,) = filter_steps(*spoken, PROMPT, SamplingConfig(temperature=0.0, top_k=5, top_p=0.5)).steps
    assert (step.setting, step.possible, step.kept) == ("temperature", 257, 1) and step.after[0] == 1


def test_the_table_says_what_the_model_and_each_step_give(spoken):
    found = filter_steps(*spoken, PROMPT, SamplingConfig(temperature=0.4, top_p=0.3))
    labels, shares = next_token_probabilities(*spoken, PROMPT, k=10)
    table = found.table()
    assert list(table.index) == labels and table["model"].tolist() == pytest.approx(shares, abs=1e-6)
    assert list(table.columns) == ["model", "temperature 0.4", "top-p 0.3"] and len(found.table(50)) == 50
    readable = found.readable_table()
    excluded = table["top-p 0.3"] == 0
    assert (readable["top-p 0.3"].iloc[:10] == "–").tolist() == excluded.tolist() and excluded.any()
    assert readable.iloc[-1].tolist() == ["257", "257", f"{found.steps[-1].kept}"]
    assert PROMPT in repr(found) and all(name in repr(found) for name in table.columns)
    html = filter_steps(*spoken, "<b>", STRATEGIES["precise"])._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and html.count("<tr") == 12


# --- the picture ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*STRATEGIES, "everything"])
def test_the_picture_draws_bars_sums_and_cuts(spoken, name):
    found = filter_steps(*spoken, PROMPT, STRATEGIES.get(name, EVERYTHING))
    picture = filter_picture(found, k=8)
    plots = [plot for plot in picture.figure.axes if plot.get_visible()]
    assert len(plots) == 2 * len(found.steps)
    for step in found.steps:
        (above,) = (plot for plot in plots if plot.get_title("left") == step.name)
        after, before = ([bar.get_width() for bar in bars] for bars in above.containers)
        assert after == pytest.approx((100 * step.after[:8]).tolist(), abs=1e-4)
        assert before == pytest.approx((100 * step.before[:8]).tolist(), abs=1e-4)
        (crosses,) = above.get_lines()
        gone = [row for row, (p, q) in enumerate(zip(step.before[:8], step.after)) if p > 0 and q == 0]
        assert crosses.get_ydata().tolist() == gone, "a cross for each token that is excluded"
        below = next(
            plot for plot in plots if not plot.containers and np.allclose(
                plot.get_lines()[0].get_ydata(), 100 * step.before.sort(descending=True).values.double().cumsum(0)[
                    : len(plot.get_lines()[0].get_ydata())], atol=1e-4)
            and (str(step.kept) in plot.get_title("left") or step.kept == step.possible)
        )
        cut = next(line for line in below.get_lines() if line.get_label().startswith("cut"))
        if step.kept < step.possible:
            assert cut.get_xdata()[0] == step.kept + 0.5 < below.get_xlim()[1]
            reached = below.get_lines()[0].get_ydata()[step.kept - 1]
            assert reached == pytest.approx(100 * step.kept_share, abs=1e-3), "the curve crosses the cut at that share"
        else:
            assert np.isnan(cut.get_xdata()[0]) and below.get_title("left") == "cuts nothing off"
    assert [label.get_text() for label in picture.figure.axes[0].get_yticklabels()] == found.labels[:8]
    assert PROMPT in repr(picture) and str(found.steps[-1].kept) in repr(picture)


def test_the_curves_reach_beyond_the_cut(spoken):
    for sampling in (SamplingConfig(temperature=1.0, top_k=k) for k in (1, 3, 200)):
        (step,) = filter_steps(*spoken, PROMPT, sampling).steps
        assert step.kept < ranks_shown(step) <= 257


def test_refuses_what_can_not_be_shown(spoken):
    with pytest.raises(PlotError, match=r"change nothing.*lower the temperature"):
        filter_picture(filter_steps(*spoken, PROMPT, SamplingConfig(temperature=1.0)))
    with pytest.raises(GenerationError, match="empty"):
        filter_steps(*spoken, "")


# --- the lesson's prompt --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-tiny-tales", "gpt2-tiny-tales"])
def test_after_the_lesson_s_prompt_the_likely_tokens_are_whole_words(name):
    """Those that follow "sat down" in tales: each of these words is one token, so a token here is a word."""
    run = Run.open(name)
    found = Counter(word for story in stories(2000) for word in re.findall(r"sat down (\w+)", story.text))
    following = [word for word, count in found.items() if count > 20]
    assert {len(run.tokenizer.encode(f" {word}")) for word in following} == {1}
    labels, shares = next_token_probabilities(run.load_model(), run.tokenizer, LESSON_PROMPT, k=6)
    assert sum(shares) > 0.95 and min(shares) > 0.05 and LESSON_PROMPT.endswith("sat down")
    assert {label.removeprefix("·") for label in labels} <= set(following)
