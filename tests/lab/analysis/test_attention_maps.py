"""Attention maps: what they hold is what attention really read, in every architecture; summaries by known numbers."""

import math

import numpy as np
import pytest
import torch

from config import NoPositionConfig
from lab.analysis.attention_maps import AttentionMaps, attention_maps, mean_measures
from lab.analysis.attention_plots import attention_map, attention_overview, attention_summary
from lab.analysis.forward_pass import AnalysisError
from lab.data.tokenizers import load_tokenizer
from modules.positions import alibi_slopes
from settings.errors import GenerationError
from tests.helpers.stirred_models import stirred
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

FAMILIES = [
    "gpt2", "gpt2-grouped", "llama", "llama-single", "llama-grouped", "alibi-grouped-six-heads", "no-position",
    "sinusoidal", "parallel", "factored", "factored-alibi", "factored-dense", "factored-mixed-frozen", "sasp",
    "shaped-rope", "shaped-learned", "future", "future-max", "future-self-attention",
    "multi-token", "multi-token-post-norm", "multi-token-one",
]
LENGTH = 13


def prompt(model) -> list[int]:
    return torch.randint(model.config.vocab_size, (LENGTH,)).tolist()


@pytest.fixture(scope="module")
def spoken():
    torch.manual_seed(0)
    return stirred(vary("llama", vocab_size=257)).float(), load_tokenizer("byte")


@pytest.fixture(scope="module")
def maps(spoken):
    return attention_maps(*spoken, "a red ball.")


