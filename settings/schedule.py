"""The learning rate over the steps of a training."""

from typing import Literal

from settings.checked import Config, settings
from settings.types import Positive, Real, Whole


@settings
class ScheduleConfig(Config):
    """Learning rate over the steps: linear warm-up, decay from the peak, final flat part."""
    decay: Literal["cosine", "linear"] = "cosine"
    warmup_steps: Whole[0, 10**9] | None = None  # None: a tenth of all steps.
    final_fraction: Real[0, 1] = 0.1  # Of the peak, where the decay ends.
    flat_steps: Whole[0, 10**9] = 0  # At the end, at the final rate.
    cycles: Whole[1, 10**9] = 1  # The decay starts again from the peak so many times (warm restarts, arXiv 1608.03983).
    cycle_growth: Positive = 1.0  # Each cycle so many times as long as the one before.
