"""How parts begin: built alone they are ready to use, and a model's first weights follow from its seed alone."""

import importlib
import pkgutil

import pytest
import torch
from torch import nn

import modules
from config import ModelConfig
from modules import (
    attention,
    dropout,
    foresight,
    future,
    linear,
    mlp,
    multi_token,
    norms,
    pools,
    positions,
    residual,
    shaped,
    transformer,
)
from modules import factored as factored_module
from modules.block import Block
from modules.logging_module import LoggingModule
from tests.helpers.variants import VARIANTS, vary

PLAIN = vary("llama", bias=True)
FACTORED, SHAPED, FUTURE = VARIANTS["factored"], VARIANTS["sasp"], VARIANTS["future-sum"]
WINDOW, COUNT = 4, 2
POOLS = {pool: (lambda pool=pool: pool(FUTURE, WINDOW, COUNT)) for pool in {pools.Pool, *pools.POOLS.values()}}
MIXINGS = {kind: (lambda kind=kind: kind(4, 10)) for kind in {*factored_module.MIXINGS.values()}}
NORMS = {kind: (lambda kind=kind: kind(40, True, True)) for kind in {norms.Norm, *norms.NORMS.values()}}


def words(config: ModelConfig) -> tuple[nn.Embedding, linear.Linear]:
    return nn.Embedding(config.vocab_size, config.width), linear.Linear(config.width, config.vocab_size, bias=False)


def level(config: ModelConfig) -> foresight.Foresight:
    return foresight.Foresight(config, 1, words(config), pools.build_pool(config, WINDOW, COUNT))


BUILT = POOLS | MIXINGS | NORMS | {
    LoggingModule: LoggingModule,
    attention.DotProductAttention: lambda: attention.DotProductAttention(40, 4, 2, 0.0),
    attention.Attention: lambda: attention.Attention(40, 4, 2, bias=True),
    attention.QueryKeyAttention: lambda: attention.QueryKeyAttention(PLAIN),
    Block: lambda: Block(PLAIN),
    dropout.Dropout: lambda: dropout.Dropout(0.1),
    factored_module.Mixing: factored_module.Mixing,
    factored_module.FactoredAttention: lambda: factored_module.FactoredAttention(FACTORED),
    factored_module.FactoredBlock: lambda: factored_module.FactoredBlock(FACTORED),
    foresight.Foresight: lambda: level(FUTURE),
    future.CrossAttention: lambda: future.CrossAttention(FUTURE, COUNT),
    future.FutureBlock: lambda: future.FutureBlock(FUTURE, COUNT, 1, level(FUTURE)),
    linear.Linear: lambda: linear.Linear(40, 24, bias=True),
    mlp.MLP: lambda: mlp.MLP(40, 64, "silu", bias=True),
    mlp.GatedMLP: lambda: mlp.GatedMLP(40, 64, "silu", bias=True),
    multi_token.MultiTokenBlock: lambda: multi_token.MultiTokenBlock(VARIANTS["multi-token"], 2, ()),
    norms.HeadNorm: lambda: norms.HeadNorm(PLAIN.norm, 4, 40),
    positions.Position: positions.Position,
    positions.LearnedPosition: lambda: positions.LearnedPosition(17, 40),
    positions.SinusoidalPosition: lambda: positions.SinusoidalPosition(17, 40, 100.0),
    positions.RotaryPosition: lambda: positions.RotaryPosition(17, 10, 100.0),
    positions.ALiBi: lambda: positions.ALiBi(torch.tensor([0.5])),
    residual.ResidualBlock: lambda: residual.ResidualBlock(PLAIN),
    shaped.ShapedAttention: lambda: shaped.ShapedAttention(SHAPED),
    shaped.Gain: lambda: shaped.Gain(0.1),
    shaped.ShapedBlock: lambda: shaped.ShapedBlock(SHAPED),
    transformer.Transformer: lambda: transformer.Transformer(PLAIN),
}  # fmt: skip


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
        for value in vars(importlib.import_module(file.name)).values():
            if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__.startswith("modules."):
                found.add(value)
    return found


def test_every_module_class_is_built_here():
    assert module_classes() == set(BUILT)


@pytest.mark.parametrize("kind", sorted(BUILT, key=lambda kind: kind.__qualname__), ids=lambda kind: kind.__name__)
def test_a_part_built_alone_has_no_uninitialised_number(poisoned, kind):
    part = BUILT[kind]()
    for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
        assert tensor.isfinite().all(), name


def test_a_factored_block_built_alone_moves_tokens(seeded):
    block, x = factored_module.FactoredBlock(FACTORED), torch.randn(2, 7, 40)
    place = positions.Placement(causal=True, mask=None)
    weights = block.attention.weights(*block.attention.queries_and_keys(block.attention_norm(x), place), place)
    moved = (weights @ block.attention.split_heads(x)).transpose(1, 2).flatten(2)  # mixings are the identity
    torch.testing.assert_close(block(block.split(x), place).xt, x + moved)


@pytest.mark.parametrize(
    "name, total",
    {
        "gpt2": 201.637902, "llama": 200.613336, "alibi": 197.756839, "vanilla": 200.120551, "sasp": 143.796789,
        "factored": 211.705044, "factored-alibi": 211.240968, "future": 833.498506, "multi-token": 527.935712,
        "future-attention": 669.437218, "future-parametric-sum": 579.240199, "factored-mixed": 359.302978,
    }.items(),
)  # fmt: skip
def test_the_first_weights_follow_from_the_seed(seeded, name, total):
    """The sum of all parameters of seed 0: it changes where a random number is drawn more, less or elsewhere."""
    model = transformer.Transformer(VARIANTS[name])
    assert sum(p.double().sum().item() for p in model.parameters()) == pytest.approx(total, abs=1e-3)
