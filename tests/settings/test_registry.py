"""The registry of kinds: names, settings and classes; what is refused, and what an unknown name is told."""

import importlib
from typing import Literal

import pytest

from config import HeadConfig, ModelConfig, NormConfig, PositionConfig, RoPEConfig, preset
from settings.checked import settings
from settings.errors import ConfigError, IdeaError
from settings.kinds_used import ideas_missing, ideas_used, kinds_named
from settings.registry import FAMILIES, REGISTRY, kind, kinds_of, part, register
from settings.types import Positive
from tests.helpers.registry import registry_restored


@pytest.fixture(autouse=True)
def restored():
    with registry_restored():
        yield


class Part:
    """A part that computes something."""

    def forward(self, x):
        return x

    embed = place = forward


def test_every_family_has_built_in_kinds():
    assert set(FAMILIES) == REGISTRY.kinds.keys()
    assert all(any(kind(family, name).built_in for name in kinds_of(family)) for family in FAMILIES)


def test_a_kind_without_settings_is_named_in_those_of_its_family():
    register("norm", "mine")(Part)
    assert part("norm", "mine") is Part and not kind("norm", "mine").built_in
    config = ModelConfig(vocab_size=10, norm=NormConfig(kind="mine", eps=0.5))
    assert ModelConfig.from_json(config.to_json()) == config
    assert ideas_used(config) == [("norm", "mine")]
    register("position", "mine")(Part)
    config = ModelConfig.from_dict({"vocab_size": 10, "position": {"kind": "mine"}})
    assert config.position == PositionConfig(kind="mine")


def test_a_kind_with_settings_is_made_from_them_and_read_as_them():
    @settings
    class WaveConfig(PositionConfig):
        kind: Literal["wave"] = "wave"
        period: Positive = 8.0

    register("position", "wave")(Part)
    config = ModelConfig(vocab_size=10, position=WaveConfig(period=3))
    again = ModelConfig.from_json(config.to_json())
    assert again == config and type(again.position) is WaveConfig and again.position.period == 3.0
    assert ideas_used(config) == [("position", "wave")]
    with pytest.raises(ConfigError, match=r"has settings of its own: WaveConfig"):
        PositionConfig(kind="wave")
    with pytest.raises(ConfigError, match=r"period must be a finite number above 0"):
        ModelConfig.from_dict({"vocab_size": 10, "position": {"kind": "wave", "period": -1}})


def test_built_in_models_use_no_ideas():
    assert ideas_used(ModelConfig(vocab_size=10)) == []


@pytest.mark.parametrize(
    "family, name, message",
    [
        ("norms", "mine", "unknown family 'norms'.*did you mean 'norm'"),
        ("norm", "my norm", "letters, digits and _"),
        ("norm", 3, "letters, digits and _"),
        ("norm", "rms", "Part: norm 'rms' is built in; take another name"),
    ],
)
def test_names_that_are_refused(family, name, message):
    import modules.norms  # noqa: F401  # attaches the built-in classes

    with pytest.raises(IdeaError, match=message):
        register(family, name)(Part)


def test_settings_for_a_built_in_kind_are_refused():
    with pytest.raises(IdeaError, match="Mine: position 'rope' is built in; take another name"):

        @settings
        class Mine(PositionConfig):
            kind: Literal["rope"] = "rope"

    assert kind("position", "rope").settings is RoPEConfig


def test_a_name_that_another_idea_has_is_refused():
    register("norm", "mine")(Part)
    with pytest.raises(IdeaError, match="Other: norm 'mine' is already Part; take another name"):

        @register("norm", "mine")
        class Other(Part):
            pass


def test_a_cell_that_is_run_again_replaces_its_own_class():
    def cell():
        @register("norm", "mine")
        class Mine(Part):
            pass

        return Mine

    first, second = cell(), cell()
    assert part("norm", "mine") is second is not first


BASES = {
    "position": ("modules.positions", "Position", "embed or place"),
    "pool": ("modules.pools", "Pool", "pool or reduce"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_that_computes_nothing_is_refused(family):
    module, base, methods = BASES.get(family, ("torch.nn", "Module", "forward"))
    base = getattr(importlib.import_module(module), base)
    with pytest.raises(IdeaError, match=rf"Silent has no {methods}\(\); a {family} says there what it computes"):

        @register(family, "silent")
        class Silent(base):
            pass

    assert "silent" not in kinds_of(family)


def test_ideas_are_loaded_when_an_unknown_name_is_asked_for_and_only_once():
    loads = []

    def load():
        loads.append(1)
        register("head", "late")(Part)

    REGISTRY.load_ideas = load
    assert NormConfig(kind="layer") and not loads, "built-in kinds need no ideas"
    assert HeadConfig(kind="late").kind == "late" and loads == [1]
    with pytest.raises(ConfigError, match=r"unknown kind 'latr' of head; did you mean 'late'"):
        HeadConfig(kind="latr")
    assert loads == [1]


def test_settings_tell_which_ideas_are_missing():
    values = ModelConfig(vocab_size=10).to_dict()
    assert ideas_missing(values, ModelConfig) == []
    values["norm"]["kind"], values["mlp"]["activation"], values["block"] = "a", "b", {"kind": "c", "depth": 3}
    assert ideas_missing(values, ModelConfig) == [("norm", "a"), ("activation", "b"), ("block", "c")]


def test_all_kinds_that_settings_name_are_found():
    config = preset("factored-alibi-tiny").model
    assert set(kinds_named(config.to_dict(), ModelConfig)) == {
        ("norm", "layer"), ("activation", "gelu_tanh"), ("position", "alibi"), ("block", "factored"),
        ("mixing", "kronecker"), ("head", "linear"),
    }
