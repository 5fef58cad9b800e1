"""The learning rate of every step."""

import math

from config import TrainConfig


def learning_rate(step: int, config: TrainConfig) -> float:
    """The rate of `step`, counted from 0: linear warm-up, then cycles of decay, then a flat part at the end.

    Cosine (Loshchilov & Hutter 2016, arXiv 1608.03983): final + (peak − final) · (1 + cos π·progress) / 2;
    linear: peak + (final − peak) · progress. Each further cycle starts at the peak, cycle_growth times as long.
    """
    schedule, peak = config.schedule, config.learning_rate
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    final = peak * schedule.final_fraction
    decaying = config.steps - config.warmup_steps - schedule.flat_steps
    progress = _progress_in_cycle((step - config.warmup_steps) / decaying, schedule.cycles, schedule.cycle_growth)
    fallen = (1 - math.cos(math.pi * progress)) / 2 if schedule.decay == "cosine" else progress
    return peak + (final - peak) * fallen


def learning_rates(config: TrainConfig) -> list[float]:
    """The learning rates of all steps."""
    return [learning_rate(step, config) for step in range(config.steps)]


def _progress_in_cycle(done: float, cycles: int, growth: float) -> float:
    """The progress within the current cycle when the share `done` of the whole decay is over; 1 at the end."""
    if done >= 1:
        return 1.0
    lengths = [growth**cycle for cycle in range(cycles)]
    position = done * sum(lengths)
    for length in lengths[:-1]:
        if position < length:
            return position / length
        position -= length
    return position / lengths[-1]
