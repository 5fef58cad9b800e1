"""The memory of one of several ranks that train a model together. Imports no torch by itself.

Without sharding (DDP) a rank holds what one process would that trains on the rank's share of the batch: weights,
gradients and optimizer state are whole, and only activations are fewer.

With full sharding (FSDP2, `fully_shard` of each block and of the model) a rank keeps its part of weights, gradients and
optimizer state. In a pass it gathers what it computes with: the parameters outside the blocks stay gathered, those of a
block come and go, and while one block computes the next one comes. In the backward pass the gradients of a block are
whole until they have been added up over the ranks, from a second copy; those outside the blocks until the end of the
pass.
"""

from dataclasses import dataclass
from math import prod

from config import ModelConfig, TrainConfig
from lab.costs.memory import Memory, step_bytes
from lab.costs.parameters import parameter_shapes
from lab.costs.parts import BACKWARD, UPDATE

SHARDINGS = ("none", "full")


@dataclass(frozen=True)
class ShardedSizes:
    """Bytes of parameters in float32: all of them, those outside the blocks, and those of the largest block."""

    all: int
    outside: int
    block: int

    @classmethod
    def of(cls, model: ModelConfig) -> "ShardedSizes":
        blocks: dict[str, int] = {}
        for name, shape in parameter_shapes(model).items():
            block = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else ""
            blocks[block] = blocks.get(block, 0) + 4 * prod(shape)
        outside = blocks.pop("", 0)
        return cls(outside + sum(blocks.values()), outside, max(blocks.values()))


def rank_memory(model: ModelConfig, share: TrainConfig, precision: str, device: str, ranks: int = 1) -> Memory:
    """The fullest moment of a step of one of `ranks` fully sharded ranks; of one rank, of a step without sharding.

    share: the training as one rank sees it, with its share of the batch and of the micro-batches.
    """
    moments = step_bytes(model, share, precision, device)
    if ranks == 1:
        return Memory.at_fullest(moments)
    sizes = ShardedSizes.of(model)
    return Memory.at_fullest({moment: shard(moment, kinds, ranks, sizes) for moment, kinds in moments.items()})


def shard(moment: str, kinds: dict[str, int], ranks: int, sizes: ShardedSizes) -> dict[str, int]:
    """The bytes of a moment by kind where parameters, gradients and optimizer state are shared out among ranks."""
    found = dict(kinds)
    found["weights"] -= sizes.all - -(-sizes.all // ranks)  # buffers are everywhere
    for kind in ("gradients", "optimizer"):
        found[kind] = -(-kinds.get(kind, 0) // ranks)
    if moment != UPDATE:
        found["gathered"] = sizes.outside + 2 * sizes.block
    if moment.startswith(BACKWARD):
        found["gathered"] += sizes.outside + 2 * sizes.block
    return found
