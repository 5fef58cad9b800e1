"""Multi-token prediction: several heads on one trunk; each is a layer that predicts one token further ahead."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from modules.block import Parts
from modules.cache import LayerCache
from modules.losses import future_windows
from modules.positions import PositionContext
from modules.residual import ResidualBlock
from settings.registry import built_in


class Ahead(NamedTuple):
    """The stream x (B, T, C); the trunk's output (B, T, C), which every head reads; and for each further head, furthest
    first, the position context and the cache of its attention."""

    x: Tensor
    trunk: Tensor
    further: tuple[tuple[PositionContext, LayerCache | None], ...]


@built_in("block", "multi_token")
class MultiTokenBlock(ResidualBlock):
    """A residual block of the trunk (offset 0), or the head that predicts the token `offset` places ahead.

        x ─ block ─ … ─ block ─┬─ block ─ norm ─ unembedding ─ n ahead
                               ├─ block ─ norm ─ unembedding ─ 2 ahead
                               └─ block ─ norm ─ unembedding ─ 1 ahead

    All n heads read the same trunk and share the model's last norm and unembedding (Gloeckle et al. 2024,
    arXiv 2404.19737, section 2). A pass computes only the nearest head. `look` computes a further one, for its loss and
    for drafts. As in the paper, the heads go forward and backward one after the other in training, so that only one
    head's activations exist at a time. That costs each head a second forward pass.
    """

    def __init__(self, config: ModelConfig, offset: int = 0):
        super().__init__(config)
        self.offset, self.weight, self.name = offset, config.block.loss_weight, f"ahead_{offset}"
        self.recomputed, self.predicts_next = offset == 1 < config.block.heads, offset < 2

    @classmethod
    def build_layers(cls, config: ModelConfig) -> list["MultiTokenBlock"]:
        """The trunk, then the heads from the furthest to the nearest."""
        heads = config.block.heads
        return [cls(config, offset) for offset in [0] * (config.n_layers - heads) + list(range(heads, 0, -1))]

    def split(self, x: Tensor) -> Ahead:
        return Ahead(x, x, ())  # (B, T, C), (B, T, C)

    def join(self, ahead: Ahead) -> Tensor:
        return ahead.x  # (B, T, C)

    def forward(self, ahead: Ahead, place: PositionContext, cache: LayerCache | None = None) -> Ahead:
        if self.offset > 1:
            return ahead._replace(further=(*ahead.further, (place, cache)))  # (B, T, C), (B, T, C)
        x = super().forward(ahead.x, place, cache)  # (B, T, C)
        return ahead._replace(x=x, trunk=ahead.x if self.offset else x)  # (B, T, C), (B, T, C)

    def look(self, ahead: Ahead, norm: nn.Module) -> Tensor:
        """What the model's head reads to predict `offset` tokens ahead, for a further head: (B, T, C)."""
        place, cache = ahead.further[-self.offset + 1]
        return norm(super().forward(ahead.trunk, place, cache))  # (B, T, C)

    def losses(self, ahead: Ahead, windows: Tensor, parts: Parts) -> dict[str, Tensor]:
        """A further head's loss: the mean −log p of the tokens `offset` ahead, 0 where the text is too short."""
        if self.offset < 2:
            return {}
        targets = future_windows(windows, self.offset, self.offset)[..., 0]  # (B, N)
        if not targets.shape[1]:
            return {self.name: windows.new_zeros((), dtype=ahead.x.dtype)}  # ()
        hidden = checkpoint(self.look, ahead, parts.norm, use_reentrant=False)[:, : targets.shape[1]]  # (B, N, C)
        return {self.name: parts.head.loss(hidden, targets)}  # ()

    @property
    def loss_weights(self) -> dict[str, float]:
        return {self.name: self.weight} if self.offset > 1 else {}
