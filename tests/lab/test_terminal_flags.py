"""Flags that follow from others: the kinds of a model's parts, and the ideas that a file brings."""

import re
import subprocess
import sys

import pytest

from config import (
    ALiBiConfig,
    FactoredBlockConfig,
    FutureBlockConfig,
    LearnedPositionConfig,
    MLPConfig,
    NormConfig,
    TrainConfig,
    preset,
)
from lab.terminal import main
from lab.terminal_flags import import_ideas
from lab.terminal_training import parse_training
from settings.by_name import read_setting
from settings.errors import ConfigError, IdeaError
from settings.paths import ROOT
from settings.registry import kinds_of
from tests.helpers.registry import registry_restored

WAVE = '''
from typing import Literal

from config import PositionConfig
from modules.positions import Position
from settings.checked import settings
from settings.registry import register
from settings.types import Positive


@settings
class WaveConfig(PositionConfig):
    """Adds a wave to the embeddings."""

    kind: Literal["wave"] = "wave"
    period: Positive = 8.0  # Tokens of a whole wave.


@register("position", "wave")
class Wave(Position):
    def __init__(self, config):
        super().__init__()
        self.period = config.position.period

    def embed(self, x, positions):
        return x + (positions / self.period).sin()[..., None]  # (B, T, C)
'''


@pytest.fixture(autouse=True)
def restored():
    with registry_restored():
        yield


@pytest.fixture
def wave(tmp_path):
    path = tmp_path / "wave.py"
    path.write_text(WAVE, encoding="utf-8")
    return str(path)


def test_a_part_of_another_kind_brings_its_own_settings():
    train = ["--model.position.kind", "alibi", "--model.position.slopes", "0.5", "0.25"]
    assert parse_training(train).model.position == ALiBiConfig(slopes=(0.5, 0.25))
    start = preset("llama-tiny").model
    assert parse_training(["--model.position.kind=alibi"]).model == start.replace(position=ALiBiConfig())
    dense = parse_training(["--model.block.kind", "factored", "--model.block.value-mixing", "dense"])
    assert dense.model == start.replace(block=FactoredBlockConfig(value_mixing="dense"))


def test_a_kind_that_needs_other_settings_too_takes_them_from_the_same_arguments(capsys):
    found = parse_training(["--model.block.kind", "future", "--model.n-layers", "5", "--model.block.levels", "2"]).model
    assert found.block == FutureBlockConfig(levels=2) and found.n_layers == 5
    with pytest.raises(SystemExit):
        parse_training(["--model.block.kind", "future"])
    assert "3 levels need n_layers=5 or more" in capsys.readouterr().err
    learned = parse_training(["--model.position.kind", "learned"]).model
    assert (learned.position, learned.max_positions) == (LearnedPositionConfig(), None)


def test_kinds_without_settings_are_choices():
    found = parse_training(["--model.norm.kind", "layer", "--model.mlp.activation", "relu2"]).model
    assert (found.norm, found.mlp) == (NormConfig(kind="layer"), MLPConfig(activation="relu2"))


def test_micro_batches_are_a_number_or_what_fits():
    for text, value in ("auto", "auto"), ("4", 4), ("None", None):
        found = parse_training(["--train.micro-batch-size", text]).train
        assert found.micro_batch_size == value == read_setting({"train": TrainConfig}, "train.micro_batch_size", text)


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["--model.norm.kind", "lair"], ["rms", "layer", "cosine"]),
        (["--model.position.kind", "alibo"], ["did you mean 'alibi'"]),
        (["--model.mlp.activation", "silo"], ["gelu_tanh", "silu"]),
    ],
)
def test_an_unknown_kind_is_told_the_known_ones(arguments, names, capsys):
    try:
        assert main(["train", *arguments]) == 1
    except SystemExit as end:  # tyro's own message
        assert end.code == 2
    told = re.sub(r"[│\s]+", " ", capsys.readouterr().err)
    assert all(name in told for name in names), told


def test_an_idea_file_adds_its_kind_and_its_flags(wave):
    rest = import_ideas(["train", "--idea", wave, "--model.position.kind", "wave", "--model.position.period", "3"])
    assert rest[0] == "train" and "--idea" not in rest and "wave" in kinds_of("position")
    found = parse_training(rest[1:]).model.position
    assert (found.kind, found.period) == ("wave", 3.0)


def test_help_shows_the_flags_of_an_idea(wave):
    command = [sys.executable, "tools.py", "train", f"--idea={wave}", "--model.position.kind", "wave", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    told = re.sub(r"[│\s]+", " ", done.stdout)
    assert done.returncode == 0 and "--model.position.period FLOAT Tokens of a whole wave." in told, done.stderr
    assert "{none,learned,sinusoidal,rope,alibi,wave}" in told


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no file"),
        ("1 / 0", "can't be imported: ZeroDivisionError: division by zero"),
        ("x = (", "can't be imported: SyntaxError"),
        ("from settings.registry import register\nregister('norm', 'rms')(str)", "str: norm 'rms' is built in"),
    ],
)
def test_a_file_that_fails_is_named_with_its_reason(text, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert main(["runs", "--idea", str(path)]) == 1
    told = capsys.readouterr().err
    assert str(path) in told and message in told


def test_a_flag_without_a_file_is_told():
    with pytest.raises(ConfigError, match="--idea needs a Python file"):
        import_ideas(["train", "--idea"])
    with pytest.raises(IdeaError, match=r"its name must end in \.py"):
        import_ideas(["--idea", str(ROOT / "README.md")])
