"""Deep models counted on shorter ones, against the count of all their layers."""

import pytest

from config import ARCHITECTURES, FutureBlockConfig, ModelConfig, MultiTokenBlockConfig, TrainConfig
from lab.costs.estimates import sequence_flops
from lab.costs.layers import FEW, alike_layers
from lab.costs.memory import Memory, step_bytes
from lab.costs.passes import count_flops, run_step
from modules.residual import ResidualBlock

DEEP = {"future": 9, "multi-token": 9}  # layers where the last ones differ: five of them are alike


def deep(architecture: str, **changes) -> ModelConfig:
    return ModelConfig(
        **{"vocab_size": 300, "context_length": 48, "n_layers": DEEP.get(architecture, 6), "n_heads": 2, "width": 32}
        | ARCHITECTURES[architecture] | changes
    )


ALIKE = {"vanilla", "alibi", "factored-alibi"}  # they have the layers of another one but for positions and biases
MODELS = {name: deep(name) for name in ARCHITECTURES if name not in ALIKE} | {
    "future, two levels": deep("future", block=FutureBlockConfig(levels=2)),
    "two heads": deep("multi-token", block=MultiTokenBlockConfig(heads=2)),
}
TRAININGS = {
    "muon": dict(precision="bf16"),
    "adamw, in parts": dict(optimizer="adamw", micro_batch_size=2, precision="fp32"),
    "checkpointed": dict(gradient_checkpointing=True, precision="fp32"),
}


CASES = [(name, [*TRAININGS][i % len(TRAININGS)]) for i, name in enumerate(MODELS)]


@pytest.mark.parametrize("name, settings", CASES)
def test_a_deep_model_is_counted_to_the_byte(name, settings):
    """At each moment that both name, all kinds of memory are the same; and no other moment takes more."""
    config, train = MODELS[name], TrainConfig(batch_size=6, **TRAININGS[settings])
    assert alike_layers(config)[1] >= FEW
    whole = run_step(config, train, train.precision, "cpu").by_moment()
    counted = step_bytes(config, train, train.precision, "cpu")
    assert len(counted) >= 6
    for moment, kinds in counted.items():
        assert {kind: size for kind, size in kinds.items() if size} == whole[moment]
    assert Memory.at_fullest(counted) == Memory.at_fullest(whole)
    assert tuple(sequence_flops(config, train.gradient_checkpointing)) == count_flops(
        config, train.gradient_checkpointing
    )


def test_a_model_whose_layers_differ_is_counted_as_a_whole(monkeypatch):
    made, build = iter(range(10**6)), ResidualBlock.__init__

    def build_every_other(self, *arguments, **keywords):
        build(self, *arguments, **keywords)
        self.kind_of_layer = next(made) % 2

    monkeypatch.setattr(ResidualBlock, "__init__", build_every_other)
    config = deep("llama", n_layers=8, width=48)
    assert alike_layers(config) == [0, 0]
    assert tuple(sequence_flops(config, False)) == count_flops(config, False)


def test_a_shallow_model_is_counted_as_a_whole():
    assert alike_layers(deep("llama", n_layers=FEW - 1)) == [0, 0]
