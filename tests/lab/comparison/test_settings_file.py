"""Settings in a JSON file: what it leaves out follows the preset, and what it writes comes back."""

import json

import pytest

from config import ALiBiConfig, DataConfig, FactoredBlockConfig, Preset, preset
from lab.comparison.settings_file import read_settings, write_settings
from settings.errors import ConfigError
from settings.mixture import MixtureConfig


def file_of(tmp_path, values) -> str:
    path = tmp_path / "settings.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(path)


def test_what_the_file_leaves_out_follows_the_preset(tmp_path):
    values = {"preset": "gpt2-tiny", "model": {"n_layers": 3, "position": {"kind": "alibi"}}, "train": {"steps": 7}}
    model, train = preset("gpt2-tiny")
    expected = Preset(model.replace(n_layers=3, position=ALiBiConfig()), train.replace(steps=7))
    assert read_settings(file_of(tmp_path, values)) == ("gpt2-tiny", expected)


def test_without_a_preset_the_default_holds(tmp_path):
    path = file_of(tmp_path, {"train": {"data": {"tokenizer": "byte"}}})
    name, found = read_settings(path, "llama-small")
    assert name == "llama-small" and found.model == preset("llama-small").model.replace(vocab_size=257)


@pytest.mark.parametrize("name", ["llama-tiny", "factored-alibi-128x4", "future-small", "gpt2-124m"])
def test_all_settings_come_back(tmp_path, name):
    model, train = preset(name)
    mixture = MixtureConfig(sources=("tales", "pydocs"), start=(1, 2), end=(2, 1))
    settings = Preset(model, train.replace(steps=77, data=DataConfig(mixture=mixture, tokenizer=train.data.tokenizer)))
    write_settings(tmp_path / "all.json", settings)
    assert read_settings(tmp_path / "all.json")[1] == settings


def test_a_part_of_another_kind_brings_its_own_settings(tmp_path):
    path = file_of(tmp_path, {"model": {"block": {"kind": "factored", "head_norm": True}}})
    assert read_settings(path)[1].model.block == FactoredBlockConfig(head_norm=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{", r"settings\.json: .*JSON"),
        ([1], "must be a JSON object"),
        ({"modell": {}}, "none of its parts"),
        ({"preset": 3}, "preset must be a name"),
        ({"preset": "lama-tiny"}, "unknown preset 'lama-tiny'; did you mean"),
        ({"train": {"stepps": 3}}, "unknown setting 'train.stepps'"),
        ({"train": {"steps": "3"}}, r"train\.steps must be"),
        ({"train": 3}, "unknown setting 'train'"),
        ({"model": {"n_heads": 7}}, "n_heads"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, values, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_settings(file_of(tmp_path, values))
    assert "settings.json" in str(error.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"can't read the settings in .*gone\.json"):
        read_settings(tmp_path / "gone.json")


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    path = file_of(tmp_path, "mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_settings(path, preset("llama-tiny"))
    assert (tmp_path / "settings.json").read_text(encoding="utf-8") == "mine"
