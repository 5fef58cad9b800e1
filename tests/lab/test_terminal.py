"""The terminal: help without torch, exit statuses, messages instead of tracebacks."""

import subprocess
import sys

import pytest

from config import (
    ALiBiConfig,
    DistilConfig,
    FactoredBlockConfig,
    FutureBlockConfig,
    ResidualBlockConfig,
    ShapedBlockConfig,
)
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.terminal import main, parse_training
from settings.paths import ROOT

TINY = [
    "--model.n-layers", "1", "--model.width", "16", "--model.context-length", "16", "--model.max-positions", "None",
    "--train.steps", "6", "--train.batch-size", "2", "--train.evaluation-tokens", "64", "--train.sample-tokens", "4",
    "--train.schedule.warmup-steps", "1", "--train.data.max-documents", "60", "--train.data.validation-fraction", "0.3",
    "--train.precision", "fp32", "--model.vocab-size", "257", "--train.data.tokenizer", "byte",
]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Runs and data of this test alone."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    return tmp_path / "trained"


@pytest.mark.parametrize(
    "command",
    ["", "train", "generate", "sampling", "runs", "export", "import", "find-rate", "sweep", "classify", "distil",
     "generation-speed"],
)
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


def test_distil_trains_a_student_of_a_run(trained, capsys):
    assert main(["train", "--name", "teacher", *TINY]) == 0
    of_student = [*TINY[:18], "--train.precision", "fp32", "--train.distil.mode", "blocks"]  # the data is the teacher's
    assert main(["distil", "teacher", "--preset", "gpt2-tiny", *of_student]) == 0
    assert "validation loss" in capsys.readouterr().out
    run = Run.open(trained / "gpt2-tiny-from-teacher")
    assert run.train_config.distil == DistilConfig(teacher="teacher", mode="blocks") and run.is_finished()
    assert run.train_config.data == Run.open(trained / "teacher").train_config.data and run.steps_done() == 6
    assert main(["distil", "gone"]) == 1 and "no run 'gone'" in capsys.readouterr().err
    assert main(["distil", "--preset", "gpt2-tiny"]) == 1 and "name the teacher first" in capsys.readouterr().err
    assert {path.name for path in trained.iterdir()} == {"teacher", "gpt2-tiny-from-teacher"}


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


def test_sweep_trains_the_grid_and_the_same_command_again_only_compares(trained, capsys):
    vary = [f"{name.removeprefix('--')}={value}" for name, value in zip(TINY[::2], TINY[1::2])]
    vary += ["train.learning-rate=1e-3,4e-3", "model.position.kind=rope,alibi", "train.evaluate-every=3"]
    command = ["sweep", "llama-tiny", *(part for text in vary for part in ("--vary", text)), "--seeds", "2"]
    assert main([*command, "--name", "rates"]) == 0
    stem = "rates-learning-rate-"
    variants = [f"{stem}{rate}_position-{kind}" for rate in ("0.001", "0.004") for kind in ("rope", "alibi")]
    names = [f"{variant}-seed{seed}" for seed in (0, 1) for variant in variants]
    first = capsys.readouterr().out
    found = [line.split(", ")[0] for line in first.splitlines() if line.startswith("run ") and " of " in line]
    assert found == [f"run {number} of 8: {name}" for number, name in enumerate(names, start=1)]
    assert run_names(trained) == sorted(names)
    run = Run.open(names[5], trained)
    expected = parse_training(["--preset", "llama-tiny", *TINY, "--train.evaluate-every", "3", "--train.seed", "1"])
    assert run.model_config == expected.model.replace(position=ALiBiConfig()) and run.status() == "finished, 6 steps"
    assert run.train_config == expected.train.replace(learning_rate=1e-3).settled(run.model_config)
    logs = {name: (trained / name / "log_data.csv").stat().st_mtime_ns for name in names}
    table = first[first.index(" validation loss (nats)") :]
    assert all(f"{float(Run.open(name, trained).weights_facts()['validation_loss']):.4f}" in table for name in names)
    assert main([*command, "--name", "rates"]) == 0
    again = capsys.readouterr().out
    assert again in first and table in again
    assert logs == {name: (trained / name / "log_data.csv").stat().st_mtime_ns for name in names}
    assert main(["sweep", names[0], "--vary", "train.steps=2", "--vary", "model.block.parallel=True"]) == 0
    started = Run.open(f"{names[0]}-steps-2_block-parallel-True-seed0", trained)
    assert started.train_config.learning_rate == 1e-3 and started.model_config.block.parallel


def test_sweep_prints_the_others_where_one_fails_and_says_so(trained, capsys):
    assert main(["train", "--name", "first", *TINY, "--train.gradient-clip", "None"]) == 0
    assert main(["sweep", "first", "--vary", "train.learning-rate=1e30,1e-3", "--name", "far"]) == 1
    shown = capsys.readouterr()
    assert "error: 1 of 2 trainings failed:\n  far-learning-rate-1e30-seed0: step 2" in shown.err
    loss = float(Run.open("far-learning-rate-0.001-seed0", trained).weights_facts()["validation_loss"])
    assert f"{loss:.4f}" in shown.out and "left out: far-learning-rate-1e30-seed0" in shown.out


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
        (["sweep", "lama-tiny"], "neither a preset nor a run; did you mean 'llama-tiny'"),
        (["sweep", "llama-tiny", "--vary", "train.steps"], "'train.steps' must name a setting and its values"),
        (["sweep", "llama-tiny", "--vary", "train.seed=1,2"], "train.seed is no override"),
        (["sweep", "llama-tiny", "--seeds", "0"], "not 1 and 0 of them"),
        (["sweep", "llama-tiny", "--name", "a|b"], "can't be a run's name"),
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
    }.items():
        with pytest.raises(SystemExit) as end:
            main(["generate", "first", *flags])
        assert end.value.code == 2 and message in capsys.readouterr().err
    for flags, message in {("--prompt", ""): "empty", ("--max-tokens", "5000"): "position"}.items():
        assert main(["generate", "first", *flags]) == 1
        assert message in capsys.readouterr().err
