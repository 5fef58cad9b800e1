"""What every block is to the model."""

from torch import Tensor

from modules.logging_module import LoggingModule


class Block(LoggingModule):
    """One layer. `split` makes its state from the embedded tokens, `join` reads it out; most keep the plain stream."""

    def split(self, x: Tensor):
        """The embedded tokens as the state that the first block takes."""
        return x  # (B, T, C)

    def join(self, state) -> Tensor:
        """The last block's state as what the final norm reads."""
        return state  # (B, T, C)
