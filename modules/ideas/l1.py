"""The L1 norm in place of the L2 norm (Hoffer et al. 2018, arXiv 1803.01814, section 4)."""

from torch import Tensor

from modules.norms import Norm
from settings.registry import register


@register("norm", "l1")
class L1Norm(Norm):
    """x / mean(|x|); then · weight + bias, as in every norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = x / x.abs().mean(dim=-1, keepdim=True).clamp(min=self.eps)  # (B, T, C) or (B, T, H, D)
        return self.scale_and_shift(x)  # (B, T, C) or (B, T, H, D)

    def scale(self, x: Tensor) -> Tensor:
        return 1 / x.abs().mean().clamp(min=self.eps)  # ()
