"""The classification head: what it reads, what trains, and that texts in a batch do not disturb each other."""

import pytest
import torch
from torch.nn import functional as F

from config import DropoutConfig, ModelConfig
from modules.classifier import Classifier
from modules.transformer import Transformer
from tests.helpers.variants import VARIANTS, vary
from tracing.traces import Trace

pytestmark = pytest.mark.usefixtures("seeded")
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))
LENGTHS = torch.tensor([13, 2, 5, 7, 1])
N_CLASSES = 3


def build(config: ModelConfig, full: bool = False) -> Classifier:
    """Weights larger than at the start of a training, so that a broken law shows above the rounding."""
    torch.manual_seed(1)
    module = Classifier(Transformer(config), N_CLASSES, full)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def texts(config: ModelConfig) -> torch.Tensor:
    """Rows (B, T); what stands behind LENGTHS is padding."""
    return torch.randint(config.vocab_size, (len(LENGTHS), 13))


@EVERY_VARIANT
def test_a_text_is_classified_alone_as_in_any_batch_whatever_the_padding_holds(config):
    module = build(config).double()
    tokens = texts(config)
    together = module(tokens, LENGTHS)
    for row, length, logits in zip(tokens, LENGTHS, together):
        alone = module(row[None, :length], length[None])
        torch.testing.assert_close(logits[None], alone, rtol=0, atol=1e-10)
    padded = torch.where(torch.arange(13) < LENGTHS[:, None], tokens, (tokens + 7) % config.vocab_size)
    torch.testing.assert_close(module(padded, LENGTHS), together, rtol=0, atol=1e-10)


@EVERY_VARIANT
def test_the_logits_are_a_linear_map_of_what_the_models_own_head_reads(config):
    module = build(config)
    tokens = texts(config)
    rows = [module.trunk.hidden(tokens)[i, length - 1] for i, length in enumerate(LENGTHS)]
    expected = torch.stack(rows) @ module.head.weight.T + module.head.bias
    torch.testing.assert_close(module(tokens, LENGTHS), expected, rtol=1e-5, atol=1e-5)


@EVERY_VARIANT
@pytest.mark.parametrize("full", [False, True])
def test_gradients_reach_exactly_the_parameters_that_train(config, full):
    module = build(config, full)
    F.cross_entropy(module(texts(config), LENGTHS), torch.tensor([0, 1, 2, 0, 1])).backward()
    reached = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    training = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert reached == training
    assert all(dict(module.named_parameters())[name].grad.any() for name in reached)
    if not full:
        assert training == {"head.weight", "head.bias"}
        return
    own_head = {f"trunk.head.{name}" for name, _ in module.trunk.head.named_parameters()}
    assert not training & own_head  # a tied one is listed as the embedding
    assert "trunk.embedding.weight" in training
    left_out = {name for name, _ in module.named_parameters()} - training - own_head
    further = [block for block in module.trunk.blocks if not block.predicts_next]
    assert all("foresight.norm" in name for name in left_out) or further


@EVERY_VARIANT
def test_every_comment_is_true(config):
    module = build(config)
    with Trace(module) as shapes:
        module(texts(config), LENGTHS)
    assert shapes.mismatches() == []
    own = [row for row in shapes if row.kind == "statement" and row.owner.startswith("Classifier.")]
    assert len(own) == 4 and all(row.claim is not None for row in own)


@pytest.mark.parametrize("full", [False, True])
def test_a_frozen_trunk_drops_nothing_out_and_one_that_trains_does(full):
    rates = DropoutConfig(embedding=0.3, attention=0.3, residual=0.3)
    module = build(vary("llama", dropout=rates), full).train()
    tokens = texts(module.trunk.config)
    same = torch.equal(module(tokens, LENGTHS), module(tokens, LENGTHS))
    assert same is not full
    assert module.training and module.trunk.training is full


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "factored-alibi", "future", "multi-token"])
def test_one_batch_is_memorised(architecture):
    torch.manual_seed(0)
    module = Classifier(Transformer(vary(architecture)), N_CLASSES, full=True).train()
    tokens, labels = texts(module.trunk.config), torch.tensor([0, 1, 2, 0, 1])
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        loss = F.cross_entropy(module(tokens, LENGTHS), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
