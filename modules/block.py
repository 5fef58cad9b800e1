"""The base of all blocks: what a layer tells the model and the analyses about itself."""

from collections.abc import Callable
from typing import NamedTuple, Self

from torch import Tensor, nn

from config import ModelConfig
from modules.attention import DotProductAttention
from modules.heads import Head
from modules.logging_module import LoggingModule


class Parts(NamedTuple):
    """What a model has outside its blocks, for blocks that read it."""

    embedding: nn.Embedding
    norm: nn.Module
    head: Head


class Block(LoggingModule):
    """One layer. `split` makes its state from the embedded tokens, `join` reads the state out.

    A kind is made by `kind(config)` and computes in `forward(state, place, cache=None)`, which returns the next state.
    The default state is one stream (B, T, C).

    cached_heads: how many heads of keys each of its attentions has; a pass gives it one cache for each of them.
    recomputed: whether its own forward pass is repeated in the backward pass even without gradient checkpointing.
    predicts_next: whether the next token's logits depend on it.
    reads_parts: whether `forward` takes the model's Parts, as `parts=`.
    reads_unembedding: whether it needs the head's matrix (V, C).
    has_token_stream: whether its state has a stream `xt` that is a linear image of the embeddings.
    """

    recomputed = False
    predicts_next = True
    reads_parts = False
    reads_unembedding = False
    has_token_stream = False

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.cached_heads: tuple[int, ...] = (config.kv_heads,)

    @classmethod
    def build_layers(cls, config: ModelConfig) -> list[Self]:
        """All layers of a model: n_layers blocks of the same form."""
        return [cls(config) for _ in range(config.n_layers)]

    def split(self, x: Tensor):
        """The state that the first block takes, from the embedded tokens."""
        return x  # (B, T, C)

    def join(self, state) -> Tensor:
        """What the final norm reads, from the last block's state."""
        return state  # (B, T, C)

    def streams(self) -> dict[str, Callable[[object], Tensor]]:
        """The streams of a state by name, each as a function from the state to (B, T, C). The last one is `join`."""
        return {"state": self.join}

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights that Muon may update: of all linear maps inside this block, but not of its adapters.

        A block overrides it where other weights are maps of one hidden vector to another, too.
        """
        linear = [module.weight for module in self.modules() if isinstance(module, nn.Linear)]
        return [weight for weight in linear if isinstance(weight, nn.Parameter)]  # a quantised one is none

    @property
    def attentions(self) -> dict[str, DotProductAttention]:
        """Its attentions by name. The `reads` of each says what it attends to."""
        return {name: part for name, part in self.named_children() if isinstance(part, DotProductAttention)}

    def losses(self, state, windows: Tensor, parts: Parts) -> dict[str, Tensor]:
        """Its own losses beside the next token's, from the last block's state, for windows (B, T+1)."""
        return {}

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each of its losses in training; the next token's has 1."""
        return {}
