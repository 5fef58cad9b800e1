"""What a whole model costs, put together from the costs of its parts. Imports no torch."""

from dataclasses import replace
from typing import NamedTuple

from config import ModelConfig
from lab.component_costs import (
    FP32,
    LOSS_CHUNK,
    POSITIONS,
    Part,
    Pass,
    factored_block,
    norm,
    residual_block,
    shaped_block,
)
from lab.future_costs import decoding_working, future_blocks, objective, state_growth


def multi_token_blocks(config: ModelConfig, run: Pass) -> list[dict[str, Part]]:
    """The trunk, the further heads from the furthest to the second, and the first, which reads the trunk too."""
    layer, heads = residual_block(config, run), config.block.heads
    further = {
        name: replace(part, products=0, unread=0, in_losses=4 * part.products, kept=0, copies=0, working=0)
        for name, part in layer.items()
    }
    return [layer] * (config.n_layers - heads) + [further] * (heads - 1) + [layer]


def further_losses(config: ModelConfig, run: Pass) -> Part:
    """Those of the further heads, each of the tokens it has a target for: products, and the gradients that it keeps."""
    table, stream = config.vocab_size * config.width, run.tokens * config.width
    complete = [1 - (offset - 1) / run.length for offset in range(2, config.block.heads + 1)]
    return Part(
        in_losses=3 * table * sum(complete),
        kept=round(sum(complete) * run.value * stream) + FP32 * table * len(complete),
    )


BLOCKS = {  # the parts of each layer
    "residual": lambda config, run: [residual_block(config, run)] * config.n_layers,
    "factored": lambda config, run: [factored_block(config, run)] * config.n_layers,
    "shaped": lambda config, run: [shaped_block(config, run)] * config.n_layers,
    "future": future_blocks,
    "multi_token": multi_token_blocks,
}


class State(NamedTuple):
    """Tensors (B, T, C) that stand between two blocks, and of their gradients while a block is passed backwards."""

    values: float = 1
    gradients: float = 1


def state(config: ModelConfig) -> State:
    """Frozen tokens are the same tensor between all blocks; the streams' sum has a gradient of its own.

    What is foreseen is stacked up from level to level: the mean over all layers.
    """
    if config.block.kind == "future":
        foreseen = state_growth(config)
        read = config.block.levels if config.block.of_vocabulary else 0
        return State(values=1 + sum(foreseen) / config.n_layers, gradients=1 + read)
    if config.block.kind != "factored":
        return State()
    return State(values=1, gradients=2) if config.block.frozen_tokens else State(values=2, gradients=3)


def head(config: ModelConfig, run: Pass) -> Part:
    """The head with its loss, which HeadLoss computes with the gradients of its input and weight, kept from then on."""
    table = config.vocab_size * config.width
    return Part(
        parameters=0 if config.tie_weights else table,
        products=table,
        kept=run.tokens * run.value * config.width + FP32 * table,
        working=run.tokens * run.value * config.width,
        gradient=FP32 * table,
    )


def loss_working(config: ModelConfig, run: Pass) -> int:
    """Bytes that HeadLoss works with: the normed x, a copy of the weight, and several forms of one chunk of logits."""
    low = run.value if run.value < FP32 else 0  # a low-precision copy beside the float32 numbers
    table = config.vocab_size * config.width
    rows = min(LOSS_CHUNK, run.tokens)
    softmax = 2 * FP32 * config.vocab_size * rows  # logits and log p
    weight_gradient = (FP32 + low) * (config.vocab_size * rows + table)
    return run.tokens * config.width * (FP32 + low) + low * table + max(softmax, weight_gradient)


def step_working(config: ModelConfig, length: int) -> int:
    """Numbers that decoding a token works with for a sequence."""
    foreseeing = decoding_working(config, length) if config.block.kind == "future" else 0
    return max(config.vocab_size + config.mlp.hidden(config.width), foreseeing)


Sections = list[tuple[str, dict[str, Part]]]


def sections(config: ModelConfig, run: Pass) -> Sections:
    """The model's parts in the order of the forward pass: a prefix of their names, and the parts."""
    table = config.vocab_size * config.width
    frozen = config.block.kind == "factored" and config.block.frozen_tokens
    start = FP32 * run.tokens * config.width * ((config.dropout.embedding > 0) + frozen)  # noise; the frozen tokens
    tied = dict(gradient=0, working=FP32 * table) if config.tie_weights else {}  # its gradient joins the head's
    first = {
        "embedding": Part(parameters=table, kept=start, **tied),
        "position": POSITIONS[config.position.kind](config),
    }
    blocks = [(f"blocks.{i}.", parts) for i, parts in enumerate(BLOCKS[config.block.kind](config, run))]
    last = {"norm": norm(config, run), "head": head(config, run)}
    if config.block.kind == "future":
        last["levels"] = objective(config, run)
    elif config.block.kind == "multi_token":
        last["further heads"] = further_losses(config, run)
    return [("", first), *blocks, ("", last)]


def count(parts: Sections, what: str) -> int:
    return sum(getattr(part, what) for _, section in parts for part in section.values())
