"""The run folder: names, damage, deletion, weights that are not what they claim."""

import json
import pickle
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from config import ALiBiConfig, FactoredBlockConfig, NoPositionConfig, ShapedBlockConfig, SinusoidalConfig, preset
from lab.runs.listing import delete_run, list_runs
from lab.runs.run import Run
from lab.runs.settings import starting_settings
from lab.runs.weights import write_tensors
from lab.terminal import parse_training
from lab.training.card import training_command
from lab.training.checkpoint import still_holds
from modules.transformer import Transformer
from settings.errors import RunError
from tests.helpers.two_step_runs import MODEL, TRAIN, two_steps_done


@pytest.fixture
def run(tmp_path) -> Run:
    return two_steps_done(tmp_path)


def test_weights_come_back_equal_and_tied(run):
    model, stored = run.load_model(), load_file(run.weights_path)
    assert "head.weight" not in stored and model.head.weight is model.embedding.weight
    assert all(torch.equal(parameter, stored[name]) for name, parameter in model.named_parameters())
    assert not model.training


@pytest.mark.parametrize(
    "name", ["", "a|b", "a/b", "..", "a\\b", "con", "COM1.txt", "name.", "ä", "-rm", "a b", "x" * 81, "a\nb"]
)
def test_names_that_some_file_system_refuses(tmp_path, name):
    with pytest.raises(RunError, match="can't be a run's name"):
        Run.create(name, MODEL, TRAIN, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stored_tokenizer_is_built_once_for_all_runs(run):
    again = Run.open(run.folder)
    assert again.tokenizer is run.tokenizer
    (run.folder / "data.json").unlink()  # the record that would tell of the other
    stored = run.folder / "tokenizer.json"
    stored.write_text(stored.read_text(encoding="utf-8").replace('"name": "', '"name": "other-'), encoding="utf-8")
    assert Run.open(run.folder).tokenizer.name == f"other-{run.tokenizer.name}", "another file, another tokenizer"


def test_a_taken_name_is_refused_or_numbered(run, tmp_path):
    before = run.weights_path.read_bytes()
    with pytest.raises(RunError, match="exists"):
        Run.create("one", MODEL, TRAIN, tmp_path)
    assert Run.create("one", MODEL, TRAIN, tmp_path, numbered=True).name == "one-2"
    assert run.weights_path.read_bytes() == before


def test_unknown_run_names_the_nearest(run, tmp_path):
    with pytest.raises(RunError, match=r"no run 'on' .*did you mean 'one'"):
        Run.open("on", tmp_path)


def test_a_name_is_as_long_as_its_bytes(tmp_path):
    with pytest.raises(RunError, match="it is too long"):
        starting_settings("ü" * 200)  # 400 bytes: file systems take 255


def test_a_path_can_be_a_name(tmp_path):
    assert Run.create(Path("one"), MODEL, TRAIN, tmp_path).name == "one"


def test_what_a_run_still_holds_is_told_of_weights_that_say_nothing(run):
    write_tensors(run.weights_path, dict(Transformer(MODEL).named_parameters()), {})
    assert still_holds(run) == "The run still holds the weights of step 0"


def test_a_pickle_under_the_name_of_weights_is_never_loaded(run):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    run.weights_path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RunError, match="not a whole safetensors file"):
        run.load_model()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(run, share):
    whole = run.weights_path.read_bytes()
    run.weights_path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RunError, match="not a whole safetensors file"):
        run.load_model()


def test_weights_of_another_model_are_refused(run):
    tensors = load_file(run.weights_path)
    tensors["norm.weight"] = torch.ones(3)
    save_file(tensors, run.weights_path)
    with pytest.raises(RunError, match=r"norm.weight: stored \(3,\), the config wants \(16,\)"):
        run.load_model()


def damage_json(run):
    (run.folder / "model_config.json").write_text("{")


def damage_key(run):
    values = json.loads((run.folder / "model_config.json").read_text())
    (run.folder / "model_config.json").write_text(json.dumps(values | {"widht": 3}))


def damage_block(run):
    values = json.loads((run.folder / "model_config.json").read_text())
    (run.folder / "model_config.json").write_text(json.dumps(values | {"block": {"kind": "from-the-future"}}))


def damage_log(run):
    run.log_path.write_text("step,loss\n1,2\n")


def damage_weights(run):
    run.weights_path.write_bytes(b"short")


def remove_tokenizer(run):
    (run.folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (damage_json, "not valid JSON"), (damage_key, "widht"), (damage_block, "from-the-future"),
        (damage_log, "tokens"), (damage_weights, "safetensors"), (remove_tokenizer, "tokenizer.json"),
    ],
)
def test_damaged_runs_are_listed_with_the_reason(run, tmp_path, damage, reason):
    shutil.copytree(run.folder, tmp_path / "two")
    damage(run)
    runs = list_runs(tmp_path)
    assert runs.loc["one", "status"].startswith("damaged") and reason in runs.loc["one", "status"]
    assert runs.loc["two", "status"] == "stopped at step 2 of 4"
    assert runs.loc["two", "validation_loss"] == 5.25
    assert runs.loc["two", "parameters"] == sum(p.numel() for p in Transformer(MODEL).parameters())


def test_no_runs_is_an_empty_table(tmp_path):
    assert len(list_runs(tmp_path / "nowhere")) == 0


def test_deleting_takes_the_name_twice(run, tmp_path):
    with pytest.raises(RunError, match="confirm='one'"):
        delete_run("one", confirm="yes", folder=tmp_path)
    assert run.folder.exists()
    delete_run("one", confirm="one", folder=tmp_path)
    assert not run.folder.exists()
    with pytest.raises(RunError, match="can't be a run's name"):
        delete_run("../one", confirm="../one", folder=tmp_path)


def test_the_cards_command_makes_the_same_settings(tmp_path):
    model, train = MODEL.replace(n_layers=3), TRAIN.replace(steps=7, gradient_clip=None, sample_prompt="It's a test")
    command = training_command(Run.create("one", model, train, tmp_path))
    assert command.startswith("python tools.py train --preset")
    settings = parse_training(shlex.split(command)[3:])
    assert (settings.model, settings.train) == (model, train)


@pytest.mark.parametrize("block", [FactoredBlockConfig(value_mixing="dense"), ShapedBlockConfig(mlp_gain=0.3)])
def test_the_cards_command_knows_blocks(tmp_path, block):
    """Whether a preset has the block, or only its kind names it."""
    name = "sasp-tiny" if block.kind == "shaped" else "factored-tiny"
    model = preset(name).model.replace(block=block, vocab_size=257)
    command = training_command(Run.create("one", model, TRAIN, tmp_path))
    assert f"--preset {name} " in command
    assert parse_training(shlex.split(command)[3:]).model == model
    model = MODEL.replace(block=block)
    command = training_command(Run.create("two", model, TRAIN, tmp_path))
    assert parse_training(shlex.split(command)[3:]).model == model


POSITIONS = [SinusoidalConfig(theta=500.0), ALiBiConfig(slopes=(0.5, 0.25)), NoPositionConfig()]


@pytest.mark.parametrize("position", POSITIONS)
def test_the_cards_command_knows_positions(tmp_path, position):
    model = MODEL.replace(position=position)
    command = training_command(Run.create("one", model, TRAIN, tmp_path))
    assert parse_training(shlex.split(command)[3:]).model == model
