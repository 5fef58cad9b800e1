"""Each part by itself, compared with its formula, written here a second time."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from config import ARCHITECTURES, LearnedPositionConfig, ModelConfig, NoPositionConfig, ResidualBlockConfig
from modules.attention import Attention
from modules.dropout import Dropout, set_dropout_share
from modules.mlp import build_mlp
from modules.norms import build_norm
from modules.residual import ResidualBlock
from modules.transformer import Transformer
from tests.helpers.positions import alibi, position_of
from tests.helpers.variants import BATCH, LENGTH, VARIANTS, mlp, norm, vary

pytestmark = pytest.mark.usefixtures("seeded")


def stir(module):
    """Draws every parameter anew, so that no weight of 1 or bias of 0 hides a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module.eval()


def assert_close(result, expected, **tolerance):
    torch.testing.assert_close(
        result.double(), torch.as_tensor(expected).double(), **tolerance or dict(rtol=1e-5, atol=1e-5)
    )


def array(tensor):
    return tensor.detach().cpu().double().numpy()


# --- norms --------------------------------------------------------------------------------------------------

NORMS = {
    "rms": lambda x, eps: x / np.sqrt((x**2).mean(-1, keepdims=True) + eps),
    "layer": lambda x, eps: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps),
    "cosine": lambda x, eps: (
        np.sqrt(x.shape[-1]) * x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), eps)
    ),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_norm_equals_its_formula(kind, weight, bias, eps):
    module = stir(build_norm(norm(kind, weight, bias).replace(eps=eps), 7))
    assert (module.weight is not None, module.bias is not None) == (weight, bias)
    x = torch.randn(2, 3, 7) * torch.tensor([10.0, 1.0, 0.01])[:, None] + 0.3
    expected = NORMS[kind](array(x), eps)
    if weight:
        expected = expected * array(module.weight)
    if bias:
        expected = expected + array(module.bias)
    assert_close(module(x), expected)


@pytest.mark.parametrize("kind", NORMS)
def test_norm_of_nothing_is_nothing(kind):
    x = torch.zeros(1, 7, requires_grad=True)
    out = build_norm(norm(kind, True, False), 7)(x)
    out.sum().backward()
    assert (out == 0).all() and x.grad.isfinite().all()


# --- MLP ----------------------------------------------------------------------------------------------------

