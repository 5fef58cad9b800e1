"""The settings of what is done to a trained model: adapters. config.py takes them into the settings of a model."""

from settings.checked import Config, settings
from settings.types import Positive, Real, Text, Whole


@settings
class LoRAConfig(Config):
    """Low-rank adapters: y = W·x + alpha/rank · B·A·x. Only A and B train (Hu et al. 2021, arXiv 2106.09685)."""
    rank: Whole[1, 2**16] = 8
    alpha: Positive = 16.0
    dropout: Real[0, 0.99] = 0.0  # On the x that A reads, while training.
    layers: Text = "blocks.*"  # Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".
