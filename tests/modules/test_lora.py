"""LoRA layers: the same numbers as peft's, exact merging, several adapters on one base."""

import pytest
import torch
from torch import nn

from config import LoRAConfig
from modules.factored import IndependentMixing, KroneckerMixing
from modules.linear import Linear
from modules.lora import Adapter, LoRALayer, LoRALinear, LoRAMixing, adaptable_layers
from modules.transformer import Transformer
from settings.errors import ConfigError
from settings.patterns import matching
from tests.helpers.variants import MERGED, VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")
ADAPTED = {name: config for name, config in VARIANTS.items() if config.lora}


def stirred_adapter(model: Transformer) -> Adapter:
    """The adapter of the model, with A and B far from where they start."""
    adapter = Adapter.of(model)
    with torch.no_grad():
        for tensor in adapter.tensors().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return adapter


def some_tokens(model: Transformer) -> torch.Tensor:
    return torch.randint(model.config.vocab_size, (3, 11))


@pytest.mark.parametrize("config", ADAPTED.values(), ids=list(ADAPTED))
def test_an_adapted_model_starts_as_its_base(config):
    torch.manual_seed(1)
    base = Transformer(config.replace(lora=None)).eval()
    torch.manual_seed(1)
    model = Transformer(config).eval()
    ids = some_tokens(model)
    assert torch.equal(model(ids), base(ids))


@pytest.mark.parametrize("config", MERGED.values(), ids=list(MERGED))
def test_merging_changes_no_logit_and_is_undone_exactly(config):
    model = Transformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        adapter, ids = stirred_adapter(model), some_tokens(model)
        adapted = model(ids)
        adapter.take_off()
        base, weights = model(ids), {name: weight.clone() for name, weight in model.named_parameters()}
        adapter.put_on()
        adapter.merge()
        assert model.config.lora is None and not any(isinstance(part, LoRALayer) for part in model.modules())
        torch.testing.assert_close(model(ids), adapted, rtol=1e-9, atol=1e-9)
        assert (base - adapted).abs().max() > 1e-2
        adapter.unmerge()
        torch.testing.assert_close(model(ids), adapted, rtol=1e-9, atol=1e-9)
        adapter.take_off()
        for name, weight in model.named_parameters():
            torch.testing.assert_close(weight, weights[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("config", ADAPTED.values(), ids=list(ADAPTED))
def test_only_the_adapter_trains_and_is_stored(config):
    model = Transformer(config)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(model.stored_tensors()) == set(Adapter.of(model).tensors())


def test_a_linear_layer_gives_what_the_formula_says():
    base = Linear(6, 4, bias=True)
    layer = LoRALinear(base, LoRAConfig(rank=2, alpha=5.0))
    nn.init.normal_(layer.up)
    x = torch.randn(3, 6)
    expected = x @ base.weight.T + base.bias + 5.0 / 2 * (x @ layer.down.T) @ layer.up.T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias)


@pytest.mark.parametrize("kind", [KroneckerMixing, IndependentMixing])
def test_a_mixing_is_mixed_by_its_weight_and_the_addition(kind):
    base = kind(3, 4)
    nn.init.normal_(base.weight)
    layer = LoRAMixing(base, LoRAConfig(rank=2, alpha=5.0))
    nn.init.normal_(layer.up)
    x = torch.randn(2, 5, 12)
    other = kind(3, 4)
    other.weight = nn.Parameter(base.weight + 5.0 / 2 * torch.matmul(layer.up, layer.down))
    torch.testing.assert_close(layer(x), other(x))
    if kind is KroneckerMixing:
        torch.testing.assert_close(layer.heads_matrix(), other.heads_matrix())


def test_the_same_numbers_and_gradients_as_peft():
    """An independent implementation, with A and B copied into it (peft on a plain stack of two layers)."""
    from peft import LoraConfig, get_peft_model

    first, last = nn.Linear(8, 8), nn.Linear(8, 3)
    theirs = get_peft_model(
        nn.Sequential(first, nn.ReLU(), last), LoraConfig(r=3, lora_alpha=7, target_modules=["0", "2"], bias="none")
    )
    ours = []
    for linear, name in ((first, "0"), (last, "2")):
        base = Linear(linear.in_features, linear.out_features, bias=True)
        wrapped = theirs.base_model.model.get_submodule(name)
        base.load_state_dict(wrapped.base_layer.state_dict())
        layer = LoRALinear(base, LoRAConfig(rank=3, alpha=7.0))
        nn.init.normal_(layer.up)
        with torch.no_grad():
            wrapped.lora_A["default"].weight.copy_(layer.down)
            wrapped.lora_B["default"].weight.copy_(layer.up)
        ours.append(layer)
    x = torch.randn(5, 8)
    out = ours[1](ours[0](x).relu())
    expected = theirs(x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    out.square().sum().backward()
    expected.square().sum().backward()
    for layer, name in zip(ours, ("0", "2")):
        wrapped = theirs.base_model.model.get_submodule(name)
        torch.testing.assert_close(layer.down.grad, wrapped.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.up.grad, wrapped.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-6)
        assert layer.base.weight.grad is None and wrapped.base_layer.weight.grad is None
    theirs.merge_adapter()
    torch.testing.assert_close(ours[0].weight, theirs.base_model.model.get_submodule("0").base_layer.weight)


def test_adapters_take_turns_on_one_base():
    model = Transformer(vary("llama")).eval()
    ids = some_tokens(model)
    with torch.no_grad():
        base = model(ids)
        wanted, adapters = [], []
        for layers in ("blocks.*.attention.*", "*.mlp.down"):
            Adapter.attach(model, LoRAConfig(rank=2, layers=layers))
            adapters.append(stirred_adapter(model.eval()))
            wanted.append(model(ids))
            adapters[-1].take_off()
        for _ in range(2):
            for adapter, logits in zip(adapters, wanted):
                adapter.put_on()
                assert torch.equal(model(ids), logits)
                adapter.take_off()
                assert torch.equal(model(ids), base)
        adapters[0].put_on()
        with pytest.raises(ConfigError, match="this adapter is not on"):
            adapters[1].take_off()
        adapters[0].take_off()
        Adapter.attach(model, LoRAConfig(rank=2))
        with pytest.raises(ConfigError, match="has an adapter on it"):
            adapters[0].put_on()


def test_dropout_acts_on_what_the_adapter_reads_alone():
    layer = LoRALinear(Linear(50, 50, bias=False), LoRAConfig(rank=4, dropout=0.5))
    x = torch.randn(1, 50)
    assert torch.equal(layer.train()(x), layer.base(x)), "B is 0, and the base reads the whole x"
    nn.init.normal_(layer.up)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_layers_are_chosen_by_patterns():
    names = list(adaptable_layers(Transformer(vary("llama"))))
    assert matching("lora.layers", names, "*.qkv, blocks.1.mlp.down") == [
        "blocks.0.attention.qkv", "blocks.1.attention.qkv", "blocks.1.mlp.down"
    ]
    assert "head" not in names, "it is the embedding"
    assert "head" in adaptable_layers(Transformer(vary("llama", tie_weights=False)))
    with pytest.raises(ConfigError, match=r"lora\.layers: no linear layer .* matches 'head'; it has blocks\.0\."):
        Transformer(vary("llama", lora=LoRAConfig(layers="*.mlp.*, head")))


def test_a_model_without_an_adapter_says_so():
    with pytest.raises(ConfigError, match="has no adapter on it"):
        Adapter.of(Transformer(vary("llama")))
