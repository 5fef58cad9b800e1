"""What a whole model costs, put together from the costs of its parts. Imports no torch."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from config import ModelConfig
from lab.costs.component_costs import (
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
from lab.costs.future_costs import decoding_working, future_blocks, objective, state_growth


class Section(NamedTuple):
    """Parts that follow each other in the forward pass, and the prefix of their names.

    recomputed: whether the backward pass computes them again, gradient_checkpointing or not, from what other sections
    keep; waiting: bytes of gradients that wait meanwhile for what comes before, beside that of the state.
    """

    prefix: str
    parts: dict[str, Part]
    recomputed: bool = False
    waiting: int = 0


BLOCKS = {  # the parts of each layer
    "residual": lambda config, run: [residual_block(config, run)] * config.n_layers,
    "factored": lambda config, run: [factored_block(config, run)] * config.n_layers,
    "shaped": lambda config, run: [shaped_block(config, run)] * config.n_layers,
    "future": future_blocks,
    "multi_token": lambda config, run: [residual_block(config, run)] * config.n_layers,
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


def further_heads(config: ModelConfig, run: Pass, layers: list[Section]) -> list[Section]:
    """The further heads of `layers`, in the order of their losses: each with the model's norm, and then its loss.

    A loss counts the tokens it has a target for, and keeps its gradients as the head does. As it goes back, those of
    the first head's result and of the trunk wait.
    """
    table, stream = config.vocab_size * config.width, run.tokens * config.width
    found, read_out = [], replace(norm(config, run), parameters=0)
    for offset, (prefix, layer, *_) in enumerate(reversed(layers), start=2):
        complete = 1 - (offset - 1) / run.length
        parts = {
            name: replace(part, products=0, unread=0, in_losses=4 * part.products) for name, part in layer.items()
        }
        gradients = round(complete * run.value * stream) + FP32 * table  # those of its input and of the head's weight
        loss = Part(in_losses=3 * table * complete, kept=gradients, working=gradients)
        waiting = FP32 * stream * (2 if offset < config.block.heads else 1)  # the furthest is the first to go back
        found += [
            Section(prefix, parts | {"norm": read_out}, recomputed=True, waiting=waiting),
            Section("", {f"ahead_{offset}": loss}, waiting=waiting),
        ]
    return found


def sections(config: ModelConfig, run: Pass) -> list[Section]:
    """The model's parts in the order of the forward pass."""
    table, stream = config.vocab_size * config.width, FP32 * run.tokens * config.width
    frozen = config.block.kind == "factored" and config.block.frozen_tokens
    start = stream * ((config.dropout.embedding > 0) + frozen)  # noise; the frozen tokens
    tied = dict(gradient=0, working=FP32 * table) if config.tie_weights else {}  # its gradient joins the head's
    first = {
        "embedding": Part(parameters=table, kept=start, **tied),
        "position": POSITIONS[config.position.kind](config),
    }
    blocks = [Section(f"blocks.{i}.", parts) for i, parts in enumerate(BLOCKS[config.block.kind](config, run))]
    read_out, others = Section("", {"norm": norm(config, run)}), []
    if config.block.kind == "future":
        others = [Section("", {"levels": objective(config, run)})]
        for level, count in enumerate(accumulate(config.block.counts[::-1]), start=-1 - config.block.levels):
            blocks[level] = blocks[level]._replace(waiting=stream * count)  # of what later layers read
    elif config.block.kind == "multi_token" and config.block.heads > 1:
        others = further_heads(config, run, blocks[-config.block.heads : -1])
        # the first head goes back when the further ones have left their gradients at the trunk, whose result all read
        first_head = blocks[-1]._replace(waiting=stream, recomputed=True)
        blocks[-config.block.heads :] = [Section("", {"trunk": Part(kept=stream)}), first_head]
        read_out = read_out._replace(waiting=stream)
    return [Section("", first), *blocks, read_out, *others, Section("", {"head": head(config, run)})]


def count(parts: Iterable[Section], what: str) -> int:
    return sum(getattr(part, what) for section in parts for part in section.parts.values())
