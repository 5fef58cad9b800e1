"""Every position encoding compared with its formula, written here again in numpy or in the textbook form."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from config import ALiBiConfig, LearnedPositionConfig, NoPositionConfig, SinusoidalConfig
from modules.attention import Attention
from modules.positions import alibi_slopes
from modules.rotation import rotate
from modules.transformer import Transformer
from settings.registry import kinds_of
from tests.helpers.devices import DEVICE
from tests.helpers.positions import alibi, position_of, rotary
from tests.helpers.variants import VARIANTS, config_of

pytestmark = pytest.mark.usefixtures("seeded")


# --- ALiBi --------------------------------------------------------------------------------------------------


def geometric(n):
    """Press et al., section 3: a geometric sequence that starts at 2^(−8/n), which is its ratio too."""
    return [(2 ** (-8 / n)) ** k for k in range(1, n + 1)]


def slopes_by_the_paper(n):
    """Between powers of two: those of the lower, then every other one of the higher (their code)."""
    if n in (1, 2, 4, 8, 16):
        return geometric(n)
    lower = max(power for power in (1, 2, 4, 8) if power < n)
    return geometric(lower) + geometric(2 * lower)[::2][: n - lower]


@pytest.mark.parametrize("n_heads", range(1, 17))
def test_alibi_slopes_follow_the_paper_for_every_head_count(n_heads):
    assert alibi_slopes(n_heads) == pytest.approx(slopes_by_the_paper(n_heads), rel=1e-12)
    assert len(set(alibi_slopes(n_heads))) == n_heads  # all different


def test_alibi_slopes_as_published():
    eighths = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert alibi_slopes(8) == eighths
    assert alibi_slopes(6) == [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]
    halfway = [0.70710678, 0.35355339, 0.17677670, 0.08838835]
    assert alibi_slopes(12) == pytest.approx(eighths + halfway, abs=1e-8)


def test_alibi_model_uses_the_slopes_it_is_given():
    assert Transformer(VARIANTS["alibi"]).position.slopes.tolist() == [1 / 4, 1 / 16, 1 / 64, 1 / 256]
    custom = VARIANTS["alibi-slopes"]
    assert Transformer(custom).position.slopes.tolist() == pytest.approx(custom.position.slopes)


def textbook_alibi(q, k, v, slopes, scale, rows):
    """softmax(q·kᵀ·scale + slope·(j − i), causal) · v for the queries of `rows`, in float64."""
    q, k, v = (x.double() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q[:, :, rows] @ k.transpose(-2, -1) * scale + causal_bias(slopes, rows, k.shape[2])
    return scores.softmax(dim=-1) @ v


def causal_bias(slopes, rows, length):
    distance = (torch.arange(length) - rows[:, None]).double()
    bias = torch.tensor(slopes, dtype=torch.float64)[:, None, None] * distance
    return bias.masked_fill(distance > 0, -math.inf)


def some_rows(length):
    """At most 100 queries, the first and the last among them."""
    return torch.linspace(0, length - 1, min(length, 100)).long()


def alibi_place(slopes, length):
    positions = torch.arange(length)
    return alibi(slopes).place(positions, positions, causal=True, mask=None)


def draw(length, n_heads, n_kv_heads, head_dim, dtype=torch.float32):
    heads = (n_heads, n_kv_heads, n_kv_heads)
    return [torch.randn(1, n, length, head_dim).to(dtype) for n in heads]


@pytest.mark.parametrize("length", [1, 2, 100, 700, 4096])
def test_fused_alibi_equals_the_textbook(length):
    slopes, rows = alibi_slopes(3), some_rows(length)
    attention = Attention(3 * 6, 3, 1)
    q, k, v = draw(length, 3, 1, 6)
    fused = attention.attend(q, k, v, alibi_place(slopes, length))[:, :, rows]
    expected = textbook_alibi(q, k, v, slopes, attention.scale, rows)
    torch.testing.assert_close(fused.double(), expected, rtol=0, atol=1e-4)


def test_fused_alibi_gradients_equal_the_textbook():
    slopes, length = alibi_slopes(4), 300
    attention = Attention(4 * 6, 4, 2)
    place = alibi_place(slopes, length)
    direction = torch.randn(1, 4, length, 6)

    def gradients(function):
        return torch.autograd.grad((function(*inputs) * direction).sum(), inputs)

    inputs = [x.requires_grad_() for x in draw(length, 4, 2, 6)]
    fused = gradients(lambda *x: attention.attend(*x, place))
    expected = gradients(lambda *x: textbook_alibi(*x, slopes, attention.scale, torch.arange(length)))
    for ours, theirs in zip(fused, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "head_dim, slopes", [(16, (1 / 4, 1 / 16, 1 / 64, 1 / 256)), (10, (0.7071, 0.3, 0.05))]
)
@pytest.mark.parametrize("length", [64, 300, 1000, 1500])
def test_bf16_alibi_is_within_twice_the_error_of_an_explicit_bias(length, head_dim, slopes, training):
    """With both kernels for bfloat16, the one for training and the one without gradients; with slopes and scales that
    bfloat16 holds exactly, and with others."""
    rows, n_heads = some_rows(length), len(slopes)
    attention = Attention(n_heads * head_dim, n_heads, n_heads)
    q, k, v = draw(length, n_heads, n_heads, head_dim, torch.bfloat16)
    expected = textbook_alibi(q, k, v, slopes, attention.scale, rows)
    bias = causal_bias(slopes, torch.arange(length), length).bfloat16()
    explicit = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    fused = attention.attend(q.requires_grad_(training), k, v, alibi_place(slopes, length)).detach()
    ours, theirs = ((x[:, :, rows].double() - expected).square().mean().sqrt() for x in (fused, explicit))
    assert ours < 2 * theirs


@pytest.mark.parametrize("length", [13, 200])
def test_alibi_model_in_bf16_equals_its_manual_attention(length):
    """Through the whole model and its gradients, as autocast trains it."""
    config = VARIANTS["alibi-grouped-six-heads"].replace(context_length=length)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    windows = torch.randint(config.vocab_size, (2, length + 1))

    def gradients(fused, bf16):
        for block in model.blocks:
            block.attention.fused = fused
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            loss = model.losses(windows)["loss"]
        return torch.autograd.grad(loss, list(model.parameters()))

    for exact, by_hand, fused in zip(gradients(False, False), gradients(False, True), gradients(True, True)):
        assert (fused - exact).norm() < 2 * (by_hand - exact).norm() + 1e-3 * exact.norm()


# --- RoPE ---------------------------------------------------------------------------------------------------


def rotated(x, positions, theta):
    """Channels d and d + D/2 as one complex number, times e^(i · position · θ^(−2d/D)), in float64."""
    x = x.cpu().double().numpy()
    half = x.shape[-1] // 2
    turns = np.exp(1j * positions.cpu().numpy()[..., None] * theta ** (-2.0 * np.arange(half) / x.shape[-1]))
    z = (x[..., :half] + 1j * x[..., half:]) * turns
    return torch.tensor(np.concatenate((z.real, z.imag), axis=-1))


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 100.0])
def test_rope_equals_complex_multiplication(theta):
    positions = torch.tensor([0, 1, 2, 17, 400, 999])
    x = torch.randn(2, 3, len(positions), 10)
    place = rotary(1000, 10, theta).place(positions, positions, causal=True, mask=None)
    torch.testing.assert_close(place.turn(x).double(), rotated(x, positions, theta), rtol=0, atol=2e-6)


def test_rope_scores_depend_on_offsets_only():
    q, k = (torch.randn(1, 2, 20, 10, dtype=torch.float64) for _ in range(2))
    position = rotary(1000, 10, 10_000.0).double()

    def scores(shift, stretch=1):
        positions = torch.arange(20) * stretch + shift
        place = position.place(positions, positions, causal=True, mask=None)
        return place.turn(q) @ place.turn(k).transpose(-2, -1)

    for shift in (1, 7, 900):
        torch.testing.assert_close(scores(shift), scores(0), rtol=0, atol=1e-5)  # the table is float32
    assert (scores(0, stretch=2) - scores(0)).abs().max() > 0.1


def test_rope_leaves_lengths_and_the_first_position_alone():
    x, positions = torch.randn(1, 2, 30, 10), torch.arange(30)
    turned = rotary(30, 10, 10_000.0).place(positions, positions, causal=True, mask=None).turn(x)
    torch.testing.assert_close(turned[:, :, 0], x[:, :, 0], rtol=0, atol=0)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_the_gradient_of_a_rotation_is_the_numerical_one():
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(5, 4, dtype=torch.float64)
    cos, sin = angles.cos().repeat(1, 2), torch.cat((-angles.sin(), angles.sin()), dim=-1)
    assert torch.autograd.gradcheck(lambda x: rotate(x, cos, sin), x)


# --- what is added to the embeddings ------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [10_000.0, 100.0])
def test_sinusoidal_equals_the_formula(theta):
    positions = np.array([0, 1, 5, 63, 511])
    expected = np.zeros((len(positions), 12))
    for i in range(6):
        angle = positions / theta ** (2 * i / 12)
        expected[:, 2 * i], expected[:, 2 * i + 1] = np.sin(angle), np.cos(angle)
    x = torch.randn(2, len(positions), 12)
    added = position_of(SinusoidalConfig(theta=theta), 512, 12).embed(x, torch.tensor(positions)) - x
    torch.testing.assert_close(
        added.double(), torch.tensor(expected).expand(2, -1, -1), rtol=0, atol=1e-5
    )


def test_learned_position_adds_its_row():
    position, x = position_of(LearnedPositionConfig(), 9, 6), torch.randn(2, 3, 6)
    rows = position.table.weight
    added = position.embed(x, torch.tensor([4, 0, 8])) - x
    torch.testing.assert_close(
        added, torch.stack((rows[4], rows[0], rows[8])).expand(2, -1, -1), rtol=0, atol=1e-6
    )


def test_no_position_adds_and_turns_nothing():
    x, positions = torch.randn(2, 3, 6), torch.arange(3)
    position = position_of(NoPositionConfig(), 3, 6)
    assert position.embed(x, positions) is x
    place = position.place(positions, positions, causal=True, mask=None)
    assert place.turn(x) is x and place.bias() is None


# --- ragged positions: every sequence at a place of its own -------------------------------------------------

RAGGED = [[0, 1, 2], [7, 8, 9], [20, 21, 22]]


@pytest.mark.parametrize("kind", kinds_of("position"))
def test_ragged_positions_equal_each_sequence_alone(kind):
    config = ALiBiConfig(slopes=(0.5, 0.25)) if kind == "alibi" else config_of("position", kind)
    position = position_of(config, 40, 24, n_heads=2)
    ragged, keys = torch.tensor(RAGGED), torch.arange(23)
    mask = (keys <= ragged[..., None])[:, None]
    x, heads = torch.randn(3, 3, 24), torch.randn(3, 2, 3, 12)
    place = position.place(ragged, keys, causal=False, mask=mask)
    scores = torch.zeros(3, 2, 3, 23)
    biased = together(scores, place)
    for row, positions in enumerate(ragged):
        alone = position.place(positions, keys, causal=False, mask=mask[row])
        one = slice(row, row + 1)
        assert torch.equal(position.embed(x, ragged)[one], position.embed(x[one], positions))
        assert torch.equal(place.turn(heads)[one], alone.turn(heads[one]))
        assert torch.equal(biased[one], together(scores[one], alone))


def together(scores, place):
    """Scores with bias and mask, as the fused kernel gets them."""
    added = place.masked_bias()
    return scores.masked_fill(~added, -math.inf) if added.dtype == torch.bool else scores + added


def test_alibi_bias_counts_from_each_query():
    place = alibi((0.5, 0.25)).place(torch.tensor(RAGGED), torch.arange(23), causal=False, mask=None)
    bias = place.bias().expand(3, 2, 3, 23)
    for row, head, query, key in ((0, 0, 2, 0), (1, 1, 0, 3), (2, 0, 1, 21), (2, 1, 2, 5)):
        slope, distance = (0.5, 0.25)[head], RAGGED[row][query] - key
        assert bias[row, head, query, key] == -slope * distance
