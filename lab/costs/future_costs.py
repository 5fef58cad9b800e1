"""What the future-sighted layers cost, in the terms of component_costs. Imports no torch."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from config import ModelConfig
from lab.costs.component_costs import FP32, LOSS_CHUNK, Part, Pass, attention, attention_kernel, dropped, mlp, norm


def cross_attention(config: ModelConfig, run: Pass, n_vectors: int) -> Part:
    width, key_width, length = config.width, config.kv_heads * config.head_dim, run.length
    keys, kernel = n_vectors * length + 1, attention_kernel(config, run, first=1, each=n_vectors)
    parameters = 2 * width * (width + key_width) + 2 * config.bias * (width + key_width) + 2 * key_width
    vectors = run.tokens * n_vectors * width
    # where q is a view of what was turned, the keys live on beside it, as they were before they stood in a row
    turned = 0 if kernel.copies_result else run.tokens * n_vectors * key_width
    inside = vectors + turned + 2 * run.tokens * width  # what q is made of; the heads of the result, joined
    kept = FP32 * (vectors + run.tokens * n_vectors) + run.value * inside + kernel.kept  # first what their norm keeps
    row = run.sequences * keys * key_width
    # from their row, the gradients of keys and values go back to their positions; and so to the vectors
    working = max(kernel.working, run.value * (2 * run.tokens * width + 4 * row) + FP32 * vectors)
    if config.position.kind == "alibi":  # going forward: bias, masked, for all vectors, and for nothing
        biases = FP32 * config.n_heads * length * (length + 2 * keys)
        mask = run.value * config.n_heads * length * keys
        working = max(working, biases - run.value * run.tokens * width - mask)
    return Part(
        parameters=parameters,
        products=2 * width**2 + 2 * n_vectors * width * key_width + 2 * width * keys,
        cached=2 * n_vectors * key_width,
        kept=kept + dropped(config, run),
        copies=run.copies(parameters - 2 * key_width),
        working=working,
    )


class Pooling(NamedTuple):
    """Of a pool: parameters, those of linear maps; multiply-adds per token, those whose result nothing needs; numbers
    kept per token, and those that its backward pass adds, in float32 and in the type of products."""

    parameters: int = 0
    of_maps: int = 0
    products: int = 0
    unread: int = 0
    kept: int = 0
    working: int = 0
    working_inside: int = 0


class Window(NamedTuple):
    """Tokens W and vectors J of a level, channels C; the largest W and J that its pool is made for."""

    size: int
    count: int
    width: int
    size_made: int
    count_made: int
    factor: int
    bias: bool


def _flatten(w: Window) -> Pooling:
    outputs = w.count_made * w.width
    made = outputs * (w.size_made * w.width + w.bias)
    products = w.count * w.width * w.size * w.width
    return Pooling(made, made, products, products, w.size * w.width, w.size * w.width)


def _convolution(w: Window) -> Pooling:
    made = w.count_made * w.width * (w.factor * w.width + w.bias)
    answers = w.size // w.factor * w.count * w.width
    return Pooling(made, made, w.size * w.count * w.width**2, 0, w.size * w.width + answers, 3 * answers)


def _self_attention(w: Window) -> Pooling:
    made = w.width * w.count_made * (w.width + w.bias) + w.width**2
    read = w.count * w.size * w.width
    products = (w.count_made + w.size) * w.width**2 + 2 * read
    kept = 2 * w.size * w.width + w.width * (1 + w.count_made) + w.count * w.size
    return Pooling(made, made, products, read, kept, w.size * w.width, w.size * w.width)


POOLS: dict[str, Callable[[Window], Pooling]] = {
    "sum": lambda w: Pooling(working=w.size * w.width),
    "mean": lambda w: Pooling(working=w.size * w.width),
    "max": lambda w: Pooling(kept=(w.size + w.count) * w.width, working=2 * w.size * w.width),
    "parametric_sum": lambda w: Pooling(
        w.count_made * w.size_made, 0, w.count * w.size * w.width, w.count * w.size * w.width,
        w.size * w.width, w.size * w.width,
    ),
    "parametric_max": lambda w: Pooling(
        w.count_made * w.size_made, 0, 0, 0, (w.size + w.count * (w.size + 1)) * w.width, 3 * w.size * w.width
    ),
    "flatten": _flatten,
    "convolution": _convolution,
    "attention": lambda w: Pooling(
        w.count_made * w.width, 0, 2 * w.count * w.size * w.width, w.count * w.size * w.width,
        w.size * w.width + w.count * w.size, 2 * w.size * w.width,
    ),
    "self_attention": _self_attention,
}  # fmt: skip


def foresight(config: ModelConfig, run: Pass, level: int, first_use: bool) -> dict[str, Part]:
    """One level's parts. first_use: whether the pool is not another level's, counted there."""
    block, width, stream = config.block, config.width, run.tokens * config.width
    sizes, counts = [block.factor**p for p in range(1, block.levels + 1)], block.counts
    made = (sizes[-1], max(counts)) if block.share else (sizes[level - 1], counts[level - 1])
    window = Window(sizes[level - 1], counts[level - 1], width, *made, block.factor, config.bias)
    pool = POOLS[block.pool](window)
    after = window.count * width**2 if block.linear_after else 0
    linear_after = width * (width + config.bias) * block.linear_after
    scale = norm(config, run) if block.norm_before else Part()
    if block.norm_before and block.of_vocabulary and config.norm.kind != "layer":
        # what it norms has no gradient, so that nothing is kept but for its weight
        scale = replace(scale, kept=FP32 * stream * config.norm.weight, working=FP32 * stream * config.norm.weight)
    return {
        "foresight.norm": norm(config, run),
        **(expected_embedding(config, run) if block.of_vocabulary else forecast(config, run)),
        "foresight.pool.norm": scale if first_use else Part(kept=scale.kept, working=scale.working),
        "foresight.pool": Part(
            parameters=(pool.parameters + linear_after) * first_use,
            products=pool.products + after,
            unread=after or pool.unread,
            kept=run.value * (run.tokens * pool.kept + stream * window.count * block.linear_after),
            copies=run.copies(pool.of_maps + after),
            working=run.tokens * (FP32 * pool.working + run.value * pool.working_inside),
        ),
        "foresight": Part(parameters=window.size * width),
    }


def forecast(config: ModelConfig, run: Pass) -> dict[str, Part]:
    parameters = config.width * (config.width + config.bias)
    kept = run.value * run.tokens * config.width
    return {
        "foresight.forecast": Part(
            parameters=parameters, products=config.width**2, kept=kept, copies=run.copies(parameters)
        )
    }


def expected_embedding(config: ModelConfig, run: Pass) -> dict[str, Part]:
    """Nothing goes back through it, so nothing is kept. Going forward it works with a chunk of logits and of shares."""
    table, chunk = config.vocab_size * config.width, config.vocab_size * min(LOSS_CHUNK, run.tokens)
    return {"foresight.expect": Part(products=2 * table, constant=4 * table, working=2 * run.value * chunk)}


def objective(config: ModelConfig, run: Pass) -> Part:
    """The losses of all levels: those of bags keep the gradients of what they read, and of the head; those of vectors
    pool the true windows."""
    block = config.block
    complete = [(run.length + 1 - last, last + 1 - first) for first, last in block.windows if last <= run.length]
    if not block.of_vocabulary:
        pools = [foresight(config, run, level, False)["foresight.pool"] for level in range(1, len(complete) + 1)]
        return Part(in_losses=sum(pool.products * n / run.length for pool, (n, _) in zip(pools, complete)))
    rows = run.sequences * sum(windows // min(size, windows) for windows, size in complete)
    table = config.vocab_size * config.width
    return Part(
        in_losses=3 * table * rows / run.tokens, kept=run.value * rows * config.width + FP32 * table * len(complete)
    )


def future_blocks(config: ModelConfig, run: Pass) -> list[dict[str, Part]]:
    """The body, the levels from the furthest to the nearest, the last layer."""
    levels, blocks, n_vectors = config.block.levels, [], 0
    for layer in range(config.n_layers):
        level = config.n_layers - 1 - layer
        foresees = 1 <= level <= levels
        result_needed = foresees or config.dropout.residual > 0
        parts = {"attention_norm": norm(config, run), "attention": attention(config, run)}
        if n_vectors:
            parts |= {"cross_norm": norm(config, run), "cross": cross_attention(config, run, n_vectors)}
        parts |= {"mlp_norm": norm(config, run), "mlp": mlp(config, run, result_needed=result_needed)}
        if foresees:
            parts |= foresight(config, run, level, not config.block.share or level == levels)
            n_vectors += config.block.counts[level - 1]
        blocks.append(parts)
    return blocks


def decoding_working(config: ModelConfig, length: int) -> int:
    """Numbers that a step with a cache of `length` tokens works with for a sequence, at its last layer: the keys put in
    a row, and the values twice."""
    return 3 * config.kv_heads * config.head_dim * (sum(config.block.counts) * length + 1)


def state_growth(config: ModelConfig) -> list[int]:
    """Tensors (B, T, C) that each level's state newly holds beside the stream: all vectors so far, and what is read."""
    counts = config.block.counts[::-1]
    bags = range(1, len(counts) + 1) if config.block.of_vocabulary else [0] * len(counts)
    return [sum(counts[: i + 1]) + read for i, read in enumerate(bags)]
