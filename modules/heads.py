"""Heads: what turns the last hidden states into logits, and computes their losses chunk by chunk."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from modules.kernels import head_loss
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.losses import CHUNK, IGNORE, in_autocast_type, soft_cap
from settings.errors import ConfigError
from settings.registry import built_in, part


class Head(LoggingModule):
    """The base of all heads: `forward` gives logits (…, V) for hidden states (…, C), each position by itself.

    A kind is made by `kind(config)`. The losses need no more than `forward`, and never have more than (CHUNK, V)
    logits at a time. cap: of a linear head's logits, None for no cap.
    """

    cap: float | None = None

    def __init__(self, config: ModelConfig):
        super().__init__()

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean of −log p(target) over hidden (B, T, C) and targets (B, T), without those that are IGNORE.

        The backward pass computes the logits of each chunk a second time.
        """
        total = torch.zeros((), device=hidden.device)  # ()
        for rows, answers in chunks(hidden, targets):
            total = total + checkpoint(self.chunk_losses, rows, answers, use_reentrant=False).sum()  # ()
        return total / (targets != IGNORE).sum()  # ()

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """−log p(target) of each token, 0 where the target is IGNORE: (B, T)."""
        losses = [self.chunk_losses(rows, answers) for rows, answers in chunks(hidden, targets)]
        return torch.cat(losses).view_as(targets)  # (B, T)

    def chunk_losses(self, rows: Tensor, answers: Tensor) -> Tensor:
        """−log p(answer) of each row of (N, C): (N)."""
        return F.cross_entropy(self(rows), answers, ignore_index=IGNORE, reduction="none")  # (N)

    def unembedding(self) -> Tensor:
        """The matrix (V, C) whose product with a hidden state is its logits, before the cap if there is one.

        Raises ConfigError for a head that has none.
        """
        raise ConfigError(
            f"{type(self).__name__} has no matrix of logits, which a future block that predicts tokens and provenance "
            "read; choose head.kind='linear', or block.predicts='vector_cosine' or 'vector_squared'"
        )

    def tie(self, weight: nn.Parameter) -> None:
        """Uses the embedding's weight (V, C) as its own. Raises ConfigError for a head without a `weight` like it."""
        own = getattr(self, "weight", None)
        if not isinstance(own, nn.Parameter) or own.shape != weight.shape:
            raise ConfigError(
                f"{type(self).__name__} has no weight {tuple(weight.shape)} that could be the embedding's; "
                "set tie_weights=False"
            )
        self.weight = weight


def chunks(hidden: Tensor, targets: Tensor) -> zip:
    """Pairs of up to CHUNK rows (N, C) of hidden (B, T, C), and their targets (N)."""
    return zip(hidden.flatten(0, 1).split(CHUNK), targets.flatten().split(CHUNK))


@built_in("head", "linear")
class LinearHead(Head, Linear):
    """logits = W · hidden; with tied weights, W is the embedding (Press & Wolf 2016, arXiv 1608.05859).

    With a cap, logits = cap · tanh(W · hidden / cap).
    """

    project = Linear.forward  # the logits before the cap

    def __init__(self, config: ModelConfig):
        Linear.__init__(self, config.width, config.vocab_size, bias=False)
        self.cap = config.logit_cap

    def forward(self, hidden: Tensor) -> Tensor:
        return soft_cap(self.project(hidden), self.cap)  # (…, V)

    def unembedding(self) -> Tensor:
        return self.weight  # (V, C)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The same by the kernel that is fastest on the device."""
        rows, answers = in_autocast_type(hidden).flatten(0, 1), targets.flatten()  # (N, C), (N)
        total = head_loss(rows, self.weight, answers, IGNORE, CHUNK, self.cap)  # ()
        return total / (answers != IGNORE).sum()  # ()


def build_head(config: ModelConfig) -> Head:
    return part("head", config.head.kind)(config)
