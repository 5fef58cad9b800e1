"""The kernels written by hand, compared with PyTorch's and the textbook in values, gradients and memory."""

import math

import pytest
import torch
from torch.nn import functional as F

from config import ARCHITECTURES, ModelConfig
from modules.block_attention import BLOCK, LONG, CausalAttention, written_out_attention
from modules.heads import LinearHead
from modules.kernels import (
    ALIGNED,
    LONGEST,
    HeadLoss,
    attention_by_pytorch,
    causal_attention,
    causal_mask,
    loss_of_all_logits,
)
from modules.losses import CHUNK, IGNORE, shift
from modules.transformer import Transformer
from tests.helpers.devices import DEVICE, no_default_device
from tests.helpers.gradients import values_and_gradients
from tests.helpers.measures import LargestTensor
from tests.helpers.variants import BATCH, VARIANTS, fewest_layers, future

pytestmark = pytest.mark.usefixtures("seeded")


def textbook_attention(q, k, v, scale=1.0, first=0, each=1, window=None):
    """softmax(q·kᵀ·scale, causal) · v, in full: query t sees the keys before first + each · (t + 1), and with a window
    only the first ones and those from first + each · (t + 1 − window) on."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) * scale
    keys, after = torch.arange(k.shape[2]), torch.arange(1, q.shape[2] + 1)[:, None]
    unseen = keys >= first + each * after
    if window is not None:
        unseen |= (keys >= first) & (keys < first + each * (after - window))
    return scores.masked_fill(unseen, -math.inf).softmax(dim=-1) @ v


def relative_error(result, reference):
    return ((result.double() - reference).norm() / reference.norm()).item()


LENGTHS = (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 37, LONG + 1, LONG + 45)
SEEN = ((0, 1), (1, 1), (1, 2), (1, 3))  # first, each: the tokens so far; `nothing`, and a few vectors of each position


@pytest.mark.parametrize("first, each", SEEN)
@pytest.mark.parametrize("length", LENGTHS)
def test_written_out_attention_equals_sdpa_and_textbook(length, first, each):
    q = torch.randn(2, 3, length, 10)
    k, v = (torch.randn(2, 3, first + each * length, 10) for _ in range(2))
    written = values_and_gradients(lambda *x: written_out_attention(*x, first, each), q, k, v)
    mask = causal_mask(length, first, each, q.device)
    sdpa = values_and_gradients(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=mask, scale=1.0), q, k, v)
    textbook = values_and_gradients(
        lambda *x: textbook_attention(*x, first=first, each=each), q.double(), k.double(), v.double()
    )
    for ours, theirs, formula in zip(written, sdpa, textbook, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours, formula.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first, each", SEEN)
@pytest.mark.parametrize("window", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_written_out_attention_with_a_window_equals_the_textbook(window, first, each):
    for length in (1, BLOCK, 2 * BLOCK + 37):
        inputs = torch.randn(2, 3, length, 10), *torch.randn(2, 2, 3, first + each * length, 10)
        written = values_and_gradients(lambda *x: written_out_attention(*x, first, each, window), *inputs)
        textbook = values_and_gradients(
            lambda *x: textbook_attention(*x, first=first, each=each, window=window), *(x.double() for x in inputs)
        )
        for ours, formula in zip(written, textbook, strict=True):
            torch.testing.assert_close(ours, formula.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [64, 205, 301])
@pytest.mark.parametrize("first, each, window", [(0, 1, None), (0, 1, 70), (3, 2, None), (3, 2, 70)])
def test_compiled_attention_of_several_blocks_is_the_eager_one(length, first, each, window):
    """Compiled, the sums over blocks are written otherwise, but add the same numbers in the same order."""
    torch.compiler.reset()  # a function is compiled for a limited number of arguments only
    q = torch.randn(2, 3, length, 8).bfloat16()
    k, v = (torch.randn(2, 3, first + each * length, 8).bfloat16() for _ in range(2))
    compiled = torch.compile(written_out_attention, backend="aot_eager", fullgraph=True)
    expected, *rest = values_and_gradients(lambda *x: written_out_attention(*x, first, each, window), q, k, v)
    found, *others = values_and_gradients(lambda *x: compiled(*x, first, each, window), q, k, v)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(others, rest, rtol=0, atol=0)


def test_written_out_attention_computes_no_score_outside_the_window():
    q, k, v = (torch.randn(1, 1, 10 * BLOCK, 4, requires_grad=True) for _ in range(3))
    with LargestTensor() as ours:
        written_out_attention(q, k, v, 0, 1, 20).sum().backward()
    assert ours.numel <= max(BLOCK * (BLOCK + 20), q.numel())


@pytest.mark.parametrize("first, each", SEEN)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_mask_is_true_where_a_query_sees_a_key(length, first, each):
    for window in (None, 1, 3, 9):
        mask = causal_mask(length, first, each, torch.device(DEVICE), window)
        assert mask.shape == (length, first + each * length) and mask.dtype == torch.bool
        for query in range(length):
            for key in range(first + each * length):
                position = (key - first) // each  # below 0 for the `first` ones
                near = window is None or key < first or position > query - window
                assert mask[query, key].item() == (position <= query and near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("first, each", SEEN)
@pytest.mark.parametrize("window", [None, 5, 66, 100])
def test_every_way_of_attention_sees_the_same_keys(window, first, each, gradient, dtype):
    """With either kernel, and with grouped heads."""
    q = torch.randn(2, 6, 70, 10).to(dtype).requires_grad_(gradient)
    k, v = (torch.randn(2, 2, first + each * 70, 10).to(dtype) for _ in range(2))
    formula = textbook_attention(*(x.detach().double() for x in (q, k, v)), 0.3, first, each, window)
    error = relative_error(causal_attention(q, k, v, 0.3, first=first, each=each, window=window).detach(), formula)
    assert error < (0.02 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6])
@pytest.mark.parametrize("length", [1, 100, BLOCK + 45])
def test_bf16_attention_is_as_exact_as_bf16_allows(length, n_kv_heads, monkeypatch):
    q = torch.randn(2, 6, length, 10).bfloat16()
    k, v = (torch.randn(2, n_kv_heads, length, 10).bfloat16() for _ in range(2))
    calls = count_calls(monkeypatch)
    ours = values_and_gradients(lambda *x: causal_attention(*x, scale=0.3), q, k, v)
    assert len(calls) == 1
    formula = values_and_gradients(
        lambda *x: textbook_attention(*x, scale=0.3), *(x.double() for x in (q, k, v))
    )
    assert [x.dtype for x in ours] == [torch.bfloat16] * 4
    for result, reference in zip(ours, formula, strict=True):
        assert result.shape == reference.shape
        # a single key has no gradient but zero: there the error is absolute
        assert relative_error(result, reference) < 0.02 or result.abs().max() == 0 == reference.abs().max()


def count_calls(monkeypatch) -> list:
    calls, apply = [], CausalAttention.apply
    monkeypatch.setattr(CausalAttention, "apply", lambda *x: calls.append(1) or apply(*x))
    return calls


def test_written_out_attention_serves_only_where_it_is_faster(monkeypatch):
    """It is for bf16 with gradients and for windows, on a CPU, with few keys and no dropout; all else goes to SDPA."""
    calls = count_calls(monkeypatch)

    def run(length=8, dtype=torch.bfloat16, gradient=True, dropout=0.0, first=0, each=1, window=None):
        shapes = ((1, 2, n_rows, 4) for n_rows in (length, *[first + each * length] * 2))
        q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=gradient) for shape in shapes)
        calls.clear()
        causal_attention(q, k, v, 0.5, dropout, first, each, window)
        return len(calls)

    third = (LONGEST - 1) // 3
    assert run() == run(length=LONGEST) == run(length=third, first=1, each=3) == 1
    assert run(length=LONGEST + 1) == run(dtype=torch.float32) == run(gradient=False) == run(dropout=0.1) == 0
    assert run(length=LONGEST, first=1) == run(length=third + 1, first=1, each=3) == 0
    assert run(length=2 * LONGEST, window=LONGEST - BLOCK) == 1  # no block has more keys
    assert run(length=2 * LONGEST, window=LONGEST - BLOCK + 1) == 0
    assert run(dtype=torch.float32, gradient=False, window=3) == run(gradient=False, window=7) == 1
    assert run(gradient=False, window=8) == run(window=3, dropout=0.1) == 0
    with attention_by_pytorch():
        assert run() == run(window=3) == 0
    assert run() == 1


def test_attention_dropout_reaches_the_kernel():
    q, k, v = (torch.randn(1, 2, 50, 4) for _ in range(3))
    plain = causal_attention(q, k, v, 0.5)
    dropped = torch.stack([causal_attention(q, k, v, 0.5, dropout=0.5) for _ in range(400)])
    assert not torch.equal(dropped[0], plain) and not torch.equal(dropped[0], dropped[1])
    assert (dropped.mean(0) - plain).abs().mean() < 0.05 < (dropped[0] - plain).abs().mean()


# --- head and loss in one -----------------------------------------------------------------------------------


def rows_weight_targets(n, width=6, vocab_size=11):
    return torch.randn(n, width), torch.randn(vocab_size, width), torch.randint(vocab_size, (n,))


IGNORED = {
    "none": lambda targets: targets,
    "some": lambda targets: targets.where(torch.arange(len(targets)) % 3 != 1, IGNORE),
    "a whole chunk": lambda targets: targets.where(torch.arange(len(targets)) >= 7, IGNORE),
    "all": lambda targets: torch.full_like(targets, IGNORE),
}


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("n", [1, 6, 7, 8, 14, 31])
def test_head_loss_equals_cross_entropy_at_every_chunk_boundary(n, ignored):
    x, weight, targets = rows_weight_targets(n)
    targets = IGNORED[ignored](targets)
    ours = values_and_gradients(lambda x, w: HeadLoss.apply(x, w, targets, IGNORE, 7), x, weight)
    theirs = values_and_gradients(
        lambda x, w: F.cross_entropy(x @ w.T, targets, ignore_index=IGNORE, reduction="sum"), x, weight
    )
    for result, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("vocab_size", [1, 11, ALIGNED - 1, ALIGNED, ALIGNED + 1])
def test_all_logits_at_once_give_the_same_loss_for_every_vocabulary(vocab_size, ignored):
    x, weight, targets = rows_weight_targets(31, vocab_size=vocab_size)
    targets, factor = IGNORED[ignored](targets), 20 if vocab_size > 1 else 1  # large logits, too
    ours = values_and_gradients(lambda x, w: loss_of_all_logits(x, factor * w, targets, IGNORE), x, weight)
    theirs = values_and_gradients(
        lambda x, w: F.cross_entropy(factor * x @ w.T, targets, ignore_index=IGNORE, reduction="sum"), x, weight
    )
    for result, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("loss", [loss_of_all_logits, lambda *given: HeadLoss.apply(*given, 7)], ids=["all", "chunks"])
def test_a_frozen_weight_gets_no_gradient_and_the_rows_get_theirs(loss):
    x, weight, targets = rows_weight_targets(20)
    rows = x.clone().requires_grad_()
    loss(rows, weight, targets, IGNORE).backward()
    expected = x.clone().requires_grad_()
    F.cross_entropy(expected @ weight.T, targets, reduction="sum").backward()
    assert weight.grad is None
    torch.testing.assert_close(rows.grad, expected.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("cap", [0.5, 3.0, 30.0])
def test_head_loss_with_a_cap_equals_the_formula(cap, ignored):
    x, weight, targets = rows_weight_targets(31)
    targets = IGNORED[ignored](targets)
    in_chunks, at_once = (
        values_and_gradients(lambda x, w, loss=loss: loss(x, w, targets, IGNORE, cap), x.double(), weight.double())
        for loss in (lambda *given: HeadLoss.apply(*given[:-1], 7, given[-1]), loss_of_all_logits)
    )
    theirs = values_and_gradients(
        lambda x, w: F.cross_entropy(cap * (x @ w.T / cap).tanh(), targets, ignore_index=IGNORE, reduction="sum"),
        x.double(), weight.double(),
    )
    for ours in (in_chunks, at_once):
        for result, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(result, expected.to(result.dtype), rtol=1e-5, atol=1e-5)


def test_head_loss_takes_huge_logits():
    x, weight, targets = rows_weight_targets(20)
    ours = values_and_gradients(lambda x, w: HeadLoss.apply(x, w, targets, IGNORE, 7), 100 * x, 100 * weight)
    theirs = values_and_gradients(
        lambda x, w: F.cross_entropy(x @ w.T, targets, reduction="sum"), 100 * x, 100 * weight
    )
    for result, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("loss", [loss_of_all_logits, lambda *given: HeadLoss.apply(*given, 8)], ids=["all", "chunks"])
def test_head_loss_in_bf16_keeps_float32_weights_and_sums(loss):
    """With many chunks, sums in bfloat16 would lose digits of the loss and of the weight's gradient."""
    x, weight, targets = rows_weight_targets(3000)
    rows = x.bfloat16()
    ours = values_and_gradients(lambda x, w: loss(x, w, targets, IGNORE), rows, weight)
    reference = values_and_gradients(
        lambda x, w: F.cross_entropy(x @ w.T, targets, reduction="sum"), rows.double(), weight.double()
    )
    assert [x.dtype for x in ours] == [torch.float32, torch.bfloat16, torch.float32]
    assert abs(ours[0] / reference[0] - 1) < 1e-3
    assert relative_error(ours[1], reference[1]) < 0.01 and relative_error(ours[2], reference[2]) < 0.01


