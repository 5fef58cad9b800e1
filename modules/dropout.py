"""Dropout whose rate can be annealed over the training."""

from torch import Tensor, nn
from torch.nn import functional as F

from modules.logging_module import LoggingModule


class Dropout(LoggingModule):
    """While training, zeroes a share of x and scales the rest to the same mean (arXiv 1207.0580); else x as it is.

    share: how much of the rate is left, from 1 down; `set_dropout_share` sets it for a whole model.
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
    for module in model.modules():
        if isinstance(module, Dropout):
            module.share = share
