"""What every block is to the model."""

from torch import Tensor

from config import ModelConfig
from modules.logging_module import LoggingModule


class Block(LoggingModule):
    """One layer. `split` makes its state from the embedded tokens, `join` reads it out; most keep the plain stream.

    cached_heads: how many heads of keys each of its attentions has; a pass gives it a cache for each of them.
    recomputed: whether the backward pass computes it again in any case, and not only with gradient checkpointing.
    predicts_next: whether the next token's logits depend on it. A block that serves other predictions alone says False.
    """

    recomputed = False
    predicts_next = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.cached_heads: tuple[int, ...] = (config.kv_heads,)

    def split(self, x: Tensor):
        """The embedded tokens as the state that the first block takes."""
        return x  # (B, T, C)

    def join(self, state) -> Tensor:
        """The last block's state as what the final norm reads."""
        return state  # (B, T, C)

    def losses(self, state, windows: Tensor) -> dict[str, Tensor]:
        """What it is trained on beside the next token: from the last block's state, for windows (B, T+1)."""
        return {}

    @property
    def loss_weights(self) -> dict[str, float]:
        """How much each of its losses counts in training, next to the next token's 1."""
        return {}
