"""A text classifier: a transformer whose hidden state at a text's last token gives the logits of its class."""

import torch
from torch import Tensor, nn

from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.transformer import Transformer


class Classifier(LoggingModule):
    """logits = W · h + b, where h is what the model's own head reads at a text's last token (Radford et al. 2018).

        tokens (B, T) ─ trunk.hidden ─ the last token's (B, C) ─ head ─ logits (B, L)

    The paper is "Improving language understanding by generative pre-training", section 3.2. Frozen, only W and b train,
    and the trunk stays in eval mode. With full=True every parameter trains that h depends on: not the trunk's own head,
    unless it is the embedding, and not what only serves further losses.

    trunk: the model; its `requires_grad` flags are set here. n_classes: L.
    """

    axis_letters = {"L": "labels of a classifier"}

    def __init__(self, trunk: Transformer, n_classes: int, full: bool = False):
        super().__init__()
        self.trunk, self.full = trunk, full
        self.head = Linear(trunk.config.width, n_classes, bias=True)
        nn.init.normal_(self.head.weight, std=trunk.config.init_std)
        nn.init.zeros_(self.head.bias)
        needed = parameters_of_hidden(trunk.requires_grad_(True)) if full else []
        trunk.requires_grad_(False)
        for parameter in needed:
            parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> "Classifier":
        """Sets the mode of every part; a frozen trunk stays in eval mode, so that it drops nothing out."""
        super().train(mode)
        if not self.full:
            self.trunk.eval()
        return self

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, L) of texts whose `lengths` (B) first tokens of each row of tokens (B, T) count.

        No state depends on a later token, so what stands behind a text changes nothing.
        """
        return self.head(self.features(tokens, lengths))  # (B, L)

    def features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The hidden state of each text's last token: (B, C)."""
        hidden = self.trunk.hidden(tokens)  # (B, T, C)
        rows = torch.arange(len(tokens), device=tokens.device)  # (B)
        return hidden[rows, lengths - 1]  # (B, C)


def parameters_of_hidden(model: Transformer) -> list[nn.Parameter]:
    """The parameters that what the model's head reads depends on."""
    parameters = list(model.parameters())
    tokens = torch.zeros(1, 2, dtype=torch.long, device=parameters[0].device)  # (B, T)
    with torch.enable_grad():
        found = torch.autograd.grad(model.hidden(tokens).sum(), parameters, allow_unused=True)
    return [parameter for parameter, gradient in zip(parameters, found) if gradient is not None]