def head_of(weight: torch.Tensor) -> LinearHead:
    head = LinearHead(ModelConfig(vocab_size=weight.shape[0], width=weight.shape[1], n_heads=1))
    head.weight = torch.nn.Parameter(weight.detach())
    return head


@pytest.mark.parametrize("ignored", IGNORED)
def test_loss_is_the_mean_over_the_targets_that_count(ignored):
    x, weight, targets = rows_weight_targets(24)
    hidden, targets = x.view(3, 8, -1), IGNORED[ignored](targets).view(3, 8)
    flat = targets.flatten()
    expected = F.cross_entropy(x @ weight.T, flat, ignore_index=IGNORE)  # not a number where nothing counts
    torch.testing.assert_close(head_of(weight).loss(hidden, targets), expected, equal_nan=True)
    each = F.cross_entropy(x @ weight.T, flat, ignore_index=IGNORE, reduction="none").view(3, 8)
    torch.testing.assert_close(head_of(weight).token_losses(hidden, targets), each)


def test_token_losses_across_chunks():
    x, weight, targets = rows_weight_targets(2 * CHUNK + 2)
    each = F.cross_entropy(x @ weight.T, targets, reduction="none")
    torch.testing.assert_close(head_of(weight).token_losses(x[None], targets[None]), each[None])


