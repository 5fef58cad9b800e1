"""Heads: the losses that every head has by default equal those of the fused one, and never hold all logits at once."""

import pytest
import torch

from config import ModelConfig
from modules.heads import Head, LinearHead
from modules.losses import CHUNK, IGNORE
from tests.helpers.measures import LargestTensor

pytestmark = pytest.mark.usefixtures("seeded")

CONFIG = ModelConfig(vocab_size=97, width=10, n_heads=1)


CAPPED = CONFIG.replace(logit_cap=2.0)


class MatrixHead(Head):
    """A linear head that has nothing but its formula."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        self.capped = config.logit_cap is not None
        self.weight = torch.nn.Parameter(torch.randn(config.vocab_size, config.width))

    def forward(self, hidden):
        logits = hidden @ self.weight.T
        return 2 * (logits / 2).tanh() if self.capped else logits


def heads(config: ModelConfig = CONFIG) -> tuple[Head, Head]:
    plain, fused = MatrixHead(config), LinearHead(config)
    fused.tie(plain.weight)
    return plain, fused


@pytest.mark.parametrize("config", [CONFIG, CAPPED], ids=["plain", "capped"])
@pytest.mark.parametrize("length", [1, 7, CHUNK + 5])
def test_default_losses_equal_the_fused_ones(length, config):
    hidden, targets = torch.randn(2, length, 10), torch.randint(97, (2, length))
    targets[1, 0] = IGNORE
    results = []
    for head in heads(config):
        x = hidden.clone().requires_grad_()
        loss = head.loss(x, targets)
        each = head.token_losses(hidden, targets)
        results.append([loss.detach(), each, *torch.autograd.grad(loss, (x, head.weight))])
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-6)


def test_the_default_loss_never_holds_all_logits():
    hidden, targets = torch.randn(2, CHUNK + 5, 10, requires_grad=True), torch.randint(97, (2, CHUNK + 5))
    with LargestTensor() as seen:
        heads()[0].loss(hidden, targets).backward()
    assert seen.numel <= CHUNK * 97
