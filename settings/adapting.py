"""The settings of what is done to a trained model: adapters and quantised weights.

config.py takes them into the settings of a model.
"""

from collections.abc import Iterator
from typing import Literal

from settings.checked import Config, settings
from settings.types import Positive, Real, Text, Whole


@settings
class LoRAConfig(Config):
    """Low-rank adapters: y = W·x + alpha/rank · B·A·x. Only A and B train (Hu et al. 2021, arXiv 2106.09685)."""
    rank: Whole[1, 2**16] = 8
    alpha: Positive = 16.0
    dropout: Real[0, 0.99] = 0.0  # On the x that A reads, while training.
    layers: Text = "blocks.*"  # Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".


@settings
class QuantisedConfig(Config):
    """Weights of linear layers as whole numbers: of 8 bits with a scale per output, or of 4 bits with a scale and an
    offset per group of inputs."""
    bits: Literal[8, 4] = 8
    group: Literal[32, 64] | None = None  # Inputs that share a scale and an offset, for 4 bits. None: 32.
    layers: Text = "blocks.*"  # Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".

    @property
    def group_size(self) -> int:
        return self.group or 32

    def problems(self) -> Iterator[str]:
        if self.bits == 8 and self.group is not None:
            yield f"group={self.group} is for 4 bits: with 8, each output has one scale; leave it out, or set bits=4"
