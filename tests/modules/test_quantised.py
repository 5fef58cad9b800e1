"""Weights of 8 and 4 bits: the error against the formula, packing, equal ways to compute, and what is refused."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from config import LoRAConfig, QuantisedConfig
from modules.kernels import int8_linear, runs_int8_kernel
from modules.linear import Linear
from modules.lora import Adapter, LoRALinear
from modules.quantised import (
    Int4Matrix,
    Int8Matrix,
    QuantisedHead,
    QuantisedLinear,
    QuantisedMixing,
    kernels_used,
    pack,
    quantise,
    unpack,
)
from modules.transformer import Transformer
from settings.errors import ConfigError
from tests.helpers.variants import factored, vary

pytestmark = pytest.mark.usefixtures("seeded")
INT4 = QuantisedConfig(bits=4)


def half_spread(weight: np.ndarray, group: int) -> np.ndarray:
    """(largest − smallest) / 15 / 2 of each weight's group: the most by which even steps can miss it."""
    found = np.empty_like(weight)
    for start in range(0, weight.shape[1], group):
        part = weight[:, start : start + group]
        found[:, start : start + group] = (part.max(1) - part.min(1))[:, None] / 30
    return found


@pytest.mark.parametrize("shape", [(7, 40), (3, 64), (5, 1)])
def test_8_bits_miss_a_weight_by_half_a_step_at_most(shape):
    weight = torch.randn(shape)
    w = weight.double().numpy()
    scale = np.abs(w).max(1, keepdims=True) / 127
    expected = np.round(w / scale).clip(-127, 127) * scale
    found = Int8Matrix(weight, QuantisedConfig(), search=True).dequantise().double().numpy()
    assert np.abs(found - w).max() > 0 or shape[1] == 1
    assert (np.abs(found - w) <= scale / 2 * (1 + 1e-4)).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("inputs", [64, 40, 129])
def test_4_bits_miss_a_weight_by_half_a_step_at_most(inputs, group):
    weight = torch.randn(6, inputs)
    w = weight.double().numpy()
    config = QuantisedConfig(bits=4, group=group)
    found = Int4Matrix(weight, config, search=False).dequantise().double().numpy()
    rounding = np.abs(w).max() / 128  # of an offset to bfloat16, and of 15 times a scale
    assert (np.abs(found - w) <= half_spread(w, group) + rounding).all()
    searched = Int4Matrix(weight, config, search=True).dequantise().double().numpy()
    assert np.square(searched - w).sum() < 0.95 * np.square(found - w).sum()


def test_the_search_finds_a_grid_that_holds_the_weights_exactly():
    codes = torch.randint(16, (4, 3, 32))
    codes[..., 0], codes[..., 1] = 0, 15
    weight = (0.25 * codes - 1.5).flatten(1)
    for search in (False, True):
        assert torch.equal(Int4Matrix(weight, INT4, search).dequantise(), weight)


@pytest.mark.parametrize("kind", [Int8Matrix, Int4Matrix])
def test_weights_that_are_all_zero_stay_zero(kind):
    weight = torch.zeros(3, 40)
    weight[1] = torch.randn(40)
    found = kind(weight, INT4 if kind is Int4Matrix else QuantisedConfig(), search=True).dequantise()
    assert torch.equal(found[[0, 2]], weight[[0, 2]])
    assert found.isfinite().all()


def test_packing_is_undone():
    codes = torch.randint(16, (5, 33), dtype=torch.uint8)
    packed = pack(codes)
    assert packed.shape == (5, 17) and packed.dtype == torch.uint8
    assert torch.equal(unpack(packed)[:, :33], codes)
    assert packed[0, 0] == codes[0, 0] + 16 * codes[0, 1] and packed[0, 16] == codes[0, 32]


def test_bytes_of_a_matrix():
    """1 byte a weight and 4 an output; half a byte a weight and 4 a group of 32, of which the last may be small."""
    weight = torch.randn(96, 513)
    sizes = [
        sum(tensor.nbytes for tensor in matrix.buffers())
        for matrix in (Int8Matrix(weight, QuantisedConfig(), True), Int4Matrix(weight, INT4, True))
    ]
    assert sizes == [96 * 513 + 96 * 4, 96 * 257 + 96 * 17 * 4]
    assert sizes[0] <= 0.27 * weight.nbytes and sizes[1] <= 0.16 * weight.nbytes


@pytest.mark.parametrize("rows", [(1, 1), (3, 7), (32,)])
@pytest.mark.parametrize("dtype, relative", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("config", [QuantisedConfig(), INT4], ids=["int8", "int4"])
@pytest.mark.parametrize("inputs, outputs", [(72, 40), (64, 96), (65, 1)])
def test_every_way_to_compute_gives_the_product_with_the_dequantised_weight(
    rows, dtype, relative, config, inputs, outputs
):
    for bias in (True, False):
        layer = QuantisedLinear(Linear(inputs, outputs, bias=bias), config, search=False).to(dtype)
        x = torch.randn(*rows, inputs).to(dtype)
        expected = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
        with torch.no_grad():
            without_gradients = layer(x)
        for y in (layer(x), without_gradients):
            assert y.dtype == dtype and y.shape == (*rows, outputs)
            assert (y.double() - expected).norm() <= relative * expected.norm()


@pytest.mark.parametrize("inputs, outputs", [(32, 32), (64, 96), (96, 160), (224, 32), (352, 544)])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 33])
def test_pytorchs_int8_kernel_gives_the_same_sums(inputs, outputs, n_rows):
    x, codes = torch.randn(n_rows, inputs).bfloat16(), torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
    scale = torch.rand(outputs) + 0.1
    with torch.no_grad():
        assert runs_int8_kernel(x, outputs)
        by_kernel = int8_linear(x, codes, scale).double()
    exact = (x.double() @ codes.double().T) * scale
    written_out = int8_linear(x, codes, scale).double()
    eps = torch.finfo(torch.bfloat16).eps
    for found in (by_kernel, written_out):
        assert ((found - exact).abs() <= 1.1 * eps * exact.abs() + 1e-3 * exact.abs().max()).all()


