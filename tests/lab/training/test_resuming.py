"""Going on with a training: who may, with which settings, from which files; and what a kill leaves."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch._dynamo.exc import BackendCompilerFailed

import lab.training.computing
from config import TrainConfig
from lab.comparison.sweep import sweep
from lab.compute.choice import COMPILING_PAYS
from lab.compute.optimizer import build_optimizer
from lab.compute.schedule import learning_rate
from lab.compute.training_state import TrainingState
from lab.data.packing import prepare
from lab.files.atomic import atomic_write_text
from lab.runs.listing import delete_run, list_runs
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.runs.weights import read_header
from lab.sharing import export_run, import_run
from lab.training.checkpoint import load_checkpoint
from lab.training.loop import train
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from settings.paths import ROOT
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data) -> Run:
    run = new_run(tmp_path_factory.mktemp("whole"))
    list(train(run, data))
    return run


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory, data) -> Run:
    """Stopped at step 11 of 12; the weights are those of step 8, or of 4."""
    run = new_run(tmp_path_factory.mktemp("stopped"))
    stop(run, data, 11)
    return run


@pytest.fixture
def stopped(tmp_path, stopped_once) -> Run:
    shutil.copytree(stopped_once.folder, tmp_path / "run")
    return Run.open("run", tmp_path)


def stop(run: Run, data, at: int) -> None:
    for step in train(run, data):
        if step.step == at:
            break


def contents(run: Run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def edit(run: Run, file: str = "train_config.json", **changes) -> Run:
    """The run with settings changed in its file, as a user does; dots go one level down."""
    values = json.loads((run.folder / file).read_text(encoding="utf-8"))
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = values
        for part in parts:
            place = place[part]
        place[last] = value
    (run.folder / file).write_text(json.dumps(values), encoding="utf-8")
    return Run.open(run.folder)


def progress(run: Run) -> dict:
    return json.loads(read_header(run.checkpoint_path)[1]["progress"])


# --- one process holds a run ----------------------------------------------------------------------------------


def test_a_run_can_not_be_trained_twice_at_once_in_one_process(tmp_path, data):
    run = new_run(tmp_path)
    first = train(run, data)
    next(first)
    for attempt in (lambda: next(train(run, data)), lambda: delete_run("run", confirm="run", folder=tmp_path)):
        with pytest.raises(RunError, match=r"this very process holds run 'run' since \d{4}.*restart the kernel"):
            attempt()
    with pytest.raises(RunError, match="plain-seed0: this very process"):
        held = Run.create("plain-seed0", MODEL, TRAIN, tmp_path)
        with closing(train(held, data)) as steps:
            next(steps)
            sweep({"plain": (MODEL, TRAIN)}, (0,), tmp_path)
    assert list_runs(tmp_path).loc["run", "status"] == "stopped at step 1 of 12"
    first.close()
    assert next(train(run, data)).step == 2
    assert not (run.folder / "holder.json").exists()
    delete_run("run", confirm="run", folder=tmp_path)
    assert run_names(tmp_path) == ["plain-seed0"]


def test_another_process_is_named_and_sigterm_stops_it_with_a_checkpoint(tmp_path, data):
    code = (
        "import sys; from pathlib import Path; from lab.runs.run import Run; from lab.training.loop import train\n"
        f"run = Run.open('run', Path({str(tmp_path)!r})); run.listener = lambda what: print(what, file=sys.stderr)\n"
        "for step in train(run):\n"
        "    print('step', step.step, flush=True); sys.stdin.readline()"
    )
    run = new_run(tmp_path, checkpoint_every=100)
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )
    while not child.stdout.readline().startswith("step 1"):
        assert child.poll() is None, child.stderr.read()
    with pytest.raises(RunError, match=rf"process {child.pid} on {platform.node()} holds run 'run' since \d{{4}}"):
        next(train(run, data))
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(input="\n" * 12, timeout=60)
    assert child.returncode == -signal.SIGTERM, "a shell says 143"
    done = run.steps_done()
    assert f"stopped after step {done} of 12" in told and progress(run)["step"] == done >= 1
    assert next(train(run, data)).step == done + 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_take_their_usual_effect_when_all_is_stored(tmp_path, data, name):
    number, seen, run = getattr(signal, name), [], new_run(tmp_path, checkpoint_every=100)
    before = signal.signal(number, lambda *_: seen.append(progress(run)["step"]))
    try:
        assert [step.step for step in send_at(3, number, train(run, data))] == [1, 2, 3]
        assert seen == [3], "once, and the checkpoint was there"
        signal.signal(number, signal.SIG_IGN)
        if name == "SIGHUP":  # as under nohup
            assert len(list(send_at(5, number, train(run, data)))) == 9
    finally:
        signal.signal(number, before)


def send_at(last: int, number: int, steps):
    for step in steps:
        yield step
        if step.step == last:
            signal.raise_signal(number)


def test_a_folder_that_can_not_be_written_is_told_and_left_alone(stopped, data, monkeypatch):
    before = contents(stopped)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", denied)
    for attempt in (
        lambda: next(train(stopped, data)),
        lambda: delete_run("run", confirm="run", folder=stopped.folder.parent),
    ):
        with pytest.raises(RunError, match=r"can't write into .*run: Permission denied.*mend its permissions"):
            attempt()
    assert contents(stopped) == before


def test_a_link_to_a_run_is_not_followed_when_it_is_deleted(tmp_path, stopped):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(stopped.folder)
    before = contents(stopped)
    with pytest.raises(RunError, match=r"is a link to .*; delete the link itself"):
        delete_run("link", confirm="link", folder=tmp_path / "here")
    assert contents(stopped) == before


# --- settings edited before resuming --------------------------------------------------------------------------


def test_what_can_change_is_obeyed(stopped, data):
    changed = edit(
        stopped, precision="bf16", compile="off", micro_batch_size=2, gradient_checkpointing=True, learning_rate=1e-4,
        weight_decay=0.0, beta1=0.8, beta2=0.9, gradient_clip=None, dropout_final=1.0, steps=14, evaluate_every=13,
        sample_every=13, sample_prompt="Tim", sample_tokens=2, checkpoint_every=3, watch_every=13,
        schedule__warmup_steps=1, schedule__decay="linear",
    )
    changed = edit(changed, "model_config.json", dropout__residual=0.0)
    steps = list(train(changed, data))
    assert [step.step for step in steps] == [12, 13, 14]
    rates = [learning_rate(step, changed.train_config) for step in (11, 12, 13)]
    assert [step.learning_rate for step in steps] == rates and max(rates) < 1e-4
    assert progress(changed)["precision"] == "bf16" and steps[1].validation_loss and steps[1].sample.startswith("Tim")
    assert 13 in set(changed.watch()["step"])
    with pytest.raises(RunError, match=r"has reached step 14, and steps=13.*set it to 14 or more"):
        list(train(edit(changed, steps=13), data))


@pytest.mark.parametrize(
    "file, changes, said",
    [
        ("train_config.json", {"batch_size": 8}, "train.batch_size is 8 and was 4"),
        ("train_config.json", {"seed": 3}, "train.seed is 3 and was 0"),
        ("train_config.json", {"evaluation_tokens": 64}, "train.evaluation_tokens is 64 and was 256"),
        ("train_config.json", {"data__max_documents": 50}, "train.data.max_documents is 50 and was 60"),
        ("train_config.json", {"data__tokenizer": "bpe-512"}, "train.data.tokenizer is bpe-512 and was byte"),
        ("model_config.json", {"norm__eps": 1e-3}, "model.norm.eps is 0.001 and was 1e-05"),
        ("model_config.json", {"n_layers": 3, "position": {"kind": "alibi", "slopes": None}}, "model.n_layers is 3"),
    ],
)
def test_what_can_not_change_is_refused_by_name(stopped, file, changes, said):
    changed = edit(stopped, file, **changes)
    before = contents(changed)
    with pytest.raises(RunError, match=rf"trained up to step 11 with other settings: .*{said}.*set them back"):
        next(train(changed))
    assert {name: text for name, text in contents(changed).items() if not name.endswith("lock")} == {
        name: text for name, text in before.items() if not name.endswith("lock")
    }


def test_what_was_measured_stays_and_what_is_set_is_obeyed(tmp_path, data, monkeypatch):
    run, asked = new_run(tmp_path, precision="auto", dropout_final=1.0), []

    def measured(model, windows, config, kept, steps):
        asked.append((config.precision, config.compile))
        return {"auto": "bf16"}.get(config.precision, config.precision), config.compile == "on", "made up"

    monkeypatch.setattr("lab.training.computing.choose", measured)
    monkeypatch.setattr("lab.training.storing.write_card", lambda *_: None)
    stop(run, data, 2)
    stop(run, data, 3)
    assert asked == [("auto", "auto")] and progress(run)["precision"] == "bf16"
    stop(edit(run, precision="fp32"), data, 4)
    assert asked[1:] == [("fp32", "off")] and progress(run)["precision"] == "fp32"
    stop(edit(run, precision="auto"), data, 5)
    assert asked[2:] == [("auto", "off")], "what was set is no measurement"


def test_a_choice_that_is_set_later_is_not_called_a_measurement_any_more(tmp_path, data):
    """The settings now name what was measured: the same numbers, and other words on the card."""
    run = new_run(tmp_path, precision="auto", compile="off")
    stop(run, data, 2)
    precision = progress(run)["precision"]
    assert "measured at" in progress(run)["why"]
    stop(edit(run, precision=precision), data, 3)
    assert progress(run)["precision"] == precision and f"cpu, {precision}, as set;" in progress(run)["why"]
    assert progress(run)["why"] in run.card_path.read_text(encoding="utf-8")
    stop(edit(run, micro_batch_size=2, compile="auto"), data, 4)
    stop(edit(run, precision="fp32" if precision == "bf16" else "bf16"), data, 5)
    assert progress(run)["why"].endswith("compile off as chosen before")


def test_a_compiler_that_broke_since_is_told_and_off_is_obeyed(tmp_path, data, monkeypatch):
    """The checkpoint says that the run is compiled, by "auto"."""
    run = new_run(tmp_path, dropout_final=1.0)
    stop(run, data, 2)
    facts = read_header(run.checkpoint_path)[1]
    compiled = json.dumps(json.loads(facts["progress"]) | {"compiled": True})
    save_file(load_file(run.checkpoint_path), run.checkpoint_path, facts | {"progress": compiled})
    monkeypatch.setattr("lab.training.computing.compiler_problem", lambda device_type: "no Python.h")
    for place in ("choice", "compiling"):
        monkeypatch.setattr(f"lab.compute.{place}.compiler_problem", lambda device_type: "no Python.h")
    monkeypatch.setitem(COMPILING_PAYS, "cpu", 0)
    told = []
    run.listener = told.append
    stop(run, data, 3)
    (line,) = [what for what in told if what.startswith("cpu")]
    assert "not compiled, because the compiler does not work: no Python.h" in line and not progress(run)["compiled"]
    assert line in (run.folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"compile 'on' needs a compiler that works.*no Python.h.*to 'off'"):
        next(train(edit(run, compile="on"), data))
    with pytest.raises(ConfigError, match=r"no Python\.h"):
        new_run(tmp_path, "other", compile="on", dropout_final=1.0)
    assert run_names(tmp_path) == ["run"]


def test_a_model_that_can_not_be_compiled_is_told_and_goes_on_when_off_is_set(tmp_path, data, monkeypatch):
    """A compiler that works on a small function may fail on this model."""

    def failing(function):
        raise BackendCompilerFailed(failing, RuntimeError("no kernel for this"), None)

    monkeypatch.setattr("lab.compute.compiling.compiler_problem", lambda device_type: None)
    monkeypatch.setattr(torch, "compile", lambda losses: lambda windows: failing(losses))
    run = new_run(tmp_path, compile="on", dropout_final=1.0)
    with pytest.raises(RunError, match=r"step 1: this model can't be compiled here: .*compile to 'off'.*resume"):
        next(train(run, data))
    assert next(train(edit(run, compile="off"), data)).step == 1


def test_interrupted_while_it_measures_a_run_is_kept_and_goes_on(tmp_path, data, monkeypatch):
    measure, told = lab.training.computing.choose, []
    monkeypatch.setattr(
        "lab.training.computing.choose", lambda *a: (signal.raise_signal(signal.SIGINT), measure(*a))[1]
    )
    run = new_run(tmp_path)
    run.listener = told.append
    assert list(train(run, data)) == [] and run.status() == "new" and not run.weights_path.exists()
    assert "stopped after step 0 of 12; train(run) goes on from there" in told
    monkeypatch.undo()
    assert next(train(run, data)).step == 1


def test_each_tensor_of_the_optimizer_goes_where_the_optimizer_has_it(stopped, data):
    """As on CUDA: `capturable` keeps the step counter beside its parameter, as the fused update does there."""
    with torch.device("meta"):
        model = Transformer(MODEL)
    optimizer = build_optimizer(model, stopped.train_config)
    optimizer.param_groups[1]["capturable"] = optimizer.param_groups[2]["capturable"] = True
    load_checkpoint(stopped, TrainingState(model=model, optimizer=optimizer, data=data, config=stopped.train_config))
    devices = {key: value.device.type for state in optimizer.state.values() for key, value in state.items()}
    assert devices == dict.fromkeys(("step", "exp_avg", "exp_avg_sq", "momentum_buffer"), "meta")


# --- numbers that are not finite ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "losses, step, held",
    [
        ([], 4, "the checkpoint of step 0"),
        ([4.5], 8, r"the weights of step 4 \(validation loss 4.5000\) and the checkpoint of step 5"),
    ],
)
def test_a_validation_loss_that_is_not_finite_is_no_best(tmp_path, data, monkeypatch, losses, step, held):
    """The message says what the run holds in fact, and what it advises is obeyed."""
    run, coming = new_run(tmp_path), iter(losses)
    monkeypatch.setattr("lab.training.storing.evaluate", lambda *_: SimpleNamespace(loss=next(coming, float("nan"))))
    with pytest.raises(RunError, match=rf"step {step}: the validation loss is nan.*still holds {held}\..*lower learn"):
        list(train(run, data))
    assert [run.validation_loss()] == losses if losses else not run.weights_path.exists()
    assert Run.open("run", tmp_path).steps_done() == step - 1
    monkeypatch.undo()
    resumed = list(train(edit(run, learning_rate=1e-5), data))
    assert resumed[0].step == progress_step(held) + 1 and run.is_finished()
    assert max(step.learning_rate for step in resumed) <= 1e-5


def progress_step(text: str) -> int:
    return int(text.rpartition(" ")[2])


def test_damaged_weights_do_not_hide_that_a_training_diverged(stopped, data, monkeypatch):
    os.truncate(stopped.weights_path, 100)
    monkeypatch.setattr("lab.training.storing.evaluate", lambda *_: SimpleNamespace(loss=float("nan")))
    with pytest.raises(RunError, match=r"step 12: the validation loss is nan.*can't be used .*not a whole safetensors"):
        list(train(stopped, data))


def test_weights_that_are_not_finite_are_never_stored(tmp_path, data, monkeypatch):
    run = new_run(tmp_path, checkpoint_every=3)

    def overflow_at_step_3(optimizer, rate):
        value = float("inf") if run.steps_done() == 2 else 0.1
        optimizer.param_groups[0]["params"][0].data.fill_(value)

    monkeypatch.setattr("lab.compute.training_state.update", overflow_at_step_3)
    with pytest.raises(RunError, match=r"after step 3, .* is not finite: .*diverged. The run still holds the check"):
        list(train(run, data))
    assert progress(run)["step"] == 0
    tensors = load_file(run.checkpoint_path)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


# --- damage ---------------------------------------------------------------------------------------------------


def resaved(change):
    """A damage to the checkpoint's tensors and facts."""

    def damage(run: Run) -> None:
        tensors, facts = load_file(run.checkpoint_path), read_header(run.checkpoint_path)[1]
        change(tensors, facts)
        save_file(tensors, run.checkpoint_path, facts)

    return damage


