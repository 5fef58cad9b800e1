"""The memory of one of several ranks that train a model together.

Without sharding (DDP) a rank holds what one process would that trains on the rank's share of the batch: weights,
gradients and optimizer state are whole, and only activations are fewer. The gradients lie in the buckets in which they
travel, and these stay from step to step.

With full sharding (FSDP2, arXiv 2304.11277) a rank keeps its part of weights, gradients and optimizer state. In a pass
it gathers what it computes with: the parameters outside the blocks stay gathered, those of a block come and go, and
while one block computes the next one comes. In the backward pass the gradients of a block are whole until they have
been added up over the ranks, from a second copy, and those outside the blocks until its end. Where a step has several
micro-batches, gradients are added up over the ranks in the last one alone, so that until then all of them are whole.
"""

from dataclasses import dataclass
from math import prod

from config import ModelConfig, TrainConfig
from lab.compute.ranks import ALONE, Ranks
from lab.costs.memory import Memory, step_bytes
from lab.costs.parameters import parameter_shapes
from lab.costs.parts import BACKWARD, UPDATE


@dataclass(frozen=True)
class ParameterBytes:
    """Of all parameters in float32, of those outside the blocks, and of those of the largest block."""

    total: int
    outside: int
    block: int

    @classmethod
    def of(cls, model: ModelConfig) -> "ParameterBytes":
        blocks: dict[str, int] = {}
        for name, shape in parameter_shapes(model).items():
            block = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else ""
            blocks[block] = blocks.get(block, 0) + 4 * prod(shape)
        outside = blocks.pop("", 0)
        return cls(outside + sum(blocks.values()), outside, max(blocks.values()))


def share_of(train: TrainConfig, ranks: int, micro_batch: int | None = None) -> TrainConfig:
    """The training as one of the ranks sees it. micro_batch: of all ranks together; None: the whole batch."""
    size = micro_batch or train.batch_size
    return train.replace(batch_size=train.batch_size // ranks, micro_batch_size=size // ranks)


def rank_memory(model: ModelConfig, share: TrainConfig, precision: str, device: str, ranks: Ranks = ALONE) -> Memory:
    """The fullest moment of a step of one of these ranks.

    share: the training as one rank sees it, with its share of the batch and of the micro-batches.
    """
    moments = step_bytes(model, share, precision, device)
    if ranks.sharded and ranks.size > 1:
        sizes, whole = ParameterBytes.of(model), share.accumulation > 1
        moments = {moment: split(moment, kinds, ranks.size, sizes, whole) for moment, kinds in moments.items()}
    elif ranks.size > 1:
        buckets = max(kinds.get("gradients", 0) for kinds in moments.values())
        moments = {moment: kinds | {"gradients": buckets} for moment, kinds in moments.items()}
    return Memory.at_fullest(moments)


def split(moment: str, kinds: dict[str, int], ranks: int, sizes: ParameterBytes, whole: bool) -> dict[str, int]:
    """The bytes of a moment by kind where each rank keeps its part. whole: until the update gradients are whole."""
    found = dict(kinds)
    found["weights"] -= sizes.total - part(sizes.total, ranks)  # buffers are everywhere
    found["optimizer"] = part(kinds.get("optimizer", 0), ranks)
    if moment == UPDATE or not whole:
        found["gradients"] = part(kinds.get("gradients", 0), ranks)
    if moment != UPDATE:
        found["gathered"] = sizes.outside + 2 * sizes.block
    if moment.startswith(BACKWARD):
        found["gathered"] += 2 * sizes.block + (0 if whole else sizes.outside)
    return found


def part(size: int, ranks: int) -> int:
    return -(-size // ranks)