def test_the_kernel_is_chosen_where_it_is_right_and_fast():
    x = torch.randn(1, 64).bfloat16()
    assert not runs_int8_kernel(x, 96), "it has no gradient"
    with torch.no_grad():
        assert runs_int8_kernel(x, 96) and not runs_int8_kernel(x.float(), 96)
        assert not runs_int8_kernel(x, 97) and not runs_int8_kernel(x[:, :63], 96), "it would read past the end"
    int8, int4 = (
        Transformer(vary("llama", width=64, quantised=config)) for config in (QuantisedConfig(), INT4)
    )
    assert kernels_used(int8, torch.bfloat16)[0] == "torch._weight_int8pack_mm, then the scales"
    assert kernels_used(int8, torch.float32) == ["a product with the codes, then the scales"]
    assert kernels_used(int4, torch.bfloat16) == ["the weights in floating-point numbers, then a product"]


def test_gradients_reach_the_inputs_and_no_weight():
    layer = QuantisedLinear(Linear(40, 30, bias=False), QuantisedConfig(), search=True)
    x = torch.randn(3, 40, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1))
    assert not list(layer.parameters())


def test_each_kind_of_layer_is_replaced_by_its_own():
    model = Transformer(vary("factored", block=factored("dense", "kronecker"), tie_weights=False))
    before = {name: module.weight.clone() for name, module in model.named_modules() if isinstance(module, Linear)}
    quantise(model, QuantisedConfig(layers="*"))
    found = {name: model.get_submodule(name) for name in before}
    assert all(isinstance(layer, QuantisedLinear) for layer in found.values())
    assert type(found["head"]) is QuantisedHead and type(found["blocks.0.attention.value_mixing"]) is QuantisedMixing
    assert not isinstance(model.blocks[0].attention.output_mixing, QuantisedLinear), "it has another form"
    for name, weight in before.items():
        torch.testing.assert_close(found[name].weight, weight, rtol=0, atol=weight.abs().max().item() / 250)


def test_what_is_quantised_stays_close_and_can_be_chosen():
    model = Transformer(vary("llama", init_std=0.1)).eval()
    ids = torch.randint(61, (3, 11))
    with torch.no_grad():
        logits = model(ids)
        quantise(model, QuantisedConfig(layers="blocks.1.mlp.*, *.qkv"))
        assert 0 < (model(ids) - logits).norm() < 0.02 * logits.norm()
    found = [name for name, module in model.named_modules() if isinstance(module, QuantisedLinear)]
    assert found == ["blocks.0.attention.qkv", "blocks.1.attention.qkv", "blocks.1.mlp.gate_up", "blocks.1.mlp.down"]


def test_an_adapter_trains_on_quantised_weights():
    config = vary("llama", init_std=0.1, quantised=QuantisedConfig(), lora=LoRAConfig(rank=3))
    model = Transformer(config)
    model.losses(torch.randint(61, (2, 14)))["loss"].backward()
    layer = model.blocks[0].mlp.down
    assert isinstance(layer, LoRALinear) and isinstance(layer.base, QuantisedLinear)
    assert layer.up.grad.abs().max() > 0
    adapter = Adapter.of(model)
    with pytest.raises(ConfigError, match=r"blocks\.0\.attention\.qkv is quantised: its few bits can't hold"):
        adapter.merge()
    assert model.blocks[0].mlp.down is layer and model.config.lora
    adapter.take_off()
    with pytest.raises(ConfigError, match="is quantised"):
        adapter.unmerge()
    assert model.blocks[0].mlp.down is layer.base


def test_what_can_not_be_quantised():
    model = Transformer(vary("llama"))
    with pytest.raises(ConfigError, match=r"quantised\.layers: no linear layer of this model matches 'head'"):
        quantise(model, QuantisedConfig(layers="*.mlp.*, head"))
    assert not any(isinstance(module, QuantisedLinear) for module in model.modules())
    quantise(model, INT4)
    with pytest.raises(ConfigError, match="quantised already, to 4 bits"):
        quantise(model, QuantisedConfig())
    with pytest.raises(ConfigError, match=r"has an adapter on it; merge it first"):
        quantise(Transformer(vary("llama", lora=LoRAConfig(rank=2))), QuantisedConfig())
    for values, message in (
        (dict(bits=3), "bits"), (dict(bits=4, group=48), "group"), (dict(group=32), "group=32 is for 4 bits"),
    ):
        with pytest.raises(ConfigError, match=message):
            QuantisedConfig(**values)
