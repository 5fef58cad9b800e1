"""What `train` starts from: a preset, its trial, a file of settings; and how long it trains."""

import math

import pytest

from config import ALiBiConfig, preset
from lab.data.packing import prepare
from lab.files.remembered import entry_path, write_entry
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.terminal import main, parse_training
from settings.mixture import MixtureConfig

TINY = [
    "--model.n-layers", "1", "--model.width", "16", "--model.context-length", "16", "--train.batch-size", "2",
    "--train.evaluation-tokens", "64", "--train.sample-tokens", "4", "--train.data.max-documents", "60",
    "--train.data.validation-fraction", "0.3", "--train.precision", "fp32", "--train.data.tokenizer", "byte",
]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs and data of this test alone."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "trained"


def test_epochs_become_steps(trained, capsys):
    settings = parse_training(TINY)
    tokens = len(prepare(settings.train.data).train)
    steps = math.ceil(0.01 * ((tokens - 1) // 16) / 2)
    assert main(["train", "--name", "first", "--epochs", "0.01", *TINY]) == 0
    assert f"0.01 epochs of {tokens:,} tokens: {steps} steps" in capsys.readouterr().out
    run = Run.open("first")
    assert run.train_config.steps == run.steps_done() == steps
    assert run.train_config.schedule.warmup_steps == steps // 10, "the warm-up follows"


def test_settings_are_written_and_trained_from(trained, capsys):
    flags = [*TINY, "--model.position.kind", "alibi", "--train.steps", "3"]
    assert main(["train", *flags, "--write-config", "mine.json"]) == 0
    assert "train --config mine.json" in capsys.readouterr().out and not run_names()
    assert parse_training(["--config", "mine.json"]).train == parse_training(flags).train
    assert main(["train", "--config", "mine.json", "--train.seed", "5"]) == 0
    run = Run.open("mine-tales")
    assert run.model_config.position == ALiBiConfig() and run.train_config.seed == 5 and run.steps_done() == 3
    assert main(["train", "--config", str(run.folder), "--name", "again"]) == 0
    assert Run.open("again").log()["loss"].tolist() == run.log()["loss"].tolist()


def test_quick_is_a_small_trial_of_the_same_architecture():
    found = parse_training(["--preset", "factored-alibi-512x12", "--quick", "True"])
    assert found.model == preset("factored-alibi-128x4").model
    assert found.train == preset("factored-alibi-128x4").train.replace(steps=200)
    assert parse_training(["--quick", "True", "--train.steps", "9"]).train.steps == 9
    of_hub = parse_training(["--quick", "True", "--train.data.source", "tinystories"]).train
    assert (of_hub.steps, of_hub.data.source, of_hub.data.tokens_per_epoch) == (200, "tinystories", 10_000_000)


def test_a_curriculum_is_given_by_flags(trained):
    mixture = [
        "--train.data.mixture.sources", "tales", "pydocs", "--train.data.mixture.start", "0.8", "0.2",
        "--train.data.mixture.end", "0.3", "0.7",
    ]
    expected = MixtureConfig(sources=("tales", "pydocs"), start=(0.8, 0.2), end=(0.3, 0.7))
    assert parse_training(mixture).train.data.mixture == expected
    assert main(["train", *TINY, *mixture, "--train.steps", "4"]) == 0
    assert Run.open("llama-tiny-tales-pydocs").train_config.data.mixture == expected


def test_a_trial_of_sets_of_the_hub_has_short_epochs_where_they_are_streamed():
    mixed = parse_training(["--quick", "True", "--train.data.mixture.sources", "tinystories", "tales"]).train.data
    assert mixed.tokens_per_epoch == 10_000_000
    flags = ["--quick", "True", "--train.data.source", "tinystories", "--train.data.hub.streamed", "False"]
    assert parse_training(flags).train.data.tokens_per_epoch is None


def test_epochs_of_a_run_s_own_text_are_counted_from_any_folder(trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("".join(f"Line {number} of a text.\n" for number in range(9000)), encoding="utf-8")
    tiny = [*TINY, "--train.data.source", "a.txt", "--train.steps", "2", "--name", "base"]
    assert main(["train", *tiny]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--from", "base", "--epochs", "0.001", "--name", "more"]) == 0, capsys.readouterr().err
    assert Run.open("more").text.train == Run.open("base").text.train


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "2", "--train.steps", "3"], "--epochs and --train.steps"),
        (["--epochs", "-1"], "epochs=-1"),
        (["--config", "gone.json"], "can't read the settings in gone.json"),
        (["--config", "a.json", "--preset", "llama-tiny"], "give one of them"),
        (["--write-config", "w.json", "--from", "x"], "--write-config writes the settings of a new model"),
        (["--write-config", "w.json", "--name", "x"], "--write-config writes the settings of a new model"),
        (["--quick", "True", "--like", "x"], "--quick makes a trial of a preset"),
        (["--train.data.mixture.sources", "tales", "gone.txt"], "gone.txt"),
    ],
)
def test_what_can_not_be_is_told_before_a_run_exists(trained, capsys, flags, message):
    assert main(["train", *TINY, *flags]) == 1
    assert message in capsys.readouterr().err and not run_names()


def test_measured_costs_and_times_are_listed_and_cleared_with_the_prepared_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    assert main(["cache"]) == 0 and capsys.readouterr().out == "the cache is empty\n"
    path = entry_path("a number", (1,))
    write_entry(path, 5)
    assert main(["cache"]) == 0
    size = path.stat().st_size
    assert capsys.readouterr().out == f"1 measured costs and times of models on this machine, {size} bytes\n"
    assert main(["cache", "--clear", "True"]) == 0 and capsys.readouterr().out == "freed 0.0 MB\n"
    assert not path.exists() and main(["cache"]) == 0 and capsys.readouterr().out == "the cache is empty\n"
