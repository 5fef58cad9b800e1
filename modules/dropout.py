"""Dropout with a rate that can be lowered during training."""

from torch import Tensor, nn
from torch.nn import functional as F

from modules.logging_module import LoggingModule


class Dropout(LoggingModule):
    """In training, zeroes a random part of x and scales the rest up to the same mean (arXiv 1207.0580); in eval, x.

    share: the part of `rate` that acts, from 0 to 1; `set_dropout_share` sets it for a whole model.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.share = rate, 1.0

    @property
    def active_rate(self) -> float:
        return self.rate * self.share if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.active_rate) if self.active_rate else x  # (…)


def set_dropout_share(model: nn.Module, share: float) -> None:
    """Sets the share of every dropout of a model."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.share = share
