"""Multi-token prediction: each head is a network on the common trunk, and only one is computed at a time."""

import re

import pytest
import torch
from torch.nn import functional as F

from config import ModelConfig, MultiTokenBlockConfig
from modules import multi_token, transformer
from modules.losses import CHUNK
from modules.transformer import Transformer
from settings.errors import ConfigError
from tests.helpers.measures import LargestTensor, peak_bytes
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")

TRUNK, HEADS = 2, 4  # layers
FURTHER = range(2, HEADS + 1)
SIZES = dict(vocab_size=11, context_length=9, n_heads=2, width=8)


def config_of(heads: int = HEADS, trunk: int = TRUNK, **changes) -> ModelConfig:
    block = MultiTokenBlockConfig(heads=heads, loss_weight=0.7)
    return vary("multi-token", **SIZES | dict(n_layers=trunk + heads, block=block) | changes)


def stirred(config: ModelConfig) -> Transformer:
    """In float64, no weight trivial."""
    model = Transformer(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def layer_of(offset: int) -> int:
    """The furthest head comes first."""
    return TRUNK + HEADS - offset


def llama_with_head(model: Transformer, offset: int) -> Transformer:
    """The trunk, and the layer of that head alone, as a plain llama."""
    plain = Transformer(vary("llama", **SIZES, n_layers=TRUNK + 1)).double()
    layers, weights = [*range(TRUNK), layer_of(offset)], {}
    own = {f"blocks.{theirs}.": f"blocks.{i}." for i, theirs in enumerate(layers)}
    for name, value in model.state_dict().items():
        prefix = re.match(r"(blocks\.\d+\.)?", name)[0]
        if not prefix or prefix in own:
            weights[own.get(prefix, "") + name.removeprefix(prefix)] = value
    plain.load_state_dict(weights)
    return plain


def windows_of(length: int = SIZES["context_length"] + 1, batch: int = 3) -> torch.Tensor:
    return torch.randint(SIZES["vocab_size"], (batch, length))


# --- what the heads compute -------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [10, 5])
@pytest.mark.parametrize("offset", range(1, HEADS + 1))
def test_a_heads_loss_is_the_cross_entropy_of_its_own_network(offset, length):
    model, windows = stirred(config_of()), windows_of(length)
    log_p = llama_with_head(model, offset)(windows[:, :-1]).log_softmax(-1)
    expected = [-log_p[row, at, windows[row, at + offset]] for row in range(3) for at in range(length - offset)]
    loss = model.losses(windows)["loss" if offset == 1 else f"ahead_{offset}"]
    assert loss.item() == pytest.approx(sum(expected).item() / len(expected), rel=1e-6)  # summed up in float32


def test_where_the_text_is_too_short_for_a_head_its_loss_is_0():
    model = stirred(config_of())
    losses = model.losses(windows_of(length=3))
    assert losses["ahead_2"] > 0 and losses["ahead_3"] == losses["ahead_4"] == 0
    model.objective(losses).backward()
    assert all(parameter.grad is None for offset in (3, 4) for parameter in model.blocks[layer_of(offset)].parameters())


def test_a_pass_gives_what_the_first_head_gives():
    model, windows = stirred(config_of()), windows_of()
    torch.testing.assert_close(model(windows), llama_with_head(model, offset=1)(windows))


def test_the_objective_weighs_the_further_losses():
    model = stirred(config_of())
    losses = model.losses(windows_of())
    assert list(losses) == ["loss", *(f"ahead_{offset}" for offset in FURTHER)]
    expected = losses["loss"] + 0.7 * sum(losses[f"ahead_{offset}"] for offset in FURTHER)
    torch.testing.assert_close(model.objective(losses), expected)


def test_one_head_is_the_plain_llama():
    plain, model = stirred(vary("llama", **SIZES, n_layers=3)), stirred(config_of(heads=1))
    model.load_state_dict(plain.state_dict())
    windows = windows_of()
    assert torch.equal(model(windows), plain(windows))
    for network in (model, plain):
        losses = network.losses(windows)
        assert list(losses) == ["loss"]
        network.objective(losses).backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name


# --- what they learn from -------------------------------------------------------------------------------------------


def gradients(model: Transformer, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return dict(zip(dict(model.named_parameters()), found, strict=True))


@pytest.mark.parametrize("offset", range(1, HEADS + 1))
def test_heads_share_the_trunk_the_norm_and_the_unembedding_alone(offset):
    model = stirred(config_of(tie_weights=False))
    found = gradients(model, model.losses(windows_of())["loss" if offset == 1 else f"ahead_{offset}"])
    others = tuple(f"blocks.{layer_of(other)}." for other in range(1, HEADS + 1) if other != offset)
    learning = {name for name, gradient in found.items() if gradient is not None}
    assert learning == {name for name in found if not name.startswith(others)}
    assert all(found[name].abs().max() > 1e-9 for name in learning)


def test_gradients_of_one_head_after_another_equal_those_of_all_at_once(monkeypatch):
    model, windows = stirred(config_of()), windows_of()
    together = gradients(model, model.objective(model.losses(windows)))
    one_by_one = dict.fromkeys(together, 0.0)
    for name, weight in model.loss_weights.items():
        for parameter, gradient in gradients(model, weight * model.losses(windows)[name]).items():
            one_by_one[parameter] += 0 if gradient is None else gradient
    without_checkpoints(monkeypatch)
    all_at_once = gradients(model, model.objective(model.losses(windows)))
    for name, expected in all_at_once.items():
        torch.testing.assert_close(together[name], expected)
        torch.testing.assert_close(one_by_one[name], expected)


def plainly(function, *inputs, use_reentrant, **named):
    return function(*inputs, **named)


def without_checkpoints(monkeypatch) -> None:
    for module in (multi_token, transformer):
        monkeypatch.setattr(module, "checkpoint", plainly)


# --- what they take -------------------------------------------------------------------------------------------------


def training_peak(heads: int) -> int:
    """Peak bytes of the losses and their backward pass, in a model where activations take most of the memory."""
    model = Transformer(config_of(heads, trunk=8, vocab_size=61, width=16, context_length=128))
    windows = torch.randint(61, (8, 129))
    return peak_bytes(lambda: model.objective(model.losses(windows)).backward())


def test_further_heads_add_little_to_the_fullest_moment(monkeypatch):
    """Four heads need the activations of one further head, and not those of three more layers."""
    one, four = training_peak(heads=1), training_peak(heads=4)
    without_checkpoints(monkeypatch)
    at_once = training_peak(heads=4)
    assert four < 1.2 * one
    assert at_once > 1.3 * one  # 12 layers' activations to 9


def test_the_logits_of_the_heads_never_exist_all_at_once():
    model, batch = Transformer(config_of(vocab_size=301)), 2 * CHUNK // SIZES["context_length"] + 5
    windows = torch.randint(301, (batch, SIZES["context_length"] + 1))
    with LargestTensor() as ours:
        model.objective(model.losses(windows)).backward()
    with LargestTensor() as theirs:
        F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
    assert ours.numel == CHUNK * 301 < theirs.numel == batch * SIZES["context_length"] * 301


# --- settings that make no sense --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    (
        (dict(heads=0), "from 1 to 8, not 0"),
        (dict(heads=9), "from 1 to 8, not 9"),
        (dict(loss_weight=0.0), "loss_weight must be a finite number above 0, not 0"),
        (dict(loss_weight=-1.0), "loss_weight must be a finite number above 0, not -1"),
    ),
)
def test_impossible_heads_are_an_error(changes, message):
    with pytest.raises(ConfigError, match=message):
        MultiTokenBlockConfig(**changes)


def test_every_head_needs_a_layer_and_the_trunk_one_too():
    with pytest.raises(ConfigError, match=re.escape("n_layers=5 or more (a trunk, a layer for each head), not 4")):
        config_of(heads=4, trunk=0)
    assert Transformer(config_of(heads=4, trunk=1)).blocks[0].offset == 0


def test_heads_look_no_further_than_the_context():
    with pytest.raises(ConfigError, match="4 heads look as far as context_length=4"):
        config_of(context_length=4)
