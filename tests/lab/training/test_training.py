"""Training: what is stored, that stopping anywhere resumes to the same numbers, and what goes wrong loudly."""

import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from config import DropoutConfig, FutureBlockConfig, ScheduleConfig
from lab.compute.optimizer import build_optimizer
from lab.data.packing import prepare
from lab.evaluation.evaluate import evaluate
from lab.runs.run import Run
from lab.training.loop import train
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from settings.paths import ROOT
from tests.helpers.devices import DEVICE
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data) -> Run:
    run = new_run(tmp_path_factory.mktemp("whole"))
    list(train(run, data))
    return run


def test_a_run_explains_itself(whole):
    names = {path.relative_to(whole.folder).as_posix() for path in whole.folder.rglob("*") if path.is_file()}
    assert names == {
        "model_config.json", "train_config.json", "tokenizer.json", "data.json", "log_data.csv", "model.safetensors",
        "checkpoint/state.safetensors", "README.md", "loss.png", "lock",
    }
    card = (whole.folder / "README.md").read_text(encoding="utf-8")
    assert "python tools.py train" in card and f"{float(whole.weights_facts()['validation_loss']):.4f}" in card
    assert whole.status() == "finished, 12 steps"


def test_log_has_a_row_per_step_and_a_validation_where_due(whole):
    log = whole.log()
    assert list(log.step) == list(range(1, 13))
    assert list(log.step[log.validation_loss.notna()]) == [4, 8, 12]
    assert list(log.tokens) == [step * 4 * 16 for step in range(1, 13)]
    assert log.loss.iloc[-1] < log.loss.iloc[0]


def test_stored_weights_are_those_of_the_best_validation(whole, data):
    log, facts = whole.log(), whole.weights_facts()
    assert float(facts["validation_loss"]) == log.validation_loss.min()
    assert int(facts["step"]) == log.step[log.validation_loss.idxmin()]
    again = evaluate(whole.load_model(DEVICE), data.validation, whole.tokenizer, TRAIN.evaluation_tokens)
    rounding = 1e-12 if DEVICE == "cpu" else 1e-6  # on a GPU they differ by rounding
    assert again.loss == pytest.approx(log.validation_loss.min(), abs=rounding)


@pytest.mark.parametrize("predicts, watched", [("bag", ()), ("vector_cosine", ("_spread", "_target_spread"))])
def test_each_level_has_its_column_and_the_loss_is_the_next_tokens_alone(tmp_path, data, predicts, watched):
    logs = []
    for weight in (0.01, 0.7):
        block = FutureBlockConfig(levels=2, predicts=predicts, loss_weight=weight)
        run = new_run(tmp_path, f"weight-{weight}", MODEL.replace(n_layers=4, block=block))
        list(train(run, data))
        logs.append(run.log())
    names = [f"future_{level}{end}" for level in (1, 2) for end in ("", *watched)]
    assert list(logs[0].columns[-len(names) :]) == names and logs[0][names].notna().all().all()
    first, other = (log.iloc[0] for log in logs)  # before the first update the two are the same
    assert (first["loss"], *first[names]) == (other["loss"], *other[names])
    assert first["gradient_norm"] != other["gradient_norm"]
    assert logs[1].future_1.iloc[-1] < logs[1].future_1.iloc[0]


@pytest.mark.parametrize("stops", [[1], [5], [7], [3, 4, 11]])
def test_stopping_anywhere_resumes_to_the_same_numbers(tmp_path, data, whole, stops):
    run = new_run(tmp_path)
    for stop in stops:
        for step in train(run, data):
            if step.step == stop:
                break
        assert run.status() == f"stopped at step {stop} of 12"
        run = Run.open("run", tmp_path)
        torch.manual_seed(stop)  # whatever happens between must not matter
    list(train(run, data))
    assert_same(run, whole)


@pytest.mark.parametrize("checkpoint_every, first", [(5, 6), (100, 1)])
def test_a_killed_training_resumes_from_its_last_checkpoint(tmp_path, data, whole, checkpoint_every, first):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lab.runs.run import Run; from lab.training.loop import train\n"
        f"for step in train(Run.open('run', Path({str(tmp_path)!r}))):\n"
        "    if step.step == 7: os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = new_run(tmp_path, checkpoint_every=checkpoint_every)
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == -9
    assert len(run.log()) == 7
    with run.log_path.open("a") as log:
        log.write("8,512,0.1,5.")  # a row cut short
    steps = [step.step for step in train(run, data)]
    assert steps[0] == first
    assert_same(run, whole)


def test_interrupt_ends_after_the_step_and_a_second_one_at_once(tmp_path, data):
    run, seen = new_run(tmp_path), []
    before = signal.getsignal(signal.SIGINT)
    for step in train(run, data):
        seen.append(step.step)
        if step.step == 3:
            signal.raise_signal(signal.SIGINT)
    assert seen == [1, 2, 3] and run.status() == "stopped at step 3 of 12"
    assert signal.getsignal(signal.SIGINT) is before
    steps = train(run, data)
    next(steps)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    steps.close()
    assert signal.getsignal(signal.SIGINT) is before


