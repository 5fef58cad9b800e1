"""ALiBi by FlexAttention, compared with the textbook. On a CPU it has no backward pass, and nothing chooses it."""

import math

import pytest
import torch

from config import ALiBiConfig, ModelConfig
from modules.attention import Attention
from modules.kernels import LONG, blocks_for_training, runs_flex, seen_blocks, sloped_attention
from modules.positions import alibi_slopes, build_position
from tests.helpers.devices import DEVICE

pytestmark = [pytest.mark.usefixtures("seeded"), pytest.mark.filterwarnings("ignore:.*without torch.compile")]


def textbook(q, k, v, slopes, scale, window=None):
    """softmax(q·kᵀ·scale − slope · distance) · v over the keys that each query sees, in full."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    places = torch.arange(q.shape[2])
    distance = places[:, None] - places
    unseen = (distance < 0) if window is None else (distance < 0) | (distance >= window)
    scores = q @ k.mT * scale - slopes[:, None, None] * distance
    return scores.masked_fill(unseen, -math.inf).softmax(dim=-1) @ v


def drawn(length, n_kv_heads, dtype=torch.float32, head_dim=16):
    return [torch.randn(2, heads, length, head_dim).to(dtype) for heads in (4, n_kv_heads, n_kv_heads)]


@pytest.mark.parametrize("window", [None, 1, 40, 128])
@pytest.mark.parametrize("length, n_kv_heads", [(128, 4), (200, 2), (5, 1)])
def test_it_equals_the_textbook(length, n_kv_heads, window):
    q, k, v = drawn(length, n_kv_heads)
    slopes = torch.tensor(alibi_slopes(4))
    with torch.no_grad():
        found = sloped_attention(q, k, v, slopes, 0.3, seen_blocks(length, window, q.device))
    expected = textbook(*(x.double() for x in (q, k, v)), slopes.double(), 0.3, window)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("window, n_kv_heads", [(None, 4), (300, 2)])
def test_training_on_long_texts_is_as_exact_as_bf16_allows(window, n_kv_heads):
    """By FlexAttention where there is a GPU, else by the extra dimensions."""
    config = ModelConfig(
        vocab_size=9, context_length=LONG, width=64, n_heads=4, n_kv_heads=n_kv_heads, position=ALiBiConfig(),
        window=window,
    )
    attention, positions = Attention.of(config), torch.arange(LONG)
    place = build_position(config).place(positions, positions, causal=True, mask=None)
    place.window = window
    inputs = [x[:1].requires_grad_() for x in drawn(LONG, n_kv_heads, torch.bfloat16)]
    assert (place.blocks is not None and runs_flex(inputs[0], inputs[2], 0.0)) == (DEVICE == "cuda")
    direction = torch.randn(1, 4, LONG, 16)
    out = attention.attend(*inputs, place)
    found = [out, *torch.autograd.grad((out * direction).sum(), inputs)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = textbook(*exact, torch.tensor(alibi_slopes(4)).double(), attention.scale, window)
    expected = [out, *torch.autograd.grad((out * direction).sum(), exact)]
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.double() - theirs).norm() < 0.02 * theirs.norm()


def test_it_is_chosen_only_where_it_is_faster():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert blocks_for_training(LONG, None, cpu) is None and blocks_for_training(LONG - 1, None, cuda) is None
    with torch.no_grad():
        assert blocks_for_training(LONG, None, cuda) is None
    q, frozen = torch.zeros(1, 1, 1, 64, dtype=torch.bfloat16, requires_grad=True), torch.zeros(1, 1, 1, 64).bfloat16()
    assert runs_flex(q, frozen, 0.0) and runs_flex(frozen, q, 0.0)
    assert not (runs_flex(frozen, frozen, 0.0) or runs_flex(q, q, 0.1) or runs_flex(q.float(), q, 0.0))
    assert not runs_flex(q[..., :48], q, 0.0)
