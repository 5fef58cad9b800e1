"""Passes without numbers leave no trace, and say which module they can't go through."""

import gc

import pytest
import torch

from config import TrainConfig, preset
from lab.costs.memory import Memory
from lab.costs.passes import count_flops, run_decoding, run_step
from modules.mlp import GatedMLP
from settings.errors import ConfigError, IdeaError

MODEL, TRAIN = preset("llama-tiny").model, TrainConfig(batch_size=2)


def fullest(*settings) -> Memory:
    """Of a step with these settings on the CPU in float32."""
    return Memory.at_fullest(run_step(*settings, "fp32", "cpu").by_moment())


def test_random_numbers_and_the_collector_are_as_before():
    before = torch.get_rng_state()
    run_step(MODEL, TRAIN, "bf16", "cpu"), run_decoding(MODEL, 1, 8), count_flops(MODEL, True)
    assert torch.equal(torch.get_rng_state(), before) and gc.isenabled()


def test_all_parts_of_the_memory_are_told_apart():
    model, train = MODEL.replace(vocab_size=300), TRAIN.replace(gradient_checkpointing=True, optimizer="adamw")
    found = fullest(model, train).parts()
    parameters = 658_048 - (2048 - 300) * 128
    tables = 2 * 512 * 64  # cosines and sines
    assert found["weights"] == 4 * (parameters + tables)
    assert 8 * parameters <= found["optimizer"] <= 8 * parameters + 4 * 20  # and a number of steps for each
    assert found.keys() == {"weights", "optimizer", "activations", "temporary", "gradients"}
    hidden = parameters - 300 * 128 - (2 * MODEL.n_layers + 1) * 128  # all but the embedding and the norms
    muon = fullest(model, train.replace(optimizer="muon"))
    assert found["optimizer"] - muon.optimizer == 4 * (hidden + 4 * MODEL.n_layers), "one moment, and no counter"


@pytest.mark.parametrize(
    "changes, checkpointing, moment",
    (
        (dict(), False, "the loss"),
        (dict(vocab_size=300), True, "the backward pass of blocks.0.mlp"),  # block 1 has left its gradients
        (dict(vocab_size=20_000, context_length=8), False, "the backward pass of embedding"),
    ),
)
def test_the_fullest_moment_is_told(changes, checkpointing, moment):
    train = TRAIN.replace(gradient_checkpointing=checkpointing)
    assert fullest(MODEL.replace(**changes), train).moment == moment


@pytest.mark.parametrize("what", ("item", "if"))
@pytest.mark.parametrize("measure", (lambda: count_flops(MODEL, False), lambda: run_step(MODEL, TRAIN, "fp32", "cpu")))
def test_a_part_that_looks_at_numbers_is_named(monkeypatch, measure, what):
    forward = GatedMLP.forward

    def look(self, x):
        if what == "item":
            x.sum().item()
        elif x.sum() > 0:
            x = -x
        return forward(self, x)

    monkeypatch.setattr(GatedMLP, "forward", look)
    with pytest.raises(IdeaError, match=r"costs of blocks\.0\.mlp can't be measured: .*must not depend on values"):
        measure()


def test_cuda_needs_a_pytorch_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ConfigError, match="built without CUDA"):
        run_step(MODEL, TRAIN, "fp32", "cuda")
