"""The terminal: help without torch, exit statuses, messages instead of tracebacks."""

import subprocess
import sys

import pytest

from config import ROOT, FactoredBlockConfig, FutureBlockConfig, ResidualBlockConfig, ShapedBlockConfig
from lab.runs import Run
from lab.terminal import main, parse_training

TINY = [
    "--model.n-layers", "1", "--model.width", "16", "--model.context-length", "16", "--model.max-positions", "None",
    "--train.steps", "6", "--train.batch-size", "2", "--train.evaluation-tokens", "64", "--train.sample-tokens", "4",
    "--train.schedule.warmup-steps", "1", "--train.data.max-documents", "60", "--train.data.validation-fraction", "0.3",
    "--train.precision", "fp32", "--train.data.tokenizer", "byte",
]  # fmt: skip


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs and data of this test alone."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    monkeypatch.setattr("lab.runs.TRAINED", tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize("command", ["", "train", "generate", "runs", "export", "import", "find-rate"])
def test_help_imports_no_torch(command):
    arguments = [*command.split(), "--help"]
    code = (
        "import sys; from lab.terminal import main\n"
        f"try: main({arguments})\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'datasets', 'matplotlib'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python tools.py" in done.stdout


def test_train_generate_evaluate_and_resume(trained, tmp_path, capsys):
    assert main(["train", "--name", "first", *TINY]) == 0
    printed = capsys.readouterr().out
    assert str(trained / "first") in printed and "floor" in printed and "loss.png" in printed
    assert main(["generate", "first", "--prompt", "Once", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("Once")
    assert main(["evaluate", "first"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    text = tmp_path / "text.txt"
    text.write_text("Tim had a red ball.", encoding="utf-8")
    assert main(["evaluate", "first", "--text", str(text)]) == 0
    assert "over 18 tokens" in capsys.readouterr().out
    assert main(["resume", "first"]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["train", "--like", "first", "--name", "second"]) == 0
    one, two = Run.open(trained / "first").log(), Run.open(trained / "second").log()
    assert list(one.loss) == list(two.loss)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--preset", "lama-tiny"], "did you mean 'llama-tiny'"),
        (["train", "--preset", "llama-tiny", "--like", "x"], "give one of them"),
        (["train", "--train.data.source", "tails", *TINY], "tails"),
        (["train", "--train.data.tokenizer", "bpe-1000", *TINY[:-2]], "bpe-1000"),
        (["train", "--name", "a|b", *TINY], "can't be a run's name"),
        (["resume", "nothing"], "no run 'nothing'"),
        (["generate", "nothing", "--strategy", "wild"], "unknown strategy 'wild'"),
        (["runs", "--delete", "nothing"], "no run 'nothing'"),
        (["tokenizer", "bpe-17"], "bpe-17"),
        (["notebook", "nowhere.ipynb"], "can't be read as a notebook"),
    ],
)
def test_what_a_user_can_mend_is_one_message(trained, capsys, arguments, message):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize(
    "preset, flags, block",
    [
        ("llama-tiny", ["--model.block.parallel", "True"], ResidualBlockConfig(parallel=True)),
        ("factored-alibi-tiny", ["--model.block.value-mixing", "dense"], FactoredBlockConfig(value_mixing="dense")),
        ("future-tiny", ["--model.block.pool", "max"], FutureBlockConfig(pool="max")),
        ("sasp-tiny", ["--model.block.mlp-gain", "0.5"], ShapedBlockConfig(mlp_gain=0.5)),
    ],
)
def test_a_block_has_its_own_flags(preset, flags, block):
    assert parse_training(["--preset", preset, *flags]).model.block == block


@pytest.mark.parametrize("flags", [["--model.width", "100", "--model.n-heads", "3"], ["--model.widht", "3"]])
def test_impossible_flags_exit_with_2(trained, flags):
    with pytest.raises(SystemExit) as end:
        main(["train", *flags])
    assert end.value.code == 2
    assert not trained.exists()


def test_bad_generation_settings_are_refused(trained, capsys):
    assert main(["train", "--name", "first", *TINY]) == 0
    for flags, message in {
        ("--sampling.top-k", "0"): "top_k", ("--sampling.top-p", "1.5"): "top_p",
        ("--sampling.temperature", "-1"): "temperature",
    }.items():  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(["generate", "first", *flags])
        assert end.value.code == 2 and message in capsys.readouterr().err
    for flags, message in {("--prompt", ""): "empty", ("--max-tokens", "5000"): "position"}.items():
        assert main(["generate", "first", *flags]) == 1
        assert message in capsys.readouterr().err
