"""The optimizer against plain references, and which parameters it updates how."""

import math

import pytest
import torch
from torch import nn

from config import ARCHITECTURES, LoRAConfig, ModelConfig, TrainConfig
from lab.compute.muon import Muon
from lab.compute.muon import orthogonal as iterated
from lab.compute.optimizer import build_optimizer, matrices_of_muon, update
from modules.transformer import Transformer
from settings.errors import ConfigError

SMALL = ModelConfig(vocab_size=11, context_length=8, n_layers=6, n_heads=2, width=8)
RATE, DECAY = 0.02, 0.1


def model_of(architecture: str) -> Transformer:
    return Transformer(SMALL.replace(**ARCHITECTURES[architecture] | (
        {"block": ARCHITECTURES["future"]["block"].replace(levels=2)} if architecture == "future" else {}
    )))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Jordan's quintic iteration, five times, in float64, on the wide orientation."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).double()
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


def test_muon_follows_its_equations_and_adamw_its_own(seeded):
    config = TrainConfig(optimizer="muon", learning_rate=RATE, weight_decay=DECAY, muon_rate=0.5, muon_momentum=0.9)
    model = model_of("llama")
    optimizer = build_optimizer(model, config)
    hidden = {id(p) for p in matrices_of_muon(model, config)}
    plain = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    momentum = {name: torch.zeros_like(p) for name, p in plain.items()}
    first, second = ({name: torch.zeros_like(p) for name, p in plain.items()} for _ in range(2))
    for step in (1, 2, 3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            gradient, old = parameter.grad.double(), plain[name]
            if id(parameter) in hidden:
                momentum[name] = 0.9 * momentum[name] + 0.1 * gradient
                direction = orthogonal(0.1 * gradient + 0.9 * momentum[name])
                rate = 0.5 * RATE
                plain[name] = old * (1 - rate * DECAY) - rate * 0.2 * math.sqrt(max(old.shape)) * direction
            else:
                first[name] = config.beta1 * first[name] + (1 - config.beta1) * gradient
                second[name] = config.beta2 * second[name] + (1 - config.beta2) * gradient**2
                ratio = (first[name] / (1 - config.beta1**step)) / (
                    (second[name] / (1 - config.beta2**step)).sqrt() + 1e-8
                )
                plain[name] = old * (1 - RATE * (DECAY if old.dim() >= 2 else 0)) - RATE * ratio
        update(optimizer, RATE)
    for name, parameter in model.named_parameters():
        assert (parameter.double() - plain[name]).abs().max() < 1e-6, name
        assert parameter.grad is None


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_muon_has_the_linear_maps_of_every_block_and_adamw_all_else(architecture):
    model = model_of(architecture)
    hidden = {id(p) for p in matrices_of_muon(model, TrainConfig(optimizer="muon"))}
    names = {name for name, p in model.named_parameters() if id(p) in hidden}
    linear = {f"{path}.weight" for path, module in model.blocks.named_modules() if isinstance(module, nn.Linear)}
    assert names == {f"blocks.{name}" for name in linear}
    assert not any(word in name for name in names for word in ("norm", "gain", "alpha", "mixing", "embedding", "head."))
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon"))
    updated = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(updated) == sorted(map(id, model.parameters())), "every parameter once"


def test_a_dense_mixing_is_a_hidden_matrix():
    model = Transformer(SMALL.replace(
        position=ARCHITECTURES["factored"]["position"],
        block=ARCHITECTURES["factored"]["block"].replace(value_mixing="dense", output_mixing="independent"),
    ))
    hidden = {id(p) for p in matrices_of_muon(model, TrainConfig(optimizer="muon"))}
    mixings = {name: id(p) in hidden for name, p in model.named_parameters() if "mixing" in name and "blocks.0" in name}
    assert sorted(mixings.values()) == [False, True]


def test_the_optimizer_follows_the_model_unless_it_is_set():
    adapter = SMALL.replace(lora=LoRAConfig(rank=2))
    assert TrainConfig().settled(SMALL).optimizer == "muon"
    assert TrainConfig().settled(adapter).optimizer == "adamw"
    assert isinstance(build_optimizer(Transformer(adapter), TrainConfig()), torch.optim.AdamW)
    with pytest.raises(ConfigError, match=r"hidden matrices, and this model trains none.*'adamw'"):
        build_optimizer(Transformer(adapter), TrainConfig(optimizer="muon"))


def test_settings_of_earlier_versions_mean_adamw():
    values = TrainConfig().settled(SMALL).to_dict()
    for name in ("optimizer", "muon_rate", "muon_momentum"):
        del values[name]
    assert TrainConfig.from_dict(values).optimizer == "adamw"


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_muon_of_many_matrices_at_once_is_torchs_own(seeded, shape):
    ours, theirs = ([nn.Parameter(torch.randn(shape)) for _ in range(3)] for _ in range(2))
    starts = [mine.detach().clone() for mine in ours]
    for other, start in zip(theirs, starts):
        other.data.copy_(start)
    settings = dict(lr=0.05, weight_decay=0.1, momentum=0.9)
    optimizers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for mine, other in zip(ours, theirs):
            mine.grad = torch.randn(shape)
            other.grad = mine.grad.clone()
        with torch.autocast("cpu", torch.bfloat16):
            optimizers[0].step()
        optimizers[1].step()
    for mine, other, start in zip(ours, theirs, starts):
        assert (mine - other).norm() < 0.02 * (other - start).norm(), "but for bfloat16's rounding"
        momenta = [o.state[p]["momentum_buffer"] for o, p in zip(optimizers, (mine, other))]
        torch.testing.assert_close(*momenta, rtol=1e-6, atol=1e-7)


def nearly_alike(shape: tuple[int, int]) -> torch.Tensor:
    """A matrix whose rows differ little from each other, beside four large ones: its singular values lie far apart."""
    rows = 1e-3 * torch.randn(shape) + torch.randn(1, shape[1])
    rows[:4] *= 100
    return rows


@pytest.mark.parametrize("make", (torch.randn, nearly_alike), ids=("random", "nearly alike"))
@pytest.mark.parametrize("shape", [(64, 64), (64, 176), (192, 64), (352, 64)])
def test_rounding_to_bfloat16_does_not_grow_in_the_iteration(seeded, shape, make):
    matrices = torch.stack([make(shape) for _ in range(4)])
    with torch.autocast("cpu", torch.bfloat16):
        found = iterated(matrices, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    for matrix, one in zip(matrices.bfloat16(), found):
        assert torch.linalg.svdvals(one.float()).max() < 1.22  # the quintic's own largest value is 1.2
        if make is torch.randn:
            assert (one - orthogonal(matrix)).norm() < 0.03 * one.norm()


def test_matrices_without_a_gradient_stay_as_they_are(seeded):
    model = model_of("llama")
    optimizer, first = build_optimizer(model, TrainConfig(optimizer="muon")), model.blocks[0].mlp.down.weight
    before = first.detach().clone()
    for parameter in model.parameters():
        parameter.grad = None if parameter is first else torch.ones_like(parameter)
    update(optimizer, RATE)
    assert torch.equal(first, before) and first not in optimizer.state
