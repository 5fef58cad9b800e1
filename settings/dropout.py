"""How much a model drops out in training."""

from settings.checked import Config, settings
from settings.types import Real


@settings
class DropoutConfig(Config):
    """Rates while training."""
    embedding: Real[0, 0.99] = 0.0
    attention: Real[0, 0.99] = 0.0  # On the attention weights.
    residual: Real[0, 0.99] = 0.0  # On what a sub-layer adds.