def test_micro_batches_accumulate_to_the_same_update(tmp_path, data):
    model = MODEL.replace(dropout=DropoutConfig())
    at_once, in_parts = (
        list(train(new_run(tmp_path, name, model, steps=5, micro_batch_size=size), data))
        for name, size in (("at-once", None), ("in-parts", 1))
    )
    assert [s.loss for s in at_once] == pytest.approx([s.loss for s in in_parts], abs=1e-5)
    assert at_once[0].gradient_norm == pytest.approx(in_parts[0].gradient_norm, rel=1e-4)


def test_outside_random_numbers_are_left_alone(tmp_path, data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train(new_run(tmp_path, steps=4), data))
    assert torch.equal(torch.rand(3), expected)


def test_decay_falls_on_matrices_alone():
    model = Transformer(MODEL.replace(bias=True))
    for optimizer in ("muon", "adamw"):
        *decayed, plain = build_optimizer(model, TRAIN.replace(optimizer=optimizer)).param_groups
        for group in decayed:
            assert {p.dim() for p in group["params"]} == {2} and group["weight_decay"] == TRAIN.weight_decay
        assert {p.dim() for p in plain["params"]} == {1} and plain["weight_decay"] == 0
        assert sum(len(group["params"]) for group in (*decayed, plain)) == len(list(model.parameters()))


def test_clipping_bounds_the_step_and_logs_the_norm_before_it(tmp_path, data):
    free, clipped = (
        next(train(new_run(tmp_path, name, gradient_clip=clip), data))
        for name, clip in (("free", None), ("tight", 1e-6))
    )
    assert free.gradient_norm == clipped.gradient_norm > 1e-3


def test_non_finite_loss_names_step_layer_and_checkpoint(tmp_path, data):
    run = new_run(tmp_path, learning_rate=1e30, gradient_clip=None, schedule=ScheduleConfig(warmup_steps=0, cycles=12))
    with pytest.raises(RunError, match=r"step \d+: .*(blocks|embedding|norm).* not finite.*checkpoint"):
        list(train(run, data))


def test_compiled_training_gives_the_same_losses(tmp_path, data, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: torch._dynamo.optimize("aot_eager")(function))
    model = MODEL.replace(dropout=DropoutConfig())
    eager, compiled = (
        [s.loss for s in train(new_run(tmp_path, choice, model, steps=3, compile=choice, dropout_final=1.0), data)]
        for choice in ("off", "on")
    )
    assert eager == pytest.approx(compiled, abs=1e-5)
    assert not [name for name in load_file(tmp_path / "on" / "model.safetensors") if "_orig_mod" in name]


def test_finished_run_yields_nothing_and_one_without_checkpoint_says_so(whole, data, tmp_path):
    assert list(train(whole, data)) == []
    run = new_run(tmp_path, steps=4)
    list(train(run, data))
    run.checkpoint_path.unlink()
    with pytest.raises(RunError, match="no checkpoint"):
        list(train(run, data))


def test_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="vocab_size=256 is smaller than the 257"):
        new_run(tmp_path, model=MODEL.replace(vocab_size=256))
    assert not (tmp_path / "run").exists()


def test_absent_device_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not available"):
        list(train(new_run(tmp_path, device="cuda"), data))
    unread = TRAIN.data.replace(source="no such folder")  # so that no text is read before
    for absent in dict(device="cuda"), dict(device="cpu", precision="tf32"):
        with pytest.raises(ConfigError, match="is not available"):
            new_run(tmp_path, data=unread, **absent)
    assert not list(tmp_path.iterdir())


def test_a_precision_that_the_device_lacks_is_refused_before_the_run_exists(tmp_path):
    with pytest.raises(ConfigError, match="'tf32' is not available on device 'cpu'"):
        new_run(tmp_path, device="cpu", precision="tf32")
    assert not (tmp_path / "run").exists()


def test_samples_come_every_n_steps_with_the_same_seed(tmp_path, data):
    steps = list(train(new_run(tmp_path, steps=6, sample_every=2, sample_prompt="Once"), data))
    assert [bool(step.sample) for step in steps] == [False, True] * 3
    assert steps[1].sample.startswith("Once")


def test_full_disk_stops_with_a_message_and_keeps_what_was_there(tmp_path, data, monkeypatch):
    run = new_run(tmp_path)
    for step in train(run, data):
        if step.step == 6:
            break
    before = run.checkpoint_path.read_bytes(), run.weights_path.read_bytes()

    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", no_space)
    with pytest.raises(RunError, match="No space left"):
        list(train(run, data))
    assert (run.checkpoint_path.read_bytes(), run.weights_path.read_bytes()) == before
    assert not list(run.folder.rglob("*.part"))
