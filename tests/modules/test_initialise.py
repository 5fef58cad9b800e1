"""First values: a part that is built alone is ready to use, and a model's first weights depend only on its seed."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import modules
from config import DistilConfig, LoRAConfig, QuantisedConfig
from modules import (
    attention,
    classifier,
    distillation,
    dropout,
    foresight,
    future,
    heads,
    linear,
    lora,
    mlp,
    multi_token,
    norms,
    pools,
    positions,
    quantised,
    residual,
    shaped,
    transformer,
)
from modules import factored as factored_module
from modules.block import Block
from modules.logging_module import LoggingModule
from settings.registry import kinds_of, part
from tests.helpers.variants import VARIANTS, config_of, variant_of, vary

PLAIN = vary("llama", bias=True)
FACTORED, SHAPED, FUTURE = VARIANTS["factored"], VARIANTS["sasp"], VARIANTS["future-sum"]
WINDOW, COUNT = 4, 2
LORA, INT8, INT4 = LoRAConfig(rank=3), QuantisedConfig(bits=8), QuantisedConfig(bits=4)


def built_by(family: str, *inputs) -> dict[type, Callable[[], nn.Module]]:
    """How to build each kind of a family."""
    kinds = [part(family, name) for name in kinds_of(family)]
    return {kind: partial(kind, *inputs) for kind in kinds}


def encodings() -> dict[type, Callable[[], nn.Module]]:
    found = {name: PLAIN.replace(position=config_of("position", name)) for name in kinds_of("position")}
    return {part("position", name): partial(part("position", name), config) for name, config in found.items()}


def level() -> foresight.Foresight:
    return foresight.Foresight(FUTURE, 1, pools.build_pool(FUTURE, WINDOW, COUNT))


def heads_of_each_kind() -> dict:
    """Each from a config of its kind, because a kind may have settings of its own."""
    return {part("head", name): partial(part("head", name), variant_of("head", name)) for name in kinds_of("head")}


BUILT = {
    **built_by("pool", FUTURE, WINDOW, COUNT), **built_by("mixing", 4, 10), **heads_of_each_kind(), **encodings(),
    **built_by("norm", PLAIN.norm.replace(bias=True), 40),
    pools.Pool: lambda: pools.Pool(FUTURE, WINDOW, COUNT),
    pools.PartsPool: lambda: pools.PartsPool(FUTURE, WINDOW, COUNT),
    norms.Norm: lambda: norms.Norm(PLAIN.norm.replace(bias=True), 40),
    LoggingModule: LoggingModule,
    attention.DotProductAttention: lambda: attention.DotProductAttention(40, 4, 2, 0.0),
    attention.Attention: lambda: attention.Attention(40, 4, 2, bias=True),
    attention.QueryKeyAttention: lambda: attention.QueryKeyAttention(PLAIN),
    Block: lambda: Block(PLAIN),
    dropout.Dropout: lambda: dropout.Dropout(0.1),
    factored_module.Mixing: lambda: factored_module.Mixing(4, 10),
    factored_module.MatrixMixing: lambda: factored_module.MatrixMixing(4, 10),
    heads.Head: lambda: heads.Head(PLAIN),
    mlp.BaseMLP: mlp.BaseMLP,
    factored_module.FactoredAttention: lambda: factored_module.FactoredAttention(FACTORED),
    factored_module.FactoredBlock: lambda: factored_module.FactoredBlock(FACTORED),
    foresight.Foresight: level,
    future.CrossAttention: lambda: future.CrossAttention(FUTURE, COUNT),
    future.FutureBlock: lambda: future.FutureBlock(FUTURE, COUNT, 1, level()),
    linear.Linear: lambda: linear.Linear(40, 24, bias=True),
    mlp.MLP: lambda: mlp.MLP(40, 64, "silu", bias=True),
    mlp.GatedMLP: lambda: mlp.GatedMLP(40, 64, "silu", bias=True),
    multi_token.MultiTokenBlock: lambda: multi_token.MultiTokenBlock(VARIANTS["multi-token"], 2),
    norms.HeadNorm: lambda: norms.HeadNorm(PLAIN.norm, 4, 40),
    norms.QueryKeyNorm: lambda: norms.QueryKeyNorm(4, 10, 1e-5),
    positions.Position: lambda: positions.Position(PLAIN),
    residual.ResidualBlock: lambda: residual.ResidualBlock(PLAIN),
    shaped.ShapedAttention: lambda: shaped.ShapedAttention(SHAPED),
    shaped.Gain: lambda: shaped.Gain(0.1),
    shaped.ShapedBlock: lambda: shaped.ShapedBlock(SHAPED),
    transformer.Transformer: lambda: transformer.Transformer(PLAIN),
    lora.LoRALayer: lambda: lora.LoRALayer(linear.Linear(40, 24, bias=True), LORA),
    lora.LoRALinear: lambda: lora.LoRALinear(linear.Linear(40, 24, bias=True), LORA),
    lora.LoRAHead: lambda: lora.LoRAHead(heads.LinearHead(PLAIN), LORA),
    lora.LoRAMixing: lambda: lora.LoRAMixing(factored_module.KroneckerMixing(4, 10), LORA),
    quantised.Int8Matrix: lambda: quantised.Int8Matrix(torch.randn(24, 40), INT8, search=True),
    quantised.Int4Matrix: lambda: quantised.Int4Matrix(torch.randn(24, 40), INT4, search=True),
    quantised.QuantisedLinear: lambda: quantised.QuantisedLinear(linear.Linear(40, 24, bias=True), INT8, search=True),
    quantised.QuantisedMixing: lambda: quantised.QuantisedMixing(factored_module.DenseMixing(4, 10), INT4, search=True),
    quantised.QuantisedHead: lambda: quantised.QuantisedHead(heads.LinearHead(PLAIN), INT8, search=True),
    classifier.Classifier: lambda: classifier.Classifier(transformer.Transformer(PLAIN), 3),
    distillation.Distillation: lambda: distillation.Distillation(
        transformer.Transformer(PLAIN), transformer.Transformer(PLAIN), DistilConfig(teacher="teacher")
    ),
}


@pytest.fixture
def poisoned():
    """What torch.empty returns is full of NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def module_classes() -> set[type[nn.Module]]:
    found = set()
    for file in pkgutil.walk_packages(modules.__path__, "modules."):
        if file.name.startswith("modules.ideas"):
            continue
        for value in vars(importlib.import_module(file.name)).values():
            if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__.startswith("modules."):
                found.add(value)
    return found


