"""How many sequences of a batch fit into memory at once, by the estimate of a training step; what to do where too many
were tried."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from config import ModelConfig, TrainConfig
from lab.compute.device import pick_device, remedy_for_memory, training_memory_limit
from lab.compute.ranks import current_ranks
from lab.costs.estimates import si
from lab.costs.rank_memory import rank_memory, share_of
from settings.errors import ConfigError, IdeaError

# What a step is taken to need, as a multiple of the estimate. CPU: malloc keeps a third to a half of the tensors back.
# CUDA: kernels' own workspace, and gaps between blocks
MARGIN = {"cpu": 1.5, "cuda": 1.15}


def divisors(number: int) -> list[int]:
    """From 1 up to the number itself."""
    return [n for n in range(1, number + 1) if number % n == 0]


def step_bytes_at(
    model: ModelConfig, config: TrainConfig, size: int, device: str, of: Callable[..., int] = max
) -> int:
    """Bytes of one rank's step in which `size` of its sequences pass the model at once, without a teacher. of: max or
    min of the precisions, where the settings leave them open. Raises IdeaError for a part that can't run without
    numbers."""
    ranks = current_ranks()
    open_ones = ("fp32", "bf16") if config.precision == "auto" else (config.precision.replace("tf32", "fp32"),)
    share = share_of(config, ranks.size, size * ranks.size)
    return of(rank_memory(model, share, precision, device, ranks).total for precision in open_ones)


def room_for_rank(device: torch.device) -> int:
    """Bytes that this process can use: ranks of one machine share its memory, and each has a GPU of its own."""
    return training_memory_limit(device) // (current_ranks().local_size if device.type == "cpu" else 1)


def largest_fitting(
    model: ModelConfig, config: TrainConfig, device: torch.device, most: int | None = None
) -> int | None:
    """The largest divisor of a rank's part of the batch, up to `most`, that fits with MARGIN by the estimate; None if
    none does. Without torchrun that part is the whole batch."""
    batch = config.batch_size // current_ranks().size
    sizes = [size for size in divisors(batch) if size <= (most or batch)]
    room = room_for_rank(device) / MARGIN[device.type]
    n_fitting = bisect_right(sizes, room, key=lambda size: step_bytes_at(model, config, size, device.type))
    return sizes[n_fitting - 1] if n_fitting else None


def check_micro_batch(model: ModelConfig, config: TrainConfig, device: torch.device) -> None:
    """Raises ConfigError if micro-batches of the size set, or with "auto" of one sequence, can't fit into memory, and
    for "auto" on a device whose memory is not estimated; IdeaError for "auto" and a part that can't be estimated."""
    wanted = config.micro_batch_size
    if wanted is None:
        return
    if device.type not in MARGIN:
        if wanted == "auto":
            raise ConfigError(
                f"micro_batch_size='auto' goes by an estimate for CPU and CUDA, and not for {device.type!r}: set a "
                f"divisor of batch_size={config.batch_size}"
            )
        return
    ranks = current_ranks().size
    size, room = 1 if wanted == "auto" else max(1, wanted // ranks), room_for_rank(device)
    try:
        needed = step_bytes_at(model, config, size, device.type, of=min)
    except IdeaError:
        if wanted == "auto":
            raise
        return  # nothing is known against it
    if needed <= room:
        return
    fitting = largest_fitting(model, config, device, most=max(1, size // 2))
    remedy = f"set micro_batch_size={fitting * ranks}" if fitting and fitting < size else smaller_model(config)
    sequences = "even one sequence" if size == 1 else f"micro_batch_size={wanted}"
    raise ConfigError(
        f"{sequences} can't fit into memory: by the estimate a step takes {si(needed, 'B')}, and {device.type} has "
        f"{si(room, 'B')} for it; {remedy}"
    )


@contextmanager
def explain_out_of_memory(model: ModelConfig, config: TrainConfig) -> Iterator[None]:
    """Raises RunError when memory runs out inside the `with`, and says which setting to lower, and to what."""
    with remedy_for_memory(lambda: remedies(model, config)):
        yield


def remedies(model: ModelConfig, config: TrainConfig) -> str:
    """What to change after memory has run out in a step with these settings."""
    ranks, found = current_ranks().size, []
    size = config.at_once // ranks
    if size > 1:
        smaller = max(n for n in divisors(config.batch_size // ranks) if n <= size // 2)
        fitting, why = smaller, ""
        device = pick_device(config.device)
        if device.type in MARGIN:
            try:
                fitting = largest_fitting(model, config, device, most=smaller)
                why = f"; by the estimate {fitting} fit" if fitting else "; by the estimate not even one fits"
            except IdeaError:  # a part of one's own: nothing is known but that it were too many
                pass
        sequences = f"{size} sequences{' of each rank' * (ranks > 1)}"
        found.append(f"set micro_batch_size={(fitting or 1) * ranks} (now {sequences} pass the model at once{why})")
    return "; or ".join([*found, smaller_model(config)])


def smaller_model(config: TrainConfig) -> str:
    """What takes less memory besides a smaller micro-batch."""
    checkpointing = [] if config.gradient_checkpointing else ["set gradient_checkpointing=True"]
    return "; or ".join([*checkpointing, "train a smaller model, or one of shorter context_length"])