def test_targets_are_the_tokens_that_follow():
    inputs, targets = shift(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]))
    assert inputs.tolist() == [[1, 2, 3], [5, 6, 7]] and targets.tolist() == [[2, 3, 4], [6, 7, 8]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_never_exist_all_at_once(dtype):
    n, vocab_size = 2 * CHUNK + 300, 97
    x, weight, targets = rows_weight_targets(n, vocab_size=vocab_size)
    x, weight = x.to(dtype).requires_grad_(), weight.requires_grad_()
    with LargestTensor() as ours:
        head_of(weight).loss(x[None], targets[None]).backward()
    with LargestTensor() as theirs:
        F.cross_entropy(x.float() @ weight.T, targets).backward()
    assert theirs.numel == n * vocab_size  # the ruler measures
    assert ours.numel <= CHUNK * vocab_size


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_compiled_losses_and_gradients_equal_eager(name, bf16):
    """Through the compiler's own backward pass, which splits the kernels into their operations. In bfloat16 with as few
    layers as there can be, because further ones are seen in float32."""
    config = future("mean", "constant", "bag") if name == "future" else VARIANTS[name]
    model = Transformer(fewest_layers(config) if bf16 else config)
    windows = torch.randint(model.config.vocab_size, (BATCH, model.config.context_length + 1))  # of every loss
    torch.compiler.reset()
    results = []
    for losses in (model.losses, torch.compile(model.losses, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        torch.manual_seed(3)  # the windows that teach are drawn
        with no_default_device():
            with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
                loss = model.objective(losses(windows))
            loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        assert relative_error(compiled, eager.double()) < (0.02 if bf16 else 1e-5)
