"""How fast this machine's CPU trains a model: a short measurement of passes of the model itself, or of a product."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from config import ModelConfig, TrainConfig
from lab.compute.allocator import freed_memory_kept
from lab.compute.device import autocast
from lab.compute.optimizer import build_optimizer, update
from lab.compute.pass_times import PassTimes
from lab.costs.estimates import sequence_flops, update_flops
from lab.costs.layers import alike_layers
from lab.costs.parameters import count_parameters
from modules.transformer import Transformer

TRIAL = 1e11  # FLOPs at most of a pass that is timed: half a second or a second on a laptop
SIDE = 1024  # of the matrices of the product that is timed for larger models
SHARE = 0.7  # of the product's speed that a training of a large model reaches; assumed


@dataclass(frozen=True)
class Speed:
    """Of one process. flops: per second in passes. update: seconds of one. how: what was measured or published, in
    words. threads: of a process on a CPU. crowd: how many threads share a core of it."""

    flops: float
    update: float
    precision: str
    how: str
    threads: int = 0
    crowd: float = 1.0


def n_cores() -> int:
    """The processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Inside, PyTorch computes on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure_speed(model: ModelConfig, share: TrainConfig, ranks: int) -> Speed:
    """How fast one of `ranks` processes computes passes and updates of this model. share: the training as one rank sees
    it. Several share this machine's cores, and are assumed not to slow each other beyond that."""
    part = torch.get_num_threads() if ranks == 1 else max(1, n_cores() // ranks)
    crowd = max(1.0, ranks * part / n_cores())
    with threads(part), freed_memory_kept():  # as in a training
        trial = trial_model(model, share)
        if trial is None:
            flops = product_speed()
            said = f"{flops / 1e9:,.0f} GFLOP/s in a product of {SIDE} × {SIDE} matrices, of which {SHARE:.0%} assumed"
            return Speed(SHARE * flops / crowd, 0.0, "fp32", said, part, crowd)
        return time_trial(trial, model, share, crowd)


def trial_model(model: ModelConfig, share: TrainConfig) -> ModelConfig | None:
    """The model itself where a pass of one sequence is short enough, or one with fewer layers, or none."""
    length = alike_layers(model)[1]
    shorter = [model.replace(n_layers=model.n_layers - length + 2)] if length else []
    fitting = (one for one in (model, *shorter) if sequence_flops(one, share.gradient_checkpointing)[1] <= TRIAL)
    return next(fitting, None)


def time_trial(trial: ModelConfig, model: ModelConfig, share: TrainConfig, crowd: float) -> Speed:
    """Passes and updates of the trial model, timed."""
    flops = sequence_flops(trial, share.gradient_checkpointing)[1]
    rows = max(1, min(share.at_once, int(TRIAL // flops)))
    built = Transformer(trial).train()
    built.gradient_checkpointing = share.gradient_checkpointing
    ways = ["fp32", "bf16"] if share.precision == "auto" else [share.precision.replace("tf32", "fp32")]
    times = PassTimes(built, torch.zeros(rows, trial.context_length + 1, dtype=torch.long), share.accumulation == 1)
    seconds = times.of(ways)
    precision = min(seconds, key=seconds.get)
    sizes = [update_flops(one, share) or count_parameters(one) for one in (model, trial)]
    seconds_of_update = time_update(built, share, precision) * sizes[0] / sizes[1]
    said = f"passes of {rows} sequence{'s' * (rows > 1)} through {trial.n_layers} layers, measured"
    rate = rows * flops / seconds[precision] / crowd
    return Speed(rate, crowd * seconds_of_update, precision, said, torch.get_num_threads(), crowd)


def time_update(model: Transformer, share: TrainConfig, precision: str) -> float:
    """Seconds of an update, once the optimizer has its state."""
    optimizer, found = build_optimizer(model, share), []
    for _ in range(4):
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            parameter.grad = torch.full_like(parameter, 1e-3)
        start = time.perf_counter()
        with autocast(torch.device("cpu"), precision):
            update(optimizer, share.learning_rate)
        found.append(time.perf_counter() - start)
    return median(found[1:])


def product_speed() -> float:
    """FLOP/s of a product of square float32 matrices, the best of several."""
    a, b = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
    found = []
    for _ in range(6):
        start = time.perf_counter()
        _ = a @ b
        found.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(found)
