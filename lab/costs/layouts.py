"""One way to split a training over ranks: its memory, the largest micro-batch, and the time of a step."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import torch

from config import ModelConfig, TrainConfig
from lab.compute.device import training_memory_limit
from lab.compute.ranks import Ranks
from lab.costs.estimates import sequence_flops, update_flops
from lab.costs.fitting import MARGIN, divisors
from lab.costs.machines import Machines
from lab.costs.memory import Memory
from lab.costs.parameters import weight_bytes
from lab.costs.rank_memory import rank_memory, share_of
from lab.costs.this_machine import Speed, measure_speed

BUS = 0.7  # of a link's published speed that NCCL reaches; assumed
SHORT = 0.02  # seconds of a GPU's passes; in shorter ones launching kernels counts as much as computing
BACKWARD_SHARE = 2 / 3  # of the products of a pass, beside which DDP adds up gradients on a GPU


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A training on `machines`. sharding: "none" or "full". micro_batch: sequences of all ranks together, the most that
    fit, or those of the settings; where not even one of each rank fits, one of each. room: bytes that tensors of a rank
    may take. passes: seconds of the passes of one micro-batch. seconds: of a step."""

    sharding: str
    micro_batch: int
    memory: Memory
    room: float
    passes: float
    seconds: float

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.room


def room_of(machines: Machines) -> float:
    """Bytes that the tensors of a rank may take by the estimate, which leaves out what MARGIN stands for."""
    if machines.card is None:
        return training_memory_limit(torch.device("cpu")) / machines.ranks / MARGIN["cpu"]
    return 1e9 * machines.card.memory / MARGIN["cuda"]


def kernels_for(machines: Machines) -> str:
    """Whose kernels' tensors are counted: a card's where this PyTorch knows them. See `step_bytes`."""
    if machines.card is None:
        return "cpu"
    return "cuda" if torch.backends.cuda.is_built() else "near-cuda"


def lay_out(model: ModelConfig, train: TrainConfig, machines: Machines, sharding: str, speed: Speed) -> Layout:
    """The layout with the micro-batch of the settings, or else the largest that fits."""
    ranks, room = machines.ranks, room_of(machines)
    together = Ranks(size=ranks, sharded=sharding == "full")

    def memory(size: int) -> Memory:
        share = share_of(train, ranks, size)
        return rank_memory(model, share, speed.precision, kernels_for(machines), together)

    if isinstance(train.micro_batch_size, int):
        size = train.micro_batch_size
    else:
        size = largest_within(room, [ranks * n for n in divisors(train.batch_size // ranks)], memory)
    share = share_of(train, ranks, size)
    passes = share.at_once * sequence_flops(model, share.gradient_checkpointing)[1] / speed.flops
    shared = train.optimizer == "muon"  # ranks make some of the matrices orthogonal each, and send them to all
    parts, around = share.accumulation, speed.crowd * around_seconds(weight_bytes(model), machines)
    update = speed.update / ranks + around if shared else speed.update
    return Layout(
        sharding=sharding, micro_batch=size, memory=memory(size), room=room, passes=passes,
        seconds=parts * passes + waiting_seconds(passes, parts, around, machines, sharding) + update,
    )


def largest_within(room: float, sizes: list[int], memory: Callable[[int], Memory]) -> int:
    """The largest of the sizes whose memory is within `room`; where none is, the smallest."""
    return sizes[max(1, bisect_right(sizes, room, key=lambda size: memory(size).total)) - 1]


def speed_of(model: ModelConfig, train: TrainConfig, machines: Machines, precision: str, mfu: float) -> Speed:
    """Of one rank: a card's by its published peak and the share of it that is assumed, this machine's as measured."""
    if machines.card is None:
        share = share_of(train, machines.ranks)
        return measure_speed(model, share, machines.ranks)
    peak = getattr(machines.card, precision)
    flops = mfu * 1e12 * peak
    return Speed(flops, update_flops(model, train) / flops, precision, f"{peak:,g} TFLOP/s at most in {precision}")


def around_seconds(size: int, machines: Machines) -> float:
    """How long it takes until each rank has what the others have of `size` bytes."""
    return (machines.ranks - 1) / machines.ranks * size / (1e9 * BUS * machines.link)


def waiting_seconds(passes: float, n_parts: int, around: float, machines: Machines, sharding: str) -> float:
    """Of a step of n_parts micro-batches: how long ranks wait for each other's parameters and gradients.

    passes: seconds of the passes of one micro-batch. around: seconds in which all parameters, or as many gradients,
    reach all ranks. A GPU computes while it sends. On CPUs gloo adds up whole gradients even where each rank keeps its
    rows alone.
    """
    beside = passes if machines.card else 0.0
    if sharding == "full":  # parameters come for either pass, and in the last micro-batch gradients go
        gradients = around if machines.card else 2 * around
        return (n_parts - 1) * max(0.0, 2 * around - beside) + max(0.0, 2 * around + gradients - beside)
    return max(0.0, 2 * around - BACKWARD_SHARE * beside)  # a ring adds gradients up, and tells all ranks the sums