erf = np.vectorize(math.erf)
ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu2": lambda x: np.where(x > 0, x, 0) ** 2,
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_ungated_mlp_equals_its_formula(activation, bias):
    module = stir(build_mlp(mlp(activation, gated=False), 6, bias))
    x = torch.randn(2, 3, 6)
    b1, b2 = (array(module.up.bias), array(module.down.bias)) if bias else (0, 0)
    expected = (
        ACTIVATIONS[activation](array(x) @ array(module.up.weight).T + b1) @ array(module.down.weight).T + b2
    )
    assert module.up.weight.shape == (24, 6)
    assert_close(module(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_gated_mlp_equals_its_formula(activation, bias):
    module = stir(build_mlp(mlp(activation, gated=True), 6, bias))
    x = torch.randn(2, 3, 6)
    gate, up = np.split(array(module.gate_up.weight), 2)
    gate_bias, up_bias, down_bias = 0, 0, 0
    if bias:
        gate_bias, up_bias = np.split(array(module.gate_up.bias), 2)
        down_bias = array(module.down.bias)
    hidden = ACTIVATIONS[activation](array(x) @ gate.T + gate_bias) * (array(x) @ up.T + up_bias)
    assert gate.shape == up.shape == (16, 6)
    assert_close(module(x), hidden @ array(module.down.weight).T + down_bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [40, 128, 192, 384, 768])
@pytest.mark.parametrize("ratio", [2.5, 4.0])
def test_gated_mlp_keeps_the_parameter_count(width, ratio):
    ungated, gated = (
        sum(p.numel() for p in build_mlp(mlp("silu", gate, ratio), width, False).parameters())
        for gate in (False, True)
    )
    assert ungated == 2 * width * int(ratio * width)
    assert abs(gated - ungated) <= 3 * width * 4  # hidden units are at most 4 off, in three matrices


# --- attention ----------------------------------------------------------------------------------------------


def plain_place(length, causal=True):
    positions = torch.arange(length)
    return position_of(NoPositionConfig(), length, 1).place(positions, positions, causal, None)


@pytest.mark.parametrize("n_kv_heads", [6, 3, 2, 1])
@pytest.mark.parametrize("fused", [True, False])
def test_grouped_attention_equals_multi_head_with_repeated_weights(n_kv_heads, fused):
    grouped, full = stir(Attention(24, 6, n_kv_heads, bias=True)), stir(Attention(24, 6, 6, bias=True))
    grouped.fused = full.fused = fused
    rows = torch.arange(24 + 2 * n_kv_heads * 4)
    q, k, v = rows[:24], *(part.view(n_kv_heads, 4) for part in rows[24:].chunk(2))
    repeated = torch.cat([q, *(part.repeat_interleave(6 // n_kv_heads, dim=0).flatten() for part in (k, v))])
    with torch.no_grad():
        full.qkv.weight.copy_(grouped.qkv.weight[repeated])
        full.qkv.bias.copy_(grouped.qkv.bias[repeated])
        full.out.load_state_dict(grouped.out.state_dict())
    x = torch.randn(2, 9, 24)
    assert_close(grouped(x, plain_place(9)), full(x, plain_place(9)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_equals_a_loop_over_heads_and_queries(fused):
    module = stir(Attention(12, 3, 1, bias=True))
    module.fused = fused
    slopes = [0.5, 0.1, 0.0]
    positions = torch.arange(5)
    x = torch.randn(1, 5, 12)
    out = module(x, alibi(slopes).place(positions, positions, True, None))
    projected = array(x[0]) @ array(module.qkv.weight).T + array(module.qkv.bias)
    k, v = projected[:, 12:16], projected[:, 16:]
    heads = np.zeros((5, 12))
    for head, slope in enumerate(slopes):
        q = projected[:, 4 * head : 4 * head + 4]
        for i in range(5):
            scores = np.array([q[i] @ k[j] / np.sqrt(4) - slope * (i - j) for j in range(i + 1)])
            weights = np.exp(scores - scores.max())
            heads[i, 4 * head : 4 * head + 4] = weights / weights.sum() @ v[: i + 1]
    assert_close(out[0], heads @ array(module.out.weight).T + array(module.out.bias), rtol=1e-4, atol=1e-4)


def test_attention_weights_are_causal_and_sum_to_one():
    module = stir(Attention(24, 6, 2))
    x, place = torch.randn(2, 9, 24), plain_place(9)
    q, k, v = module.project(x, place)
    weights = module.weights(q, k, place)
    assert weights.shape == (2, 6, 9, 9)
    assert_close(weights.sum(-1), torch.ones(2, 6, 9))
    assert (weights.triu(1) == 0).all() and (weights.tril() > 0).any()
    heads = weights @ v.repeat_interleave(3, dim=1)
    assert_close(module.out(heads.transpose(1, 2).flatten(2)), module(x, place), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_zeroes_weights_and_scales_the_rest(fused):
    """A single key has the weight 1, so the output is its value times 0 or 1 / (1 − rate)."""
    module = stir(Attention(8, 4, 4, dropout=0.2)).train()
    module.fused = fused
    with torch.no_grad():
        module.out.weight.copy_(torch.eye(8))
    x = torch.randn(1, 1, 8).expand(2000, 1, 8)
    values = module.project(x, plain_place(1))[2].flatten(1)
    shares = module(x, plain_place(1)).flatten(1) / values
    dropped = shares.abs() < 1e-5
    assert_close(shares[~dropped], torch.full_like(shares[~dropped], 1 / 0.8))
    assert dropped.float().mean().item() == pytest.approx(0.2, abs=0.02)


# --- blocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("post_norm", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_block_equals_its_formula(post_norm, parallel):
    shape = ResidualBlockConfig(post_norm=post_norm, parallel=parallel)
    block = stir(ResidualBlock(vary("llama", block=shape, n_kv_heads=2)))
    place, x = plain_place(LENGTH), torch.randn(BATCH, LENGTH, 40)
    after_attention = block.attention_post_norm if post_norm else lambda y: y
    after_mlp = block.mlp_post_norm if post_norm else lambda y: y
    read = x + after_attention(block.attention(block.attention_norm(x), place))
    if parallel:
        expected = read + after_mlp(block.mlp(block.attention_norm(x)))
    else:
        expected = read + after_mlp(block.mlp(block.mlp_norm(read)))
    assert_close(block.join(block(block.split(x), place)), expected)
    norms = {tuple(p.shape) for name, p in block.named_parameters() if "norm" in name}
    count = sum("norm" in name for name, _ in block.named_parameters())
    assert norms == {(40,)} and count == (1 if parallel else 2) + (2 if post_norm else 0)


def test_residual_dropout_falls_on_each_sub_layer_and_not_on_the_stream():
    block = stir(ResidualBlock(vary("llama", n_heads=2, width=400))).train()
    block.dropout.rate = 0.25
    with torch.no_grad():
        block.mlp.down.weight.zero_()
    x = torch.randn(1, 50, 400)
    added = block(x, plain_place(50)) - x
    assert (added.abs() < 1e-5).float().mean().item() == pytest.approx(0.25, abs=0.02)
    with torch.no_grad():
        block.mlp.down.weight.normal_()
        block.attention.out.weight.zero_()
    added = block(x, plain_place(50)) - x
    assert (added.abs() < 1e-5).float().mean().item() == pytest.approx(0.25, abs=0.02)


# --- dropout ------------------------------------------------------------------------------------------------


def test_dropout_rate_is_annealed_and_off_in_eval():
    model = nn.Sequential(Dropout(0.4), nn.Sequential(Dropout(0.2))).train()
    x = torch.ones(40_000)
    for share in (1.0, 0.5, 0.0):
        set_dropout_share(model, share)
        for dropout, rate in ((model[0], 0.4), (model[1][0], 0.2)):
            out = dropout(x)
            assert dropout.active_rate == pytest.approx(rate * share)
            assert (out == 0).float().mean().item() == pytest.approx(rate * share, abs=0.01)
            assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - rate * share)))
    set_dropout_share(model, 1.0)
    model.eval()
    assert torch.equal(model(x), x)


# --- the whole model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_embedding_scale_and_weight_tying(tied, scaled):
    model = Transformer(vary("llama", tie_weights=tied, embedding_scale=scaled)).eval()
    assert (model.head.weight is model.embedding.weight) == tied
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    ids = torch.randint(model.config.vocab_size, (BATCH, LENGTH))
    hidden = model.hidden(ids)
    assert_close(seen[0], model.embedding.weight[ids] * (math.sqrt(40) if scaled else 1))
    assert_close(model(ids), hidden @ (model.embedding if tied else model.head).weight.T)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("init_std", [0.02, 0.05])
def test_initialisation(gated, init_std):
    """The model is so wide that the spread of each matrix is known to about one percent."""
    config = ModelConfig(
        vocab_size=512, context_length=256, n_layers=3, n_heads=4, width=256, norm=norm("layer", True, True),
        mlp=mlp("silu", gated), position=LearnedPositionConfig(), bias=True, tie_weights=False,
        init_std=init_std,
    )
    seen = set()
    for name, parameter in Transformer(config).named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
            continue
        if "norm" in name:
            assert (parameter == 1).all(), name
            continue
        writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
        expected = init_std / math.sqrt(2 * 3) if writes else init_std
        assert parameter.std().item() == pytest.approx(expected, rel=0.02), name
        assert abs(parameter.mean().item()) < expected * 0.02, name
        seen.add(name.split(".")[0] if "blocks" not in name else ".".join(name.split(".")[2:]))
    reads = "mlp.gate_up.weight" if gated else "mlp.up.weight"
    assert seen == {
        "embedding", "position", "head",
        "attention.qkv.weight", "attention.out.weight", reads, "mlp.down.weight",
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_model_starts_out_knowing_nothing(name):
    """The first loss is that of a uniform guess."""
    model = Transformer(vary(name))
    loss = model.losses(torch.randint(model.config.vocab_size, (BATCH, LENGTH + 1)))["loss"]
    assert loss.item() == pytest.approx(math.log(model.config.vocab_size), rel=0.02)


@pytest.mark.parametrize("name", ["gpt2", "llama", "untied"])
def test_positions_end_where_the_config_says(name):
    model = Transformer(VARIANTS[name])
    limit = {"gpt2": 17, "llama": 68, "untied": 29}[name]
    assert model(torch.zeros(1, limit, dtype=torch.long)).shape == (1, limit, 61)
    with pytest.raises(ValueError, match=f"{limit + 1}.*{limit}"):
        model(torch.zeros(1, limit + 1, dtype=torch.long))
    with torch.no_grad():
        cache = model.new_cache(1, limit + 1)
        model(torch.zeros(1, limit, dtype=torch.long), cache)
        with pytest.raises(ValueError, match=f"{limit + 1}.*{limit}"):
            model(torch.zeros(1, 1, dtype=torch.long), cache)


def test_cache_refuses_what_it_cannot_do():
    model = Transformer(VARIANTS["llama-grouped"])
    cache = model.new_cache(2, 6)
    ids = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(RuntimeError, match="no_grad"):
        model(ids, cache)
    with torch.no_grad():
        model(ids, cache)
        with pytest.raises(ValueError, match="6"):
            model(ids, cache)
        assert cache.lengths == [4, 4]  # a refused pass leaves no trace
    for wrong in ([4], [5, 4], [-1, 4]):
        with pytest.raises(ValueError, match="keep"):
            cache.keep(wrong)
    assert cache.layers[0].keys.shape == (2, 2, 6, 10)


def test_cache_in_training_mode_with_checkpointing_equals_uncached():
    """The switch saves memory in a backward pass; a cached pass has none, and must keep its cache."""
    model = Transformer(VARIANTS["llama"]).train()
    model.gradient_checkpointing = True
    ids = torch.randint(61, (2, 8))
    with torch.no_grad():
        cache = model.new_cache(2, 8)
        logits = torch.cat([model(piece, cache) for piece in ids.split([5, 3], dim=1)], dim=1)
        assert_close(logits, model(ids))


# --- what a block says about itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_blocks_name_their_attentions_and_their_streams(name):
    """The streams of every state are (B, T, C), and the last is what the final norm reads."""
    model = Transformer(VARIANTS[name]).eval()
    ids, states = torch.randint(model.config.vocab_size, (BATCH, LENGTH)), []
    for block in model.next_token_blocks:
        assert [attention.reads for attention in block.attentions.values()].count("tokens") == 1
        assert len(block.attentions) == len(block.cached_heads)
        block.register_forward_hook(lambda _, __, state: states.append(state))
    with torch.no_grad():
        hidden = model.hidden(ids)
    streams = model.blocks[-1].streams()
    for state in states:
        assert {read(state).shape for read in streams.values()} == {(BATCH, LENGTH, model.config.width)}
    assert torch.equal(model.norm(list(streams.values())[-1](states[-1])), hidden)
    assert (list(streams) == ["xt", "xe", "xt+xe"]) == model.blocks[0].has_token_stream
