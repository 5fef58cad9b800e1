"""Layers count from 1, the first block, and heads from 0, in every function that takes or returns a layer."""

import pytest
import torch

from lab.analysis.attention_maps import attention_maps
from lab.analysis.attention_plots import attention_map
from lab.analysis.interventions import ablate_heads, without_heads
from lab.analysis.lenses import Translator, TunedLens, read_layers
from lab.analysis.provenance import provenance
from lab.analysis.provenance_plots import provenance_heatmap, provenance_heatmaps
from lab.data.tokenizers import load_tokenizer
from lab.future_sight.future_attention import future_attention
from tests.helpers.stirred_models import states_of, stirred
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def titles(picture) -> list[str]:
    return [plot.get_title("left") for plot in picture.figure.axes if plot.get_title("left")]


def test_layer_1_of_the_attention_maps_is_the_first_block():
    model = stirred(vary("llama", n_layers=3))
    attention, seen = model.blocks[0].attention, []
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    maps = attention_maps(model, None, IDS)
    handle.remove()
    x, place = seen[0][:2]
    q, k, _ = attention.project(x, place)
    expected = attention.weights(q, k, place)[0].detach()
    for head in range(model.config.n_heads):
        torch.testing.assert_close(maps.head(1, head), expected[head])
    assert maps.summary()["layer"].unique().tolist() == [1, 2, 3] and maps.summary()["head"].min() == 0
    assert titles(attention_map(maps, 3, 0)) == ["Layer 3, head 0"]


def test_ablating_a_head_of_layer_2_changes_the_second_block_first():
    model = stirred(vary("llama", n_layers=3))
    whole = states_of(model, torch.tensor([IDS]))
    with without_heads(model, [(2, 0)]):
        without = states_of(model, torch.tensor([IDS]))
    assert [torch.equal(a, b) for a, b in zip(whole, without)] == [True, False, False]
    frame = ablate_heads(stirred(vary("llama", n_layers=2, vocab_size=257)), "a text", load_tokenizer("byte"))
    assert frame["layer"].unique().tolist() == [1, 2] and frame["head"].min() == 0


def test_layer_0_of_a_lens_is_the_first_blocks_input():
    model = stirred(vary("llama", n_layers=2))
    model.double()
    zero = Translator(-torch.eye(model.config.width).double(), torch.zeros(model.config.width).double())
    plain = read_layers(model, IDS).kl
    for layer in range(3):
        kl = read_layers(model, IDS, lens=TunedLens(translators={("model", "state", layer): zero}, seed=0)).kl
        assert [not torch.equal(a, b) for a, b in zip(kl, plain)] == [at == layer for at in range(3)]


def test_layer_0_of_provenance_is_the_start_and_layer_1_the_first_block():
    model = stirred(vary("factored-alibi", n_layers=2))
    found = provenance(model, IDS)
    n, heads = len(IDS), model.config.n_heads
    assert torch.equal(found.matrix(0).reshape(n * heads, n * heads), torch.eye(n * heads).double())
    torch.testing.assert_close(found.rebuilt(1), states_of(model, torch.tensor([IDS]))[0].xt[0])
    assert titles(provenance_heatmap(found, 1)) == ["layer 1"] and titles(provenance_heatmap(found)) == ["layer 2"]
    assert titles(provenance_heatmaps(found)) == ["layer 1", "layer 2"]


def test_layers_of_the_attention_to_predictions_are_those_of_their_blocks():
    model = stirred(vary("future", n_layers=6))
    expected = [number for number, block in enumerate(model.blocks, 1) if block.cross is not None]
    frame = future_attention(model, None, IDS)
    assert frame["layer"].unique().tolist() == expected and frame["head"].min() == 0
