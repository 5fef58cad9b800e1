"""The memory of one of several ranks that train a model together.

Without sharding (DDP) a rank holds what one process would that trains on the rank's share of the batch: weights,
gradients and optimizer state are whole, and only activations are fewer. The gradients lie in the buckets in which they
travel, and these stay from step to step.

With full sharding (FSDP2, arXiv 2304.11277) a rank keeps its part of weights, gradients and optimizer state. In a pass
it gathers what it computes with: the parameters outside the blocks stay gathered, those of a group of blocks (see
`block_groups`) come and go. In the forward pass the message in which a group came stays until the next one, and in the
backward pass the next group comes while one computes. There the gradients of a group are whole until they have been
added up over the ranks, from a second copy, and those outside the groups until its end. Where a step has several
micro-batches, gradients are added up over the ranks in the last one alone, so that until then all of them are whole.
"""

from dataclasses import dataclass
from itertools import pairwise

from config import ModelConfig, TrainConfig
from lab.compute.ranks import ALONE, Ranks
from lab.costs.memory import Memory, step_bytes
from lab.costs.parts import BACKWARD, UPDATE
from lab.files.remembered import remembered


@dataclass(frozen=True)
class ParameterBytes:
    """Of all parameters in float32, of those outside the groups of blocks, of those of the largest group, and of the
    most that two groups in a row have together."""

    total: int
    outside: int
    group: int
    in_a_row: int

    @classmethod
    def of(cls, model: ModelConfig) -> "ParameterBytes":
        total, *groups = sizes_of_groups(model)
        in_a_row = max(map(sum, pairwise(groups)), default=sum(groups))
        return cls(total, total - sum(groups), max(groups, default=0), in_a_row)


@remembered
def sizes_of_groups(model: ModelConfig) -> list[int]:
    """The bytes of all parameters, and of those of each group of blocks that is gathered together."""
    from lab.compute.sharding import block_groups, parameter_bytes
    from lab.costs.passes import meta_model

    built = meta_model(model.replace(quantised=None))
    return [parameter_bytes(built), *(sum(map(parameter_bytes, group)) for group in block_groups(built))]


def share_of(train: TrainConfig, ranks: int, micro_batch: int | None = None) -> TrainConfig:
    """The training as one of the ranks sees it. micro_batch: of all ranks together; None: the whole batch."""
    size = micro_batch or train.batch_size
    return train.replace(batch_size=train.batch_size // ranks, micro_batch_size=size // ranks)


def rank_memory(model: ModelConfig, share: TrainConfig, precision: str, kernels: str, ranks: Ranks = ALONE) -> Memory:
    """The fullest moment of a step of one of these ranks.

    share: the training as one rank sees it, with its share of the batch and of the micro-batches. kernels: see
    `step_bytes`.
    """
    moments = step_bytes(model, share, precision, kernels)
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
    if moment.startswith(BACKWARD):
        gradients = min(sizes.group, kinds.get("gradients", 0))  # the first ones of a group come one by one
        found["gathered"] = sizes.outside + sizes.in_a_row + 2 * gradients + (0 if whole else sizes.outside)
    elif moment != UPDATE:
        found["gathered"] = sizes.outside + 2 * sizes.group
    return found


def part(size: int, ranks: int) -> int:
    return -(-size // ranks)
