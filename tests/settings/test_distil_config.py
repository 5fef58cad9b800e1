"""The settings of a distillation: which layers are matched, what is impossible, how they are written."""

import json

import pytest

from config import DistilConfig, TrainConfig
from settings.errors import ConfigError


@pytest.mark.parametrize(
    "student, teacher, layers",
    [(2, 4, (2, 4)), (3, 4, (2, 3, 4)), (1, 6, (6,)), (4, 2, (1, 1, 2, 2)), (3, 3, (1, 2, 3))],
)
def test_layers_are_matched_evenly_and_the_last_with_the_last(student, teacher, layers):
    found = DistilConfig(teacher="run").matched_layers(student, teacher)
    assert found == dict(enumerate(layers, start=1))


def test_layers_are_matched_as_given_and_0_with_none():
    assert DistilConfig(teacher="run", layers=(0, 3, 3)).matched_layers(3, 4) == {2: 3, 3: 3}
    assert DistilConfig(teacher="run", hidden_weight=0.0).matched_layers(3, 4) == {}


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(teacher=" "), "teacher is empty"),
        (dict(next_token_weight=0.0, logits_weight=0.0), "nothing trains the head"),
        (dict(mode="blocks", hidden_weight=0.0), "would leave all blocks of mode 'blocks' untrained"),
        (dict(logits_weight=0.0, hidden_weight=0.0), "nothing comes from the teacher"),
        (dict(hidden_weight=0.0, layers=(1, 2)), "hidden_weight=0 matches no layers: leave layers out"),
        (dict(logits_weight=0.0, temperature=3.0), "logits_weight=0 leaves temperature=3 without use"),
        (dict(layers=(0, 0)), "layers matches no layer"),
        (dict(layers=(3, 0, 2)), r"layers=\[3, 0, 2\] must not fall"),
        (dict(mode="blocks", layers=(0, 2)), r"mode 'blocks' needs a further layer .* not layers=\[0, 2\]"),
        (dict(mode="blocks", layers=(2, 2)), r"mode 'blocks' needs a further layer .* not layers=\[2, 2\]"),
        (dict(mode="half"), "mode"),
        (dict(temperature=0.0), "temperature"),
    ],
)
def test_what_is_impossible_is_refused_with_its_remedy(changes, said):
    with pytest.raises(ConfigError, match=said):
        DistilConfig(**dict(teacher="run") | changes)


def test_settings_of_a_training_are_written_and_read_exactly():
    train = TrainConfig(distil=DistilConfig(teacher="run", layers=(1, 3), temperature=1.5))
    assert TrainConfig.from_json(train.to_json()) == train
    assert TrainConfig.from_json(TrainConfig().to_json()) == TrainConfig()


def test_settings_of_runs_made_before_there_was_distillation_are_read():
    older = TrainConfig().to_dict()
    assert "distil" not in older and TrainConfig.from_json(json.dumps(older)) == TrainConfig()
