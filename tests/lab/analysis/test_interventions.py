"""Amplified attention and ablated heads and streams, against what the same weights give when changed by hand."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from lab.analysis.forward_pass import AnalysisError
from lab.analysis.intervention_plots import ablation_heatmap
from lab.analysis.interventions import (
    ablate_heads,
    ablate_streams,
    amplified,
    amplify,
    one_stream,
    without_heads,
)
from lab.data.token_file import TokenFile
from lab.data.tokenizers import load_tokenizer
from lab.evaluation.evaluate import evaluate, evaluate_text
from modules.attention import DotProductAttention
from modules.transformer import Transformer
from tests.helpers.factored_equations import Equations
from tests.helpers.stirred_models import stirred
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

FAMILIES = [
    "gpt2", "llama-grouped", "alibi", "alibi-grouped-six-heads", "sasp", "shaped-rope", "factored", "factored-alibi",
    "factored-dense", "factored-mixed-frozen", "future", "future-max", "future-attention", "multi-token",
]
TEXT = "A text of a few bytes, for a model that has never been trained."


def prompts(config) -> torch.Tensor:
    return torch.randint(config.vocab_size, (2, 11))


def logits(model, ids, fused=True):
    for part in model.modules():
        if isinstance(part, DotProductAttention):
            part.fused = fused
    with torch.no_grad():
        return model(ids)


def everything(model) -> list:
    """All that a change could have left behind."""
    modules = [
        {key: value for key, value in vars(module).items() if key not in ("_buffers", "_parameters", "_modules")}
        for module in model.modules()
    ]
    return [modules, [(name, buffer.clone()) for name, buffer in model.named_buffers()]]


def assert_untouched(before: list, model) -> None:
    now = everything(model)
    assert before[0] == now[0]
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in zip(before[1], now[1], strict=True))


@pytest.fixture
def spoken():
    return stirred(vary("factored-alibi", vocab_size=257, n_layers=3)).float(), load_tokenizer("byte")


@pytest.fixture
def held_out():
    tokens = np.random.default_rng(0).integers(256, size=100).astype(np.uint16)
    return TokenFile("validation", tokens, n_documents=1, n_bytes=100)


# --- amplification ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("factor", [0.5, 4])
def test_amplified_fused_equals_by_hand_and_cached(name, factor):
    model = stirred(VARIANTS[name])
    ids = prompts(model.config)
    usual = logits(model, ids)
    with amplified(model, factor):
        fused, by_hand = logits(model, ids), logits(model, ids, fused=False)
        logits(model, ids)
        cache = model.new_cache(2, 11)
        with torch.no_grad():
            cached = torch.cat([model(ids[:, :5], cache), model(ids[:, 5:], cache)], dim=1)
    torch.testing.assert_close(fused, by_hand, rtol=0, atol=1e-6)
    torch.testing.assert_close(fused, cached, rtol=0, atol=1e-6)
    assert (fused - usual).abs().max() > 1e-2


class Softmaxes(TorchFunctionMode):
    """Notes what every softmax but those over the vocabulary gets. With `replies`, softmaxes return these instead of
    their own results, so that all the rest of the pass stays as it was."""

    def __init__(self, vocab_size: int, replies: list[torch.Tensor] | None = None):
        super().__init__()
        self.vocab_size, self.seen, self.results, self.replies = vocab_size, [], [], replies

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function is not torch.Tensor.softmax or arguments[0].shape[-1] == self.vocab_size:
            return result
        self.seen.append(arguments[0])
        self.results.append(result)
        return result if self.replies is None else self.replies[len(self.seen) - 1]


@pytest.mark.parametrize(
    "name, count",
    {
        "gpt2": 2, "llama": 2, "alibi": 2, "vanilla": 2, "factored": 2, "factored-alibi": 2,
        "sasp": 2 + 2,  # attention and its centre
        "future": 6 + 3, "future-max": 3 + 1,  # attention, and the reading of predictions
        "future-attention": 5 + 3 + 3, "future-self-attention": 4 + 2 + 2,  # and a pool for each level
        "multi-token": 3,  # the three further heads are not in the pass
    }.items(),
)
def test_every_attention_logit_is_amplified(name, count):
    model = stirred(VARIANTS[name])
    ids, vocab_size = prompts(model.config), model.config.vocab_size
    logits(model, ids, fused=False)
    with Softmaxes(vocab_size) as usual:
        logits(model, ids, fused=False)
    with amplified(model, 4), Softmaxes(vocab_size, usual.results) as sharper:
        logits(model, ids, fused=False)
    changed = [torch.equal(four, 4 * one) and not torch.equal(four, one) for one, four in zip(usual.seen, sharper.seen)]
    assert len(usual.seen) == len(sharper.seen) == sum(changed) == count


class Amplified(Equations):
    """The whole logit times 4, written into the equations."""

    def softmax(self, scores):
        length = scores.shape[-1]
        slopes = np.array([1 / 4, 1 / 16, 1 / 64, 1 / 256])[:, None, None]
        scores = 4 * (scores - slopes * (np.arange(length)[:, None] - np.arange(length)))
        weights = np.where(np.tri(length, dtype=bool), np.exp(scores - scores.max(-1, keepdims=True)), 0)
        return weights / weights.sum(-1, keepdims=True)


def test_amplified_equals_the_equations():
    model = stirred(vary("factored-alibi", n_layers=3))
    ids = prompts(model.config)
    expected = Amplified(model).factored(ids)[0]
    with amplified(model, 4):
        np.testing.assert_allclose(logits(model, ids).numpy(), expected, rtol=0, atol=1e-9)
    assert np.abs(expected - Equations(model).factored(ids)[0]).max() > 1e-2


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_is_left_behind_even_after_an_error(name):
    model = Transformer(VARIANTS[name]).eval()
    ids, before = prompts(model.config), everything(model)
    usual = logits(model, ids)
    with pytest.raises(ZeroDivisionError), amplified(model, 8), without_heads(model, [(1, 0)]):
        with without_heads(model, [(1, 1)]):
            logits(model, ids)
        assert not torch.equal(logits(model, ids), usual)
        raise ZeroDivisionError
    assert_untouched(before, model)
    assert torch.equal(logits(model, ids), usual)
    with amplified(model, 1), without_heads(model, []):
        assert torch.equal(logits(model, ids), usual)


def test_amplify_measures_each_factor(spoken, held_out):
    model, tokenizer = spoken
    frame = amplify(model, held_out, tokenizer, factors=(1, 4), prompt="Once", sample_tokens=5)
    assert frame["loss"][0] == evaluate(model, held_out, tokenizer).loss and frame["ratio"][0] == 1
    assert frame["factor"].tolist() == [1, 4]
    with amplified(model, 4):
        loss = evaluate(model, held_out, tokenizer).loss
    assert frame["loss"][1] == loss != frame["loss"][0] and frame["ratio"][1] == loss / frame["loss"][0]
    assert all(sample.startswith("Once") for sample in frame["sample"]) and frame["sample"].nunique() == 2


# --- ablation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_that_reads_nothing_is_one_whose_output_has_no_weight(name):
    model, by_hand = (stirred(VARIANTS[name]) for _ in range(2))
    by_hand.load_state_dict(model.state_dict())
    ids, head = prompts(model.config), model.config.n_heads - 1
    attention, dim = by_hand.blocks[1].attention, model.config.head_dim
    own = slice(head * dim, (head + 1) * dim)
    with torch.no_grad():
        if name in ("sasp", "shaped-rope"):
            attention.beta[head] = attention.gamma[head] = 0
        elif hasattr(attention, "out"):
            attention.out.weight[:, own] = 0
        elif model.config.block.output_mixing == "kronecker":
            attention.output_mixing.weight[:, head] = 0
        else:
            attention.output_mixing.weight[:, own] = 0
    with without_heads(model, [(2, head)]):
        ablated = logits(model, ids)
    torch.testing.assert_close(ablated, logits(by_hand, ids), rtol=0, atol=1e-12)
    assert (ablated - logits(model, ids)).abs().max() > 1e-3


def test_heads_are_ablated_in_turn(spoken):
    model, tokenizer = spoken
    frame = ablate_heads(model, TEXT, tokenizer)
    assert list(zip(frame["layer"], frame["head"])) == [(i, j) for i in (1, 2, 3) for j in range(4)]
    with without_heads(model, [(2, 3)]):
        loss = evaluate_text(model, TEXT, tokenizer).loss
    row = frame.query("layer == 2 and head == 3").iloc[0]
    assert row["loss"] == loss and row["change"] == loss - evaluate_text(model, TEXT, tokenizer).loss != 0
    picture = ablation_heatmap(frame)
    assert f"{frame['change'].min():.3g} to {frame['change'].max():.3g}" in repr(picture)


def test_the_heads_of_a_multi_token_model_are_those_of_its_pass():
    model, tokenizer = stirred(vary("multi-token", vocab_size=257)).float(), load_tokenizer("byte")
    frame = ablate_heads(model, TEXT, tokenizer)
    assert list(zip(frame["layer"], frame["head"])) == [(i, j) for i in (1, 2, 3) for j in range(4)]
    assert (frame["change"] != 0).all(), "each of them is needed for the next token"
    with pytest.raises(AnalysisError, match="layers 1 to 3"), without_heads(model, [(4, 0)]):
        pass


def test_streams_are_ablated_at_the_end_alone(spoken):
    model, tokenizer = spoken
    ids = prompts(model.config)
    frame = ablate_streams(model, TEXT, tokenizer).set_index("stream")
    assert frame.loc["xt+xe", "change"] == 0
    assert frame.loc["xt+xe", "loss"] == evaluate_text(model, TEXT, tokenizer).loss
    states = []
    with model.blocks[-1].register_forward_hook(lambda _, __, state: states.append(state)), torch.no_grad():
        model(ids)
    for stream in ("xt", "xe"):
        with one_stream(model, stream):
            expected = model.head(model.norm(getattr(states[0], stream)))
            assert torch.equal(logits(model, ids), expected.detach())
            assert frame.loc[stream, "loss"] == evaluate_text(model, TEXT, tokenizer).loss
    assert frame["loss"].nunique() == 3


def test_refuses_what_makes_no_sense(spoken):
    model, tokenizer = spoken
    llama = Transformer(VARIANTS["llama"])
    for change, message in (
        (lambda: amplified(model, 0), "above 0"),
        (lambda: amplified(model, float("nan")), "above 0"),
        (lambda: without_heads(model, [(0, 0)]), "layers 1 to 3"),
        (lambda: without_heads(model, [(1, 4)]), "heads 0 to 3"),
        (lambda: one_stream(model, "yx"), "choose from: xe, xt"),
        (lambda: one_stream(llama, "xt"), "factored-alibi"),
    ):
        with pytest.raises(AnalysisError, match=message), change():
            pass
    with pytest.raises(AnalysisError, match="shorter text"):
        ablate_heads(model, TEXT, tokenizer, max_tokens=3)
