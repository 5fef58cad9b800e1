"""Passes of one token with fixed shapes, as decoding compiles them, equal the uncached pass, for every variant."""

import pytest
import torch

from config import ARCHITECTURES
from lab.generation.token_step import STEPS, CompiledSteps, capacity_for, next_logits, window_for
from modules.cache import Cache
from modules.kernels import masked_attention
from modules.linear import Linear
from modules.transformer import Transformer
from tests.helpers.variants import BATCH, LENGTH, VARIANTS, fewest_layers, vary

pytestmark = pytest.mark.usefixtures("seeded")
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
LENGTHS = [4, 7, 1, 6, 2]  # of the prompts: every sequence is at another position


def build(config) -> Transformer:
    """In float64, with weights that make every part matter."""
    model = Transformer(config).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def prefill(model: Transformer, ids: torch.Tensor, lengths: list[int], capacity: int) -> Cache:
    cache = model.new_cache(len(ids), capacity)
    model(ids[:, : max(lengths)], cache)
    cache.keep(lengths)
    return cache


@EVERY_VARIANT
def test_steps_of_fixed_shape_equal_the_uncached_pass(config):
    model = build(config)
    ids = torch.randint(config.vocab_size, (BATCH, LENGTH))
    with torch.no_grad():
        reference = model(ids)
        cache = prefill(model, ids, LENGTHS, LENGTH + 2)
        positions, rows = torch.tensor(LENGTHS), torch.arange(BATCH)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        for window in (8, 9, 13, 13, 13, 13):
            logits = next_logits(model, ids[rows, positions], positions, torch.arange(window), layers)
            torch.testing.assert_close(logits, reference[rows, positions], rtol=0, atol=1e-10)
            positions += 1


@pytest.mark.parametrize("name", VARIANTS)
def test_one_graph_serves_every_token_and_gives_the_uncached_logits(name, monkeypatch):
    """Traced as the compiler does it. The window of 4 slots grows twice on the way."""
    monkeypatch.setattr("lab.generation.token_step.WINDOW", 4)
    config = VARIANTS[name] if name in ARCHITECTURES else fewest_layers(VARIANTS[name])
    model, graphs = build(config), []
    ids = torch.randint(config.vocab_size, (2, LENGTH))

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    with torch.inference_mode():
        reference = model(ids)
        cache = prefill(model, ids, [3, 2], capacity_for(LENGTH, model.config.position_limit))
        steps = CompiledSteps(model, cache, backend)
        for place in range(3, LENGTH):
            logits = steps(ids[range(2), [place, place - 1]])
            torch.testing.assert_close(logits, reference[range(2), [place, place - 1]], rtol=0, atol=1e-10)
        assert cache.lengths == [LENGTH, LENGTH - 1]
    assert len(graphs) == 1


def test_windows_grow_in_steps_up_to_the_models_limit():
    assert [window_for(length, 200) for length in (1, 16, 17, 32, 33, 193, 200)] == [16, 16, 32, 32, 48, 200, 200]
    assert capacity_for(65, 200) == 81


def test_a_model_that_is_gone_leaves_no_step():
    model = build(vary("llama"))
    with torch.inference_mode():
        CompiledSteps(model, model.new_cache(1, 65), "eager")
    assert model in STEPS
    before = len(STEPS)
    del model
    assert len(STEPS) == before - 1


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("kind", ["none", "boolean", "numbers"])
def test_the_compiled_form_of_attention_equals_pytorchs_kernel(monkeypatch, heads, kind):
    q, k, v = torch.randn(3, heads[0], 1, 8), torch.randn(3, heads[1], 11, 8), torch.randn(3, heads[1], 11, 8)
    seen = (torch.arange(11) <= torch.tensor([4, 9, 10])[:, None])[:, None, None]
    mask = {"none": None, "boolean": seen, "numbers": torch.randn(3, 4, 1, 11).masked_fill(~seen, -torch.inf)}[kind]
    with torch.no_grad():
        expected = masked_attention(q, k, v, mask, 0.3)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        torch.testing.assert_close(masked_attention(q, k, v, mask, 0.3), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_the_compiled_form_of_a_row_equals_pytorchs_product(monkeypatch, bias):
    layer, x = Linear(40, 96, bias=bias), torch.randn(1, 1, 40)
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
