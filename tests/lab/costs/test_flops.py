"""FLOPs counted by hand, for each kind of block: two for each multiply-add of a matrix product."""

import pytest

from config import FutureBlockConfig, TrainConfig, preset
from lab.costs.estimates import estimate

C, T, V = 128, 128, 2048  # of the tiny presets, with two layers
SCORES = 2 * T * C  # multiply-adds of a token's scores and of its reading, over all T keys
QUERIES_KEYS_VALUES_OUT = 4 * C * C
GATED = 3 * C * 344  # an MLP's products: 344 is two thirds of 4 · 128, to the nearest multiple of 8
PLAIN = 2 * C * 4 * C
HEAD = C * V


def flops(architecture: str, **block) -> tuple[int, int]:
    """Multiply-adds per token, forward and in training."""
    model = preset(f"{architecture}-tiny").model
    found = estimate(model.replace(block=model.block.replace(**block)))
    return found.forward_flops / 2, found.training_flops / 2


def test_residual_block():
    forward = 2 * (QUERIES_KEYS_VALUES_OUT + SCORES + GATED) + HEAD
    assert flops("llama") == (forward, 3 * forward)


def test_factored_block():
    """Queries and keys alone are projected; both mixings take each of H heads from H heads, D channels each."""
    heads, mixing = 2, 2 * C * 2
    assert heads == preset("factored-tiny").model.n_heads
    forward = 2 * (2 * C * C + SCORES + mixing + PLAIN) + HEAD
    assert flops("factored") == (forward, 3 * forward)


def test_shaped_block():
    """Attention is computed twice, once with queries and keys of 0; these have no gradient, so their products have
    none either: of the second attention's backward pass that for the values alone is left."""
    forward = 2 * (2 * C * C + 2 * SCORES + PLAIN) + HEAD
    assert flops("sasp")[0] == forward


def test_multi_token_block():
    """The forward pass computes the nearest of the heads; training all of them, each twice going forward."""
    layer = QUERIES_KEYS_VALUES_OUT + SCORES + GATED
    forward, training = flops("multi-token", heads=3)
    assert forward == 3 * layer + HEAD  # five layers: a trunk of two, three heads
    again = 3 * layer - 344 * C  # no norm follows in the nearest head: its last product is not needed a second time
    complete = sum((T - ahead) / T for ahead in range(3))  # of the rows whose target is in the window
    assert training == round(3 * 5 * layer + again + 3 * complete * HEAD)


def test_future_block():
    """Two levels of two and four tokens with one vector each, predicted as bags; pools by the mean have no product."""
    block = FutureBlockConfig(levels=2)
    assert [last - first + 1 for first, last in block.windows] == [2, 4] and block.counts == (1, 1)
    cross = 2 * C * C + (2 * C * C) + (2 * C * (T + 1))
    crosses = cross + (2 * C * C + 2 * 2 * C * C + 2 * C * (2 * T + 1))
    body = 5 * (QUERIES_KEYS_VALUES_OUT + SCORES + GATED)
    expected = 2 * 2 * HEAD  # logits of the bag, and the mean embedding
    assert flops("future", levels=2)[0] == body + crosses + expected + HEAD


@pytest.mark.parametrize("architecture", ("llama", "factored", "sasp"))
def test_checkpointing_computes_all_blocks_but_their_last_product_again(architecture):
    model = preset(f"{architecture}-tiny").model
    plain, again = (
        estimate(model, TrainConfig(gradient_checkpointing=on)).training_flops / 2 for on in (False, True)
    )
    unread = model.mlp.hidden(C) * C
    assert again == plain + (flops(architecture)[0] - HEAD) - (2 * unread if architecture != "sasp" else 0)


def test_published_size():
    """6 FLOPs for each parameter that is multiplied, and attention (arXiv 2001.08361, section 2.1)."""
    model = preset("gpt2-124m").model
    multiplied = 124_439_808 - 1024 * 768 - 12 * 13 * 768 - 2 * 768
    assert estimate(model).training_flops == 6 * (multiplied + 12 * 2 * 1024 * 768)
