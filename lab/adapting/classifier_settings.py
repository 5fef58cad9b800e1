"""The settings of a classifier, without torch, so that the terminal's help can show them at once."""

from typing import Literal

from settings.checked import Config, settings
from settings.types import Count, Positive, Whole

FROZEN_RATE, FULL_RATE = 1e-2, 1e-3


@settings
class ClassifierConfig(Config):
    """How a classifier is trained."""
    full: bool = False  # All parameters train; otherwise the head alone, on a frozen model.
    steps: Whole[1, 10**9] = 300
    batch_size: Count = 32  # Texts per step.
    learning_rate: Positive | None = None  # The peak; None: 0.01, or 0.001 where all parameters train.
    max_tokens: Count | None = None  # A longer text is cut at its end; None: the model's context length.
    seed: Whole[0, 9 * 10**12] = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @property
    def peak_rate(self) -> float:
        """The learning rate, or the one that follows from `full`."""
        return self.learning_rate or (FULL_RATE if self.full else FROZEN_RATE)