def test_every_module_class_is_built_here():
    assert module_classes() <= set(BUILT)


@pytest.mark.parametrize("kind", sorted(BUILT, key=lambda kind: kind.__qualname__), ids=lambda kind: kind.__name__)
def test_a_part_built_alone_has_no_uninitialised_number(poisoned, kind):
    part = BUILT[kind]()
    for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
        assert tensor.isfinite().all(), name


def test_a_factored_block_built_alone_moves_tokens(seeded):
    block, x = factored_module.FactoredBlock(FACTORED), torch.randn(2, 7, 40)
    place = positions.PositionContext(causal=True, mask=None)
    weights = block.attention.weights(*block.attention.queries_and_keys(block.attention_norm(x), place), place)
    moved = (weights @ block.attention.split_heads(x)).transpose(1, 2).flatten(2)  # mixings are the identity
    torch.testing.assert_close(block(block.split(x), place).xt, x + moved)


@pytest.mark.parametrize("name", ["llama", "alibi", "factored", "sasp", "future", "multi-token", "block-layer_scale"])
def test_with_zero_init_what_writes_into_the_stream_starts_at_0(seeded, name):
    """All other weights start as they do without it."""
    ours, usual = (transformer.Transformer(VARIANTS[name].replace(zero_init=zero)) for zero in (True, False))
    writers = 0
    for (key, weight), other in zip(ours.named_parameters(), usual.parameters(), strict=True):
        if key.endswith((".out.weight", "mlp.down.weight")):
            assert not weight.any() and other.std() > 0, key
            writers += 1
        else:
            spreads = [tensor.std(correction=0).item() for tensor in (weight, other)]
            assert spreads[0] == pytest.approx(spreads[1], rel=0.4, abs=1e-6), key
    assert writers >= ours.config.n_layers
    if name in ("llama", "alibi", "multi-token"):  # every block starts as the identity
        ids = torch.arange(6)[None]
        torch.testing.assert_close(ours.hidden(ids), ours.norm(ours.position.embed(ours.embedding(ids), ids[0])))


def test_shaped_attention_with_normed_queries_starts_as_the_identity(seeded):
    model = transformer.Transformer(SHAPED.replace(qk_norm=True)).eval()
    attention, x = model.blocks[0].attention, torch.randn(2, 7, 40)
    places = torch.arange(7)
    torch.testing.assert_close(attention(x, model.position.place(places, places, True, None)), x)
    assert attention.qk.weight[:40].std() > 0.01
    windows = torch.randint(61, (2, 8))
    for _ in range(2):
        model.zero_grad()
        model.losses(windows)["loss"].backward()
        largest = max(parameter.grad.abs().max().item() for parameter in attention.parameters())
        assert 0 < largest < 10
        with torch.no_grad():
            for parameter in attention.parameters():
                parameter -= 1e-3 * parameter.grad.sign()
    assert all(parameter.grad.any() for parameter in attention.parameters())


@pytest.mark.parametrize(
    "name, total",
    {
        "gpt2": 201.637902, "llama": 200.613336, "alibi": 197.756839, "vanilla": 200.120551, "sasp": 143.796789,
        "factored": 211.705044, "factored-alibi": 211.240968, "future": 833.498506, "multi-token": 527.935712,
        "future-attention": 669.437218, "future-parametric-sum": 579.240199, "factored-mixed": 359.302978,
    }.items(),
)
def test_the_first_weights_follow_from_the_seed(seeded, name, total):
    """The sum of all parameters of seed 0. It changes if random numbers are added, left out or reordered."""
    model = transformer.Transformer(VARIANTS[name])
    assert sum(p.double().sum().item() for p in model.parameters()) == pytest.approx(total, abs=1e-3)
