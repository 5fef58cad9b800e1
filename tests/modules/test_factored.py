"""The factored and the shaped block, compared with their equations in numpy and float64."""

import math

import numpy as np
import pytest
import torch

from config import (
    FactoredBlockConfig,
    LearnedPositionConfig,
    ModelConfig,
    NoPositionConfig,
    NormConfig,
    RoPEConfig,
    ShapedBlockConfig,
)
from modules.factored import Streams
from modules.norms import HeadNorm
from modules.positions import alibi_slopes
from modules.transformer import Transformer
from settings.errors import GlassboxError
from settings.registry import part
from tests.helpers.devices import DEVICE
from tests.helpers.factored_equations import SLOPES, Equations, heads_matrices, provenance
from tests.helpers.stirred_models import states_of, stirred
from tests.helpers.variants import VARIANTS, built_in, factored, vary

pytestmark = pytest.mark.usefixtures("seeded")

BATCH, LENGTH = 2, 11
KINDS = built_in("mixing")  # those that the equations know


def tokens(config: ModelConfig) -> torch.Tensor:
    return torch.randint(config.vocab_size, (BATCH, LENGTH))


# --- the equations ------------------------------------------------------------------------------------------


def assert_close(result: torch.Tensor, expected: np.ndarray):
    assert expected.std() > 0.1  # numbers that differ
    np.testing.assert_allclose(result.detach().cpu().numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["factored", "factored-alibi"])
@pytest.mark.parametrize("value_mixing", KINDS)
@pytest.mark.parametrize("output_mixing", KINDS)
def test_factored_equals_its_equations(name, value_mixing, output_mixing):
    model = stirred(vary(name, block=factored(value_mixing, output_mixing), n_layers=3))
    ids = tokens(model.config)
    logits, xt, _ = Equations(model).factored(ids)
    assert_close(model(ids), logits)
    assert_close(states_of(model, ids)[-1].xt, xt)


@pytest.mark.parametrize("changes", [dict(frozen_tokens=True), dict(head_norm=True)], ids=str)
def test_factored_options_equal_their_equations(changes):
    model = stirred(vary("factored-alibi", block=FactoredBlockConfig(**changes), n_heads=6, width=48))
    ids = tokens(model.config)
    assert_close(model(ids), Equations(model).factored(ids)[0])


@pytest.mark.parametrize("position", ["alibi", "learned"])
@pytest.mark.parametrize("n_heads, width", [(4, 40), (6, 48)])
def test_shaped_equals_its_equations(position, n_heads, width):
    changes = dict(position=LearnedPositionConfig()) if position == "learned" else {}
    model = stirred(vary("sasp", n_layers=3, n_heads=n_heads, width=width, **changes))
    ids = tokens(model.config)
    assert_close(model(ids), Equations(model).shaped(ids))


# --- the token stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value_mixing, output_mixing", [("kronecker", "kronecker"), ("identity", "kronecker")])
def test_token_stream_is_a_linear_image_of_the_embeddings(value_mixing, output_mixing):
    """An analysis needs only the matrix over heads of a mixing."""
    model = stirred(vary("factored-alibi", block=factored(value_mixing, output_mixing), n_layers=3))
    ids = tokens(model.config)
    equations = Equations(model)
    m = provenance(equations.factored(ids)[2], *heads_matrices(model))
    embedded = equations.embedded(ids).reshape(BATCH, LENGTH, 4, 10)
    rebuilt = np.einsum("btisj,bsjd->btid", m, embedded).reshape(BATCH, LENGTH, 40)
    assert_close(states_of(model, ids)[-1].xt, rebuilt)


@pytest.mark.parametrize("n_layers", [1, 2, 5])
@pytest.mark.parametrize("init", ["identity", "scaled_identity"])
def test_weights_of_the_token_stream_add_up(n_layers, init):
    """They sum to 2^L from the identity, below e from the scaled one. Equal embeddings grow by that factor."""
    growth = 2**n_layers if init == "identity" else (1 + 1 / n_layers) ** n_layers
    config = vary("factored-alibi", block=FactoredBlockConfig(mixing_init=init), n_layers=n_layers)
    model = Transformer(config).double()
    ids = tokens(config)
    equations = Equations(model)
    sums = provenance(equations.factored(ids)[2], *heads_matrices(model)).sum((-2, -1))
    np.testing.assert_allclose(sums, growth, rtol=1e-6)
    same = ids[:1, :1].expand(1, LENGTH)
    expected = growth * model.embedding.weight[same].detach()
    torch.testing.assert_close(states_of(model, same)[-1].xt, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["factored-mixed-frozen", "factored-head-norm-frozen"])
def test_frozen_tokens_are_the_embedding_to_the_bit(name):
    model = Transformer(VARIANTS[name]).eval()
    ids = tokens(model.config)
    positions = torch.arange(LENGTH)
    with torch.no_grad():
        expected = model.position.embed(model.embedding(ids), positions)
    states = states_of(model, ids)
    assert len(states) == model.config.n_layers
    for state in states:
        assert isinstance(state, Streams)
        assert torch.equal(state.xt, expected) and (state.xe != 0).any(-1).all()


def test_mlp_writes_into_xe_alone_and_attention_into_xt_alone():
    model = stirred(vary("factored-alibi", n_layers=1))
    ids = tokens(model.config)
    before = states_of(model, ids)[0]
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.mul_(2)
    after = states_of(model, ids)[0]
    assert torch.equal(after.xt, before.xt)
    torch.testing.assert_close(after.xe, 2 * before.xe)
    with torch.no_grad():
        model.blocks[0].attention.output_mixing.weight.zero_()
    embedded = model.embedding.weight[ids].detach()
    assert torch.equal(states_of(model, ids)[0].xt, embedded)