def rewritten(change):
    """A damage to the log's lines."""

    def damage(run: Run) -> None:
        lines = run.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
        run.log_path.write_bytes(b"".join(line.encode() if isinstance(line, str) else line for line in change(lines)))

    return damage


def with_progress(**changes):
    return resaved(lambda tensors, facts: facts.update(progress=json.dumps(json.loads(facts["progress"]) | changes)))


FIRST, MOMENT = "model/embedding.weight", "optimizer/embedding.weight/exp_avg_sq"
STATE = [f"optimizer/embedding.weight/{key}" for key in ("step", "exp_avg", "exp_avg_sq")]
DAMAGES = {
    "cut short": (lambda run: os.truncate(run.checkpoint_path, 5000), "not a whole safetensors file"),
    "empty": (lambda run: os.truncate(run.checkpoint_path, 0), "not a whole safetensors file"),
    "no progress": (resaved(lambda tensors, facts: facts.pop("progress")), "progress can't be read.*KeyError"),
    "progress no JSON": (resaved(lambda tensors, facts: facts.update(progress="{")), "progress can't be read"),
    "progress a list": (resaved(lambda tensors, facts: facts.update(progress="[1]")), "progress can't be read"),
    "another key": (with_progress(steps=3), "progress can't be read"),
    "step a text": (with_progress(step="11"), "step is '11', no whole number"),
    "step true": (with_progress(step=True), "step is True"),
    "seconds null": (with_progress(seconds=None), "seconds is None"),
    "best a list": (with_progress(best_loss=[1]), r"best_loss is \[1\]"),
    "best nan": (with_progress(best_loss=float("nan")), "best_loss is nan"),
    "precision": (with_progress(precision="fp8"), "'fp8'"),
    "settings": (resaved(lambda tensors, facts: facts.update(settings="[]")), "its settings can't be read"),
    "weight gone": (resaved(lambda tensors, facts: tensors.pop(FIRST)), f"{FIRST} is missing"),
    "moment gone": (resaved(lambda tensors, facts: tensors.pop(MOMENT)), f"{MOMENT} is missing"),
    "state gone": (resaved(lambda t, facts: [t.pop(name) for name in STATE]), r"it has \d+ tensors of \d+"),
    "one too many": (resaved(lambda tensors, facts: tensors.update(x=torch.ones(2))), "x is no tensor of this model"),
    "moment short": (resaved(lambda t, facts: t.update({MOMENT: torch.ones(3)})), r"exp_avg_sq is \(3,\).* must be"),
    "weight wide": (resaved(lambda t, facts: t.update({FIRST: torch.ones(257, 17)})), r"weight is \(257, 17\)"),
    "rounded": (resaved(lambda t, facts: t.update({MOMENT: t[MOMENT].half()})), "torch.float16; it must be"),
    "negative": (resaved(lambda t, facts: t.update({MOMENT: -t[MOMENT] - 1})), "holds impossible values"),
    "nan": (resaved(lambda t, facts: t.update({FIRST: t[FIRST] * torch.nan})), "holds impossible values"),
    "counter": (
        resaved(lambda t, facts: t.update({STATE[0]: torch.tensor(500.0)})), "is 500 at step 11"
    ),
    "log no UTF-8": (rewritten(lambda lines: [*lines, b"\xff\xfe\n"]), "damaged: .*utf-8"),
    "log gap": (rewritten(lambda lines: lines[:4] + lines[5:]), "lost rows: step 5 follows step 3"),
    "log twice": (rewritten(lambda lines: lines[:4] + lines[3:]), "steps don't rise"),
    "log short": (rewritten(lambda lines: lines[:-2]), "it ends at step 9 before 11"),
    "log gone": (lambda run: run.log_path.unlink(), "it ends at step 0 before 11"),
    "log header": (rewritten(lambda lines: [lines[0].replace("seconds", "x"), *lines[1:]]), "must begin"),
    "log column": (rewritten(lambda lines: [line.replace("\n", ",1\n") for line in lines]), "has the columns 'step"),
    "log words": (rewritten(lambda lines: [*lines, "12,x\n"]), "tokens is 'x' in row 12"),
    "log step": (rewritten(lambda lines: [*lines, lines[-1].replace("11,", "x,", 1)]), "step is 'x' in row 12"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_any_damage_is_an_error_that_says_what_to_do(stopped, data, kind):
    damage, said = DAMAGES[kind]
    damage(stopped)
    before = contents(stopped)
    with pytest.raises(RunError, match=rf"(?s){said}.*([Rr]estore|[Tt]rain)"):
        next(train(stopped, data))
    assert contents(stopped).items() >= before.items()


def test_a_checkpoint_of_an_earlier_version_goes_on_to_the_same_numbers(stopped, data, whole):
    resaved(lambda tensors, facts: [facts.pop(name) for name in ("settings", "tokenizer", "tensors")])(stopped)
    values = progress(stopped)
    plain = {name: values[name] for name in ("step", "seconds", "best_loss", "precision", "compiled")}
    resaved(lambda tensors, facts: facts.update(progress=json.dumps(plain)))(stopped)
    list(train(stopped, data))
    assert_same(stopped, whole)


# --- the end can be written again -----------------------------------------------------------------------------


class Killed(BaseException):
    """What no code under test may catch."""


@pytest.mark.parametrize("write", range(1, 7))
def test_killed_at_any_write_the_last_part_can_be_done_again(stopped, data, whole, monkeypatch, write):
    """Holder, log, [the last row,] best weights, checkpoint, picture, card."""
    replace, calls = os.replace, []

    def kill(source, target):
        calls.append(Path(target).name)
        if len(calls) == write:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(Killed):
        list(train(stopped, data))
    monkeypatch.undo()
    assert not stopped.is_finished()
    list(train(stopped, data))
    assert stopped.is_finished() and not list(stopped.folder.rglob("*.part"))
    assert_same(stopped, whole)


def test_a_sweep_does_not_take_a_run_without_its_card_for_finished(tmp_path, whole):
    shutil.copytree(whole.folder, tmp_path / "a-seed0")
    run = Run.open("a-seed0", tmp_path)
    assert run.is_finished() and list(sweep({"a": (MODEL, TRAIN)}, (0,), tmp_path)) == []
    for name in ("README.md", "loss.png", "model.safetensors"):
        (run.folder / name).unlink()
        assert not run.is_finished()
        assert list(sweep({"a": (MODEL, TRAIN)}, (0,), tmp_path)) == [] and run.is_finished()
    assert float(run.weights_facts()["validation_loss"]) == run.log()["validation_loss"].iloc[-1]


def test_interrupted_while_the_end_is_written_it_is_written_all_the_same(stopped, data, monkeypatch):
    from lab.training.card import write_card

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        write_card(*arguments)

    monkeypatch.setattr("lab.training.storing.write_card", interrupted)
    list(train(stopped, data))
    assert stopped.is_finished()


def test_leftovers_of_killed_processes_go_at_the_next_start_and_no_others(stopped, data, tmp_path):
    gone = [stopped.folder / ".model.safetensors.x1.part", stopped.checkpoint_path.parent / ".state.safetensors.x.part"]
    lens = stopped.folder / ".lens.safetensors.x1.part"  # not a training's own: somebody may be writing it
    for path in (*gone, lens):
        path.write_bytes(b"half")
    next(train(stopped, data))
    assert lens.exists() and not any(path.exists() for path in gone)
    names = (".a.abcdefg1", ".a.abcdefg2", ".a.abcdefg3", ".a.abcdefg4", ".a.notebook")
    made = {name: tmp_path / name for name in names}
    for path in made.values():
        (path / "a").mkdir(parents=True)
        (path / "a" / "model.safetensors").write_bytes(b"whole weights")
    (made[".a.abcdefg1"] / "lock").touch()  # killed: nobody has it
    os.utime(made[".a.abcdefg2"], (0, 0))  # without a lock, and old
    (made[".a.notebook"] / "mine.txt").touch()  # something else
    with FileLock(made[".a.abcdefg4"] / "lock"):  # alive
        new_run(tmp_path, "another")
    assert [name for name, path in made.items() if path.exists()] == [".a.abcdefg3", ".a.abcdefg4", ".a.notebook"]


# --- what goes wrong meanwhile --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError("no room"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
])
def test_out_of_memory_says_which_setting_to_lower(tmp_path, data, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr("lab.training.loop.take_step", full)
    with pytest.raises(RunError, match=r"out of memory .*micro_batch_size=2 \(now 4 .*gradient_checkpointing=True"):
        next(train(new_run(tmp_path), data))
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        next(train(new_run(tmp_path, "other"), data))


def test_a_run_deleted_while_it_trains_is_told_and_not_made_again(tmp_path, data):
    run = new_run(tmp_path)
    steps = train(run, data)
    next(steps)
    shutil.rmtree(run.folder)
    with pytest.raises(RunError, match="run is gone: the run was deleted or moved while it trained"):
        next(steps)
    run = new_run(tmp_path)
    with pytest.raises(RunError, match="is gone"), closing(train(run, data)) as steps:
        next(steps)
        shutil.rmtree(run.folder)
    assert run_names(tmp_path) == []


def test_a_full_disk_when_the_loop_is_left_is_said(tmp_path, data, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = new_run(tmp_path)
    said = "run could not be kept as it was at step 1: can't write .*No space left"
    with pytest.raises(RunError, match=said), closing(train(run, data)) as steps:
        next(steps)
        monkeypatch.setattr("safetensors.torch.save_file", no_space)


def test_a_seed_is_as_large_as_it_works_or_refused_with_its_bound(tmp_path, data):
    assert next(train(new_run(tmp_path, seed=9 * 10**12), data)).step == 1
    with pytest.raises(ConfigError, match="seed must be an integer from 0 to 9,000,000,000,000, not 17641152"):
        TrainConfig(seed=1_764_115_200_000_000_000)


def test_a_card_is_true_under_any_name(tmp_path, whole):
    card = (whole.folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A transformer like llama-tiny, trained on tales\n")
    run = Run.open(shutil.copytree(whole.folder, tmp_path / "peculiar-name"))
    atomic_write_text(run.card_path, card)
    made = import_run(export_run(run, tmp_path / "run.zip"), tmp_path, name="another")
    assert "peculiar" not in (made.folder / "README.md").read_text(encoding="utf-8") and made.is_finished()
