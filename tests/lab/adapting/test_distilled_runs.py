"""Runs that a teacher taught: they resume and open like others, and what can't be taught makes no folder."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from config import DataConfig, DistilConfig, FactoredBlockConfig, ModelConfig, Preset
from lab.adapting.distillation import student_settings
from lab.adapting.fine_tuning import fine_tune
from lab.comparison.overrides import overridden
from lab.comparison.sweep import sweep
from lab.costs.estimates import estimate
from lab.data.packing import prepare
from lab.evaluation.evaluate import evaluate
from lab.runs.names import run_names
from lab.runs.run import Run
from lab.sharing import export_run, import_run
from lab.terminal_adapting import parse_distilling
from lab.training.loop import train
from lab.training.rate_finder import find_learning_rate
from settings.errors import ConfigError, GlassboxError, RunError
from tests.helpers.small_trainings import MODEL, TRAIN, assert_same, new_run

TEACHER = MODEL.replace(n_layers=3, width=24)
HIDDEN = [f"distil_hidden_{layer}" for layer in (1, 2)]


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.fixture(scope="module")
def taught(tmp_path_factory, data) -> Path:
    """A folder with a trained teacher and a student of each mode."""
    folder = tmp_path_factory.mktemp("taught")
    list(train(new_run(folder, "teacher", TEACHER), data))
    for mode in ("whole", "blocks"):
        list(train(new_run(folder, mode, distil=distil(mode)), data))
    return folder


@pytest.fixture
def folder(tmp_path, taught) -> Path:
    """A copy with the teacher alone."""
    shutil.copytree(taught / "teacher", tmp_path / "teacher")
    return tmp_path


def distil(mode: str = "whole", **changes) -> DistilConfig:
    return DistilConfig(**dict(teacher="teacher", mode=mode) | changes)


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stop(run: Run, data, at: int) -> Run:
    for step in train(run, data):
        if step.step == at:
            break
    return Run.open(run.folder)


# --- a run like any other -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["whole", "blocks"])
def test_a_stopped_distillation_goes_on_to_the_same_numbers(taught, folder, data, mode):
    run = new_run(folder, mode, distil=distil(mode))
    for at in (3, 7):
        run = stop(run, data, at)
    list(train(run, data))
    assert_same(run, Run.open(mode, taught))


def test_the_losses_have_columns_of_their_own(taught):
    for mode in ("whole", "blocks"):
        log = Run.open(mode, taught).log()
        assert list(log.columns[-3:]) == ["distil_logits", *HIDDEN] and log[HIDDEN].notna().all(axis=None)
        assert log["distil_logits"].iloc[-3:].mean() < log["distil_logits"].iloc[0]


def test_only_the_student_is_stored_as_the_model_and_the_stitches_in_the_checkpoint(taught):
    run = Run.open("whole", taught)
    assert sum(tensor.numel() for tensor in load_file(run.weights_path).values()) == estimate(MODEL).parameters
    names = load_file(run.checkpoint_path)
    assert {"model/stitches.1.weight", "optimizer/stitches.2.bias/exp_avg"} <= names.keys()
    assert not [name for name in names if "teacher" in name]


def test_the_teacher_is_the_same_file_afterwards(folder, data):
    teacher = Run.open("teacher", folder)
    before = checksum(teacher.weights_path)
    list(train(new_run(folder, distil=distil()), data))
    assert checksum(teacher.weights_path) == before == Run.open("run", folder).origin.weights


def test_a_student_starts_with_the_weights_that_it_would_have_alone(folder, data):
    runs = [new_run(folder, name, learning_rate=1e-12, distil=how) for name, how in (("a", None), ("b", distil()))]
    for run in runs:
        stop(run, data, 1)
    first, second = (load_file(run.weights_path) for run in runs)
    assert all(torch.allclose(first[name], second[name], atol=1e-9) for name in first)


def test_a_student_opens_evaluates_and_travels_without_its_teacher(tmp_path, taught, data):
    shutil.copytree(taught / "whole", tmp_path / "run")
    run = Run.open("run", tmp_path)
    assert run.train_config.distil == distil() and run.origin.how == "distilled" and run.origin.run == "teacher"
    loss = evaluate(run.load_model(), data.validation, run.tokenizer, 256).loss
    assert loss == pytest.approx(run.validation_loss(), rel=1e-5)
    imported = import_run(export_run(run, tmp_path / "run.zip"), name="again", folder=tmp_path)
    assert evaluate(imported.load_model(), data.validation, imported.tokenizer, 256).loss == pytest.approx(loss)


def test_the_validation_loss_of_mode_blocks_is_of_the_student_on_its_own_states(taught, data):
    run = Run.open("blocks", taught)
    loss = evaluate(run.load_model(), data.validation, run.tokenizer, 256).loss
    assert loss == pytest.approx(run.validation_loss(), rel=1e-5)


def test_a_watched_distillation_goes_on_too(folder, data):
    run = stop(new_run(folder, distil=distil(), watch_every=3), data, 4)
    list(train(run, data))
    watched = run.watch()
    assert sorted(watched["step"].unique()) == [1, 3, 6, 9, 12] and "blocks.1" in set(watched["layer"])


def test_losses_that_are_not_finite_are_traced_to_their_place(folder, data):
    run = new_run(folder, distil=distil(hidden_weight=1e30), learning_rate=1e20, gradient_clip=None)
    with pytest.raises(RunError, match=r"step \d+: .* is not finite"):
        list(train(run, data))


def test_a_distilled_run_is_fine_tuned_without_its_teacher(taught, tmp_path, data):
    shutil.copytree(taught / "whole", tmp_path / "student")
    student = Run.open("student", tmp_path)
    run = fine_tune(student, name="tuned", folder=tmp_path)
    assert "anew: train.distil" in run.remark and run.origin.how == "fine_tuned" and run.train_config.distil is None
    assert next(train(run, data)).others == {}
    with pytest.raises(ConfigError, match="can't have a teacher, too: leave train"):
        fine_tune(student, TRAIN.replace(distil=distil(teacher="student")), name="again", folder=tmp_path)
    assert set(run_names(tmp_path)) == {"student", "tuned"}


# --- settings, and other ways to train ----------------------------------------------------------------------------


def test_student_settings_take_data_and_vocabulary_from_the_teacher(folder, data):
    teacher = Run.open("teacher", folder)
    model, config = student_settings(teacher, Preset(MODEL.replace(vocab_size=300), TRAIN.replace(data=DataConfig())),
                                     temperature=3.0)
    assert (model, config.data) == (MODEL, TRAIN.data)
    assert config.distil == DistilConfig(teacher=str(teacher.folder.resolve()), temperature=3.0)
    run = Run.create("student", model, config, folder / "elsewhere")
    assert next(train(run, data)).others.keys() == {"distil_logits", *HIDDEN}


def test_a_sweep_trains_students_and_a_rate_is_found_for_them(folder, data):
    variants = {"taught": Preset(MODEL, TRAIN.replace(steps=3, distil=distil()))}
    assert [step.step for _, step in sweep(variants, (0,), folder)] == [1, 2, 3]
    settings = student_settings(Run.open("teacher", folder), Preset(MODEL, TRAIN))
    plain = find_learning_rate(Preset(MODEL, TRAIN), data, steps=30)
    assert find_learning_rate(settings, data, steps=30).losses != plain.losses


def test_settings_of_a_teacher_can_be_varied_where_there_is_one():
    override = {"train.distil.temperature": 3.0}
    found = overridden(Preset(MODEL, TRAIN.replace(distil=distil())), [override], name="student")
    assert [settings.train.distil for settings in found.values()] == [distil(temperature=3.0)]
    with pytest.raises(ConfigError, match="these settings have no teacher; start from a run that `distil` made"):
        overridden(Preset(MODEL, TRAIN), [override], name="student")


def test_the_estimate_says_that_the_teacher_is_not_in_it():
    with_teacher, without = (repr(estimate(MODEL, TRAIN.replace(distil=given))) for given in (distil(), None))
    assert "forward and backward, without the teacher's forward pass" in with_teacher
    assert with_teacher.count("without the teacher") == 3 and "teacher" not in without


def test_the_command_reads_its_defaults_from_the_teacher(folder):
    teacher = str(folder / "teacher")
    flags = ["--preset", "gpt2-tiny", "--train.distil.temperature", "3", "--train.steps", "9"]
    settings = parse_distilling([teacher, *flags])
    assert settings.model.vocab_size == 257 and settings.model.position.kind == "learned"
    assert settings.train.data == TRAIN.data and settings.train.steps == 9
    assert settings.train.distil == DistilConfig(teacher=str(Path(teacher).resolve()), temperature=3.0)
    with pytest.raises(ConfigError, match="name the teacher first"):
        parse_distilling(["--preset", "gpt2-tiny"])


# --- what can't be taught, before a folder exists -----------------------------------------------------------------


def refused(folder: Path, said: str, model: ModelConfig = MODEL, **changes) -> None:
    before = run_names(folder)
    with pytest.raises(GlassboxError, match=said):
        new_run(folder, "student", model, **changes)
    with pytest.raises(GlassboxError, match=said):
        list(sweep({"student": Preset(model, TRAIN.replace(**changes))}, (0,), folder))
    assert run_names(folder) == before


def test_what_can_not_be_taught_makes_no_folder(folder):
    refused(folder, "no run 'gone' in .*", distil=distil(teacher="gone"))
    refused(folder, "layers names layer 4, and it has 3", distil=distil(layers=(1, 4)))
    refused(folder, "student has 2 layers; give one for each", distil=distil(layers=(1, 2, 3)))
    refused(folder, "it accepts 64 positions, and the student reads context_length=65",
            MODEL.replace(context_length=65), distil=distil())
    refused(folder, "the state of a factored block has several parts",
            MODEL.replace(block=FactoredBlockConfig()), distil=distil("blocks"))
    refused(folder, "it has vocab_size=257, not 384; give both models the same",
            MODEL.replace(vocab_size=384), distil=distil())


def test_a_teacher_of_other_tokens_makes_no_folder(folder):
    characters = TRAIN.data.replace(tokenizer="character")
    refused(folder, "the teacher 'teacher' reads the tokens of 'byte', and the data is cut by another tokenizer, "
            "'character'", MODEL.replace(vocab_size=333), data=characters, distil=distil())


def test_a_teacher_without_weights_makes_no_folder(folder):
    new_run(folder, "untrained")
    refused(folder, "model.safetensors is missing .*no weights yet", distil=distil(teacher="untrained"))


def test_going_on_needs_the_teacher_as_it_was(folder, data):
    run = stop(new_run(folder, distil=distil()), data, 3)
    teacher = Run.open("teacher", folder)
    kept = {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    weights = teacher.weights_path.read_bytes()
    teacher.weights_path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(RunError, match=r"distilled from teacher .*are others now.*Restore them"):
        next(train(run, data))
    shutil.move(teacher.folder, folder / "moved")
    with pytest.raises(RunError, match=r"distilled from teacher .*not there"):
        next(train(run, data))
    assert {str(path): path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == kept
    (folder / "moved" / "model.safetensors").write_bytes(weights)
    shutil.move(folder / "moved", folder / "teacher")
    assert next(train(run, data)).step == 4