# --- the maps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_those_of_the_softmax_by_hand(name):
    model = stirred(VARIANTS[name]).eval()
    ids, by_hand = prompt(model), []
    maps = attention_maps(model, None, ids)
    assert all(block.attention.fused for block in model.blocks)
    blocks = model.next_token_blocks
    for block in blocks:
        block.attention.fused, weights, own = False, block.attention.weights, []
        by_hand.append(own)
        block.attention.weights = lambda *inputs, w=weights, o=own: o.append(w(*inputs)[0]) or w(*inputs)
    with torch.no_grad():
        model(torch.tensor([ids]))
    expected = torch.stack([own[0] for own in by_hand])
    assert maps.weights.shape == (len(blocks), model.config.n_heads, LENGTH, LENGTH)
    torch.testing.assert_close(maps.weights, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(maps.weights.sum(-1), torch.ones_like(maps.weights[..., 0]), rtol=0, atol=1e-10)
    assert not maps.weights.triu(1).any() and maps.weights.std(-1).max() > 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_values_times_the_applied_map_are_what_the_fused_kernel_gives(name):
    """Found without `weights`: what went into each attention, its own values, and what came out of it."""
    model, passes = stirred(VARIANTS[name]).eval(), []
    ids = prompt(model)
    maps = attention_maps(model, None, ids)
    handles = [
        block.attention.register_forward_hook(lambda module, inputs, output: passes.append((module, inputs, output)))
        for block in model.blocks
    ]
    with torch.no_grad():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    for (attention, inputs, output), applied in zip(passes, maps.applied, strict=True):
        shaped = model.config.block.kind == "shaped"
        values = attention.split_heads(inputs[0]) if shaped else attention.project(*inputs)[2]
        values = values.repeat_interleave(model.config.n_heads // values.shape[1], dim=1)
        joined = (applied @ values).transpose(1, 2).flatten(2)
        last = torch.nn.Identity() if shaped else getattr(attention, "out", None) or attention.output_mixing
        torch.testing.assert_close(last(joined), output, rtol=0, atol=1e-10)


def test_shaped_attention_starts_as_the_identity_whatever_its_softmax_says():
    maps = attention_maps(stirred(VARIANTS["sasp"]), None, list(range(LENGTH)))
    assert (maps.applied < 0).any() and not torch.allclose(maps.applied, maps.weights)
    model = stirred(VARIANTS["sasp"])
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qk.weight.zero_()
            for gain in (block.attention.alpha, block.attention.beta, block.attention.gamma):
                gain.fill_(1)
    maps = attention_maps(model, None, list(range(LENGTH)))
    assert torch.allclose(maps.applied, torch.eye(LENGTH, dtype=maps.applied.dtype).expand_as(maps.applied))


def test_with_queries_of_nothing_alibi_alone_is_left():
    model = stirred(vary("alibi"))
    with torch.no_grad():
        for block in model.blocks:
            for parameter in block.attention.qkv.parameters():
                parameter.zero_()
    distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    for head, slope in enumerate(alibi_slopes(4)):
        powers = np.where(distance >= 0, np.exp(-slope * distance), 0)
        found = attention_maps(model, None, prompt(model)).head(2, head).numpy()
        assert np.allclose(found, powers / powers.sum(1, keepdims=True), rtol=0, atol=1e-7)


def test_looking_changes_nothing_and_leaves_nothing(spoken):
    model, tokenizer = spoken
    ids = torch.tensor([tokenizer.encode("a red ball.")])
    with torch.no_grad():
        before = model(ids)
        attention_maps(model, tokenizer, "a red ball.")
        assert torch.equal(model(ids), before)
    assert not any("read" in vars(block.attention) for block in model.blocks)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.train()
    attention_maps(model, tokenizer, "a")
    assert model.training and model.blocks[0].attention.training
    model.eval()


# --- the summaries --------------------------------------------------------------------------------------------


def test_summaries_of_heads_known_by_heart():
    """One reads the token before, one the first, one all alike: for i tokens ln i nats, (i − 1)/2 back, 1/i each."""
    first, previous = torch.zeros(2, 4, 4)
    first[:, 0] = 1
    previous[0, 0] = previous[1, 0] = previous[2, 1] = previous[3, 2] = 1
    even = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    found = mean_measures(torch.stack((first, previous, even)))
    seen = [2, 3, 4]  # by the second, third and fourth token
    expected = {
        "entropy": [0, 0, np.mean([math.log(i) for i in seen])],
        "distance": [np.mean([1, 2, 3]), 1, np.mean([(i - 1) / 2 for i in seen])],
        "first": [1, 1 / 3, np.mean([1 / i for i in seen])],
        "previous": [1 / 3, 1, np.mean([1 / i for i in seen])],
    }
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, abs=1e-7), name


def test_the_summary_has_a_row_for_each_head(maps):
    frame = maps.summary()
    assert list(frame.columns) == ["layer", "head", "entropy", "distance", "first", "previous"]
    assert list(zip(frame["layer"], frame["head"])) == [(layer, head) for layer in (1, 2) for head in range(4)]
    weights = maps.head(2, 3).double().numpy()
    row = frame.query("layer == 2 and head == 3").iloc[0]
    n = len(weights)
    distance = np.mean([sum(weights[i, j] * (i - j) for j in range(i + 1)) for i in range(1, n)])
    entropy = np.mean([-sum(weights[i, j] * math.log(weights[i, j]) for j in range(i + 1)) for i in range(1, n)])
    assert (row["distance"], row["entropy"]) == pytest.approx((distance, entropy))
    assert row["first"] == pytest.approx(weights[1:, 0].mean())
    assert row["previous"] == pytest.approx(np.diagonal(weights, -1).mean())


# --- the pictures ---------------------------------------------------------------------------------------------


def test_one_map_has_the_tokens_on_both_axes_and_hides_the_future(maps):
    picture = attention_map(maps, 2, 1)
    plot, bar = picture.figure.axes
    labels = list("a·red·ball.")
    for ticks in (plot.get_xticklabels(), plot.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == labels
    drawn = plot.collections[0].get_array()
    assert drawn.mask[np.triu_indices(11, 1)].all() and not drawn.mask[np.tril_indices(11)].any()
    assert np.array_equal(drawn[np.tril_indices(11)], maps.head(2, 1).numpy().astype(float)[np.tril_indices(11)])
    assert plot.get_title("left") == "Layer 2, head 1" and bar.get_ylabel() == "attention weight"


def test_a_window_hides_what_is_before_it_and_bounds_the_even_line():
    maps = attention_maps(stirred(VARIANTS["llama-windowed"]), None, list(range(LENGTH)))
    seen = np.tril(np.ones((LENGTH, LENGTH))) - np.tril(np.ones((LENGTH, LENGTH)), -4)
    assert maps.window == 4 and torch.equal(maps.weights[0, 0] > 0, torch.from_numpy(seen > 0))
    drawn = attention_map(maps, 1, 0).figure.axes[0].collections[0].get_array()
    assert np.array_equal(drawn.mask, seen == 0)
    alike = AttentionMaps(
        labels=maps.labels, window=4, applied=maps.applied,
        weights=torch.from_numpy(seen / seen.sum(1, keepdims=True)).expand_as(maps.weights),
    )
    for plot in attention_summary(alike).figure.axes:
        even, heads = plot.get_lines()
        assert heads.get_ydata()[0] == pytest.approx(even.get_ydata()[0])


def test_a_map_with_negative_numbers_parts_its_colours_at_zero():
    maps = attention_maps(stirred(VARIANTS["sasp"]), None, list(range(5)))
    mesh = attention_map(maps, 1, 0, applied=True).figure.axes[0].collections[0]
    assert mesh.norm.vmin == -mesh.norm.vmax < 0
    assert attention_map(maps, 1, 0).figure.axes[0].collections[0].norm.vmin == 0


def test_the_overview_has_every_head_at_its_place(maps):
    plot = attention_overview(maps).figure.axes[0]
    assert len(plot.images) == 8
    for image in plot.images:
        left, right, bottom, top = image.get_extent()
        head, layer = int((left + right) / 2), int((bottom + top) / 2)
        shown = image.get_array()
        assert np.array_equal(np.ma.filled(shown, 0), maps.head(layer, head).numpy())
    assert [tick.get_text() for tick in plot.get_yticklabels()] == ["1", "2"]


def test_the_summary_picture_shows_each_head_and_the_even_one(maps):
    frame, figure = maps.summary(), attention_summary(maps).figure
    for plot, name in zip(figure.axes, ("entropy", "distance")):
        even, heads = plot.get_lines()
        assert list(heads.get_ydata()) == list(frame[name])
        assert [round(x) for x in heads.get_xdata()] == list(frame["layer"])
        assert [text.get_text() for text in plot.texts] == list("01230123")
    uniform = stirred(vary("llama", position=NoPositionConfig()))
    with torch.no_grad():
        uniform.blocks[0].attention.qkv.weight.zero_()
    alike = attention_maps(uniform, None, list(range(7)))
    even, heads = attention_summary(alike).figure.axes[0].get_lines()
    assert heads.get_ydata()[0] == pytest.approx(even.get_ydata()[0])


# --- what makes no sense --------------------------------------------------------------------------------------


def test_refuses_what_makes_no_sense(spoken, maps):
    model, tokenizer = spoken
    for wrong, error, message in (
        (lambda: maps.head(0, 0), AnalysisError, "layers 1 to 2, heads 0 to 3"),
        (lambda: attention_map(maps, 1, 4), AnalysisError, "no head 4 in layer 1"),
        (lambda: attention_maps(model, tokenizer, "a").summary(), AnalysisError, "longer text"),
        (lambda: attention_maps(model, tokenizer, ""), GenerationError, "empty"),
        (lambda: attention_maps(model, None, "a"), GenerationError, "tokenizer"),
        (lambda: attention_maps(model, tokenizer, "a" * 69), GenerationError, "accepts 68 positions; shorten"),
        (lambda: attention_maps(model, None, [1, 2, 3], limit=2 * 2 * 4 * 9 * 4 - 1), AnalysisError, "shorten"),
    ):
        with pytest.raises(error, match=message):
            wrong()
    assert isinstance(attention_maps(model, None, [1, 2, 3], limit=2 * 2 * 4 * 9 * 4), AttentionMaps)
    assert repr(maps) == "AttentionMaps(2 layers × 4 heads over 11 tokens)"