# --- mixings and norms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["independent", "dense"])
def test_only_whole_heads_have_a_matrix(kind):
    with pytest.raises(GlassboxError, match="kronecker"):
        part("mixing", kind)(4, 10).heads_matrix()
    assert part("mixing", "identity")(4, 10).heads_matrix().tolist() == torch.eye(4).tolist()
    assert part("mixing", "kronecker")(4, 10).heads_matrix().shape == (4, 4)


@pytest.mark.parametrize("kind", ["rms", "layer", "cosine"])
@pytest.mark.parametrize("bias", [True, False])
def test_head_norm_keeps_heads_apart(kind, bias):
    norm = HeadNorm(NormConfig(kind=kind, bias=bias), 4, 40)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
    assert sum(parameter.numel() for parameter in norm.parameters()) == 40 * (1 + bias)
    x = torch.randn(2, 3, 40)
    reference = norm(x)
    for head in range(4):
        own = slice(10 * head, 10 * head + 10)
        other = x.clone()
        other[..., own] += torch.randn(2, 3, 10)
        changed = (norm(other) != reference).unflatten(-1, (4, 10))
        assert changed[:, :, head].any() and changed.any((0, 1, 3)).tolist() == [i == head for i in range(4)]


@pytest.mark.parametrize("init", ["normal", "identity", "scaled_identity"])
@pytest.mark.parametrize("kind", ["kronecker", "independent", "dense"])
def test_mixings_start_as_told(kind, init):
    config = ModelConfig(
        vocab_size=64, n_layers=3, n_heads=32, width=512, init_std=0.05,
        block=factored(kind, kind, mixing_init=init),
    )
    for block in Transformer(config).blocks:
        for mixing in (block.attention.value_mixing, block.attention.output_mixing):
            weight = mixing.weight.detach()
            if init == "normal":
                assert weight.std().item() == pytest.approx(0.05, rel=0.1)
                assert abs(weight.mean().item()) < 0.01
            else:
                one = torch.eye(weight.shape[-1]).expand_as(weight)
                torch.testing.assert_close(weight, one / (math.sqrt(3) if init == "scaled_identity" else 1))


# --- ALiBi --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["factored-alibi", "sasp"])
def test_alibi_slopes_have_no_duplicates_where_heads_are_no_power_of_two(name):
    """With products of 0, one step back lowers a head's score by its slope. No two of six heads have the same slope."""
    model = Transformer(vary(name, n_heads=6, width=48)).double()
    attention, positions = model.blocks[0].attention, torch.arange(LENGTH)
    place = model.position.place(positions, positions, causal=True, mask=None)
    q, k = torch.zeros(2, 1, 6, LENGTH, 8, dtype=torch.float64)
    weights = attention.weights(q, k, place)[0]
    steps = (weights[:, -1, 1:] / weights[:, -1, :-1]).log()
    expected = torch.tensor(SLOPES[6], dtype=torch.float64)[:, None].expand(6, LENGTH - 1)
    torch.testing.assert_close(steps, expected, rtol=1e-9, atol=1e-9)
    assert alibi_slopes(6) == SLOPES[6] and len(set(SLOPES[6])) == 6


# --- shaped attention ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("position", [None, NoPositionConfig(), RoPEConfig()], ids=["alibi", "none", "rope"])
def test_shaped_block_starts_as_its_norm(position, fused):
    config = vary("sasp", block=ShapedBlockConfig(mlp_gain=0.0), **({"position": position} if position else {}))
    model = Transformer(config).double()
    positions = torch.arange(LENGTH)
    place = model.position.place(positions, positions, causal=True, mask=None)
    for block in model.blocks:
        block.attention.fused = fused
        x = torch.randn(BATCH, LENGTH, config.width, dtype=torch.float64)
        torch.testing.assert_close(block(x, place), block.norm(x), rtol=0, atol=1e-12)
        with torch.no_grad():
            block.attention.gamma.mul_(0.5)
        assert (block(x, place) - block.norm(x)).abs().max() > 0.1  # what stands still here can move


def test_shaped_attention_starts_with_queries_of_zero_and_gains_of_one():
    for block in Transformer(vary("sasp", n_heads=6, width=384, init_std=0.05)).blocks:
        queries, keys = block.attention.qk.weight.detach().chunk(2)
        assert (queries == 0).all() and keys.std().item() == pytest.approx(0.05, rel=0.02)
        for gain in (block.attention.alpha, block.attention.beta, block.attention.gamma):
            assert gain.tolist() == [1.0] * 6
        assert block.mlp_gain.weight.item() == pytest.approx(0.1)


def test_dropout_of_sub_layers_spares_the_stream():
    """Only attention carries the tokens on, so dropout must not act on its result."""
    config = vary("sasp", block=ShapedBlockConfig(mlp_gain=0.0))
    block = Transformer(config).blocks[0].train()
    block.dropout.rate = 0.9
    x, positions = torch.randn(BATCH, LENGTH, 40), torch.arange(LENGTH)
    place = Transformer(config).position.place(positions, positions, causal=True, mask=None)
    torch.testing.assert_close(block(x, place), block.norm(x))


# --- bfloat16 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith(("factored", "sasp", "shaped"))])
def test_bf16_autocast_is_as_exact_as_bf16_allows(name):
    model = stirred(VARIANTS[name]).float()
    windows = torch.randint(61, (BATCH, LENGTH + 1))
    trained, results = [parameter for parameter in model.parameters() if parameter.requires_grad], []
    for enabled in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=enabled):
            loss = model.losses(windows)["loss"]
        results.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]))
    exact, rounded = results
    assert 0 < (rounded - exact).norm() < 0.1 * exact.norm()
