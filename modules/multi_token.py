"""Multi-token prediction: several heads on one trunk, each a layer that looks one token further ahead."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from modules.cache import LayerCache
from modules.losses import future_windows, next_token_loss
from modules.positions import Placement
from modules.residual import ResidualBlock


class Ahead(NamedTuple):
    """The stream x (B, T, C), at last what gives the next token; the trunk's result (B, T, C), which every head reads;
    and where the attention of each further head stands, furthest first, and its cache."""

    x: Tensor
    trunk: Tensor
    further: tuple[tuple[Placement, LayerCache | None], ...]


class MultiTokenBlock(ResidualBlock):
    """A residual block of the trunk (offset 0), or the head that gives the token `offset` places ahead.

        x ─ block ─ … ─ block ─┬─ block ─ norm ─ unembedding ─ n ahead
                               ├─ block ─ norm ─ unembedding ─ 2 ahead
                               └─ block ─ norm ─ unembedding ─ 1 ahead

    n heads are n layers side by side, all with the model's last norm and unembedding (Gloeckle et al. 2024,
    arXiv 2404.19737, section 2). A pass computes only the nearest head. The further ones are trained, and they draft
    (`look`). In training one head after another goes forward and backward, as in the paper, so that only one head's
    activations are alive at a time. That costs each head a second forward pass.
    """

    def __init__(self, config: ModelConfig, offset: int, read_out: tuple[nn.Module, nn.Module]):
        super().__init__(config)
        self.offset, self.weight, self.name = offset, config.block.loss_weight, f"ahead_{offset}"
        self.recomputed, self.predicts_next = offset == 1 < config.block.heads, offset < 2
        self.read_out = read_out  # the model's own norm and head: a tuple, for they are no part of this

    def split(self, x: Tensor) -> Ahead:
        return Ahead(x, x, ())  # (B, T, C), (B, T, C)

    def join(self, ahead: Ahead) -> Tensor:
        return ahead.x  # (B, T, C)

    def forward(self, ahead: Ahead, place: Placement, cache: LayerCache | None = None) -> Ahead:
        if self.offset > 1:
            return ahead._replace(further=(*ahead.further, (place, cache)))  # (B, T, C), (B, T, C)
        x = super().forward(ahead.x, place, cache)  # (B, T, C)
        return ahead._replace(x=x, trunk=ahead.x if self.offset else x)  # (B, T, C), (B, T, C)

    def look(self, ahead: Ahead) -> Tensor:
        """What the unembedding reads `offset` tokens ahead, for a further head: (B, T, C)."""
        place, cache = ahead.further[-self.offset + 1]
        return self.read_out[0](super().forward(ahead.trunk, place, cache))  # (B, T, C)

    def losses(self, ahead: Ahead, windows: Tensor) -> dict[str, Tensor]:
        """A further head's own: the mean −log p of the tokens `offset` ahead, 0 where the text is too short."""
        if self.offset < 2:
            return {}
        targets = future_windows(windows, self.offset, self.offset)[..., 0]  # (B, N)
        if not targets.shape[1]:
            return {self.name: windows.new_zeros((), dtype=ahead.x.dtype)}  # ()
        hidden = checkpoint(self.look, ahead, use_reentrant=False)[:, : targets.shape[1]]  # (B, N, C)
        return {self.name: next_token_loss(hidden, self.read_out[1].weight, targets)}  # ()

    @property
    def loss_weights(self) -> dict[str, float]:
        return {self.name: self.weight} if self.offset > 1 else {}


def build_multi_token_blocks(
    config: ModelConfig, embedding: nn.Embedding, norm: nn.Module, head: nn.Module
) -> nn.ModuleList:  # fmt: skip
    """The trunk, then the heads from the furthest to the nearest."""
    offsets = [0] * (config.n_layers - config.block.heads) + list(range(config.block.heads, 0, -1))
    return nn.ModuleList(MultiTokenBlock(config, offset, (norm, head)) for offset in offsets)
