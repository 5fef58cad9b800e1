"""Classifiers in folders: equal when opened again, told apart from runs, bound to their run, refused when damaged."""

import json
import os
import shutil

import pytest
import torch

from config import LoRAConfig
from lab.adapting.classification import train_classifier
from lab.adapting.classifier_report import measure_classifier
from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.fine_tuning import fine_tune
from lab.adapting.stored_classifier import open_classifier, save_classifier
from lab.adapting.text_classifier import build_classifier
from lab.comparison.comparison import compare
from lab.files.reading import checksum
from lab.runs.listing import delete_run, list_runs
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from modules.transformer import Transformer
from settings.errors import RunError
from tests.helpers.labelled_texts import animal_task
from tests.helpers.small_runs import MODEL, TRAIN, make_run

pytestmark = pytest.mark.usefixtures("seeded")
BASE = MODEL.replace(tie_weights=False, context_length=32)
TASK = animal_task(120)
FROZEN = ClassifierConfig(device="cpu", steps=10)
FULL = FROZEN.replace(full=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, a frozen classifier on it and a full one, with their reports."""
    folder = tmp_path_factory.mktemp("runs")
    run = make_run(folder, "base", BASE)
    found = {}
    for name, config in (("frozen", FROZEN), ("full", FULL)):
        classifier = build_classifier(run, TASK, config)
        for _ in train_classifier(classifier, TASK):
            pass
        found[name] = classifier, measure_classifier(classifier, TASK)
        save_classifier(*found[name], name, folder)
    return folder, found


@pytest.fixture
def folder(made, tmp_path):
    """A copy of them that a test may damage. The run is found beside the classifier, not where it was."""
    return shutil.copytree(made[0], tmp_path / "runs")


@pytest.mark.parametrize("name", ["frozen", "full"])
def test_it_opens_equal_bit_for_bit(made, folder, name):
    classifier, report = made[1][name]
    opened = open_classifier(name, folder, "cpu")
    assert opened.classes == classifier.classes and opened.config == classifier.config
    assert repr(opened) == repr(classifier)
    ids = classifier.encode([one.text for one in TASK.held_out])
    assert torch.equal(opened.logits(ids), classifier.logits(ids))
    assert repr(measure_classifier(opened, TASK)) == repr(report)
    for one, other in zip(classifier.module.parameters(), opened.module.parameters(), strict=True):
        assert torch.equal(one, other) and one.requires_grad == other.requires_grad


def test_a_frozen_one_holds_the_head_alone_and_the_run_is_as_it_was(made):
    folder, _ = made
    weights = {name: (folder / name / "classifier.safetensors").stat().st_size for name in ("frozen", "full")}
    trunk = (folder / "base" / "model.safetensors").stat().st_size
    assert weights["frozen"] < 1000 < trunk < weights["full"]
    origin = json.loads((folder / "frozen" / "origin.json").read_text())
    assert origin["run"] == "base" and origin["weights"] == checksum(folder / "base" / "model.safetensors")


def test_runs_lists_it_by_its_run_and_its_accuracy_and_deletes_it(made, folder):
    _, report = made[1]["full"]
    table = list_runs(folder)
    assert table.status["full"] == (
        f"classifier on base, {100 * report.accuracy:.1f} % right (bag of words {100 * report.baseline_accuracy:.1f} %)"
    )
    assert table.data["full"] == "animals" and table.parameters["frozen"] == 3 * 16 + 3
    assert table.status["base"] == "finished, 40 steps"
    delete_run("full", confirm="full", folder=folder)
    assert sorted(list_runs(folder).index) == ["base", "frozen"]


def test_it_is_no_run_and_a_run_is_no_classifier(folder):
    with pytest.raises(RunError, match=r"'full' is a classifier, and not a run: open it by open_classifier\('full'\)"):
        Run.open("full", folder)
    with pytest.raises(RunError, match=r"'base' is no classifier: it has no classifier.json; Run.open opens a run"):
        open_classifier("base", folder)
    with pytest.raises(RunError, match=r"no run 'ful' in .*; did you mean 'full'"):
        open_classifier("ful", folder)
    comparison = compare(None, folder)
    assert list(comparison.runs) == ["base"] and "is a classifier" in comparison.left_out["frozen"]


def test_a_frozen_one_needs_its_run_with_the_same_weights_and_a_full_one_needs_nothing(folder):
    make_run(folder.parent / "other", "base", BASE, TRAIN.replace(seed=1))
    shutil.copy(folder.parent / "other" / "base" / "model.safetensors", folder / "base")
    hide_origin(folder / "frozen")
    with pytest.raises(RunError, match=r"classifier 'frozen' can't be opened: it is a classifier on base .*SHA-256"):
        open_classifier("frozen", folder)
    shutil.rmtree(folder / "base")
    with pytest.raises(RunError, match=r"classifier 'frozen' can't be opened: .*that run is not there"):
        open_classifier("frozen", folder)
    assert open_classifier("full", folder, "cpu").classify("a cat").label in TASK.classes


def hide_origin(folder) -> None:
    """Forgets where the run was, as for a classifier from another machine."""
    origin = json.loads((folder / "origin.json").read_text())
    (folder / "origin.json").write_text(json.dumps(origin | {"path": None}))


def test_a_name_that_is_taken_or_impossible_is_refused_and_changes_nothing(made, folder):
    classifier, report = made[1]["frozen"]
    before = sorted(os.listdir(folder))
    with pytest.raises(RunError, match="a run named 'base' exists"):
        save_classifier(classifier, report, "base", folder)
    with pytest.raises(RunError, match="can't be a run's name"):
        save_classifier(classifier, report, "a/b", folder)
    assert sorted(os.listdir(folder)) == before
    assert save_classifier(classifier, report, "frozen", folder, numbered=True).name == "frozen-2"


def test_what_cannot_be_written_leaves_nothing(made, folder, monkeypatch):
    classifier, report = made[1]["frozen"]
    before = sorted(os.listdir(folder))

    def full_disk(*_):
        raise RunError("can't write: no space left on device")

    monkeypatch.setattr("lab.adapting.stored_classifier.write_tensors", full_disk)
    with pytest.raises(RunError, match="no space left"):
        save_classifier(classifier, report, "new", folder)
    assert sorted(os.listdir(folder)) == before


RECORDS = [
    {"classes": ["cat"]}, {"classes": ["cat", "cat", "dog"]}, {"classes": "cat"}, {"accuracy": 2.0}, {"accuracy": "1"},
    {"held_out": 0}, {"settings": []}, {"settings": {"steps": 0}}, {"settings": {"what": 1}}, {"what": 1},
]


@pytest.mark.parametrize("changes", RECORDS, ids=str)
def test_a_damaged_record_is_refused_by_name(folder, changes):
    path = folder / "full" / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(RunError, match=r"classifier 'full' can't be opened: classifier\.json"):
        open_classifier("full", folder)
    if "settings" not in changes:
        assert list_runs(folder).status["full"].startswith("damaged: classifier.json")


@pytest.mark.parametrize("name", ["frozen", "full"])
@pytest.mark.parametrize("classes", [["cat", "cow"], ["ant", "cat", "cow", "dog"]])
def test_weights_of_another_shape_are_refused(folder, name, classes):
    path = folder / name / "classifier.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    with pytest.raises(RunError, match=r"head\.bias: stored torch\.float32 \(3,\), expected torch\.float32 \(\d,\)"):
        open_classifier(name, folder)


def test_a_config_that_claims_a_larger_model_is_refused_before_that_is_built(folder, monkeypatch):
    path = folder / "full" / "model_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_layers": 512}))
    monkeypatch.setattr("lab.adapting.stored_classifier.Transformer", None)
    with pytest.raises(RunError, match="n_layers: stored 1, the config wants 512"):
        open_classifier("full", folder)


def adapter_on(base: Run) -> Run:
    """A run with an adapter that is not zero."""
    run = fine_tune(base, lora=LoRAConfig(rank=2), name="adapter", folder=base.folder.parent)
    model = Transformer(run.model_config)
    tensors = {name: torch.randn_like(tensor) for name, tensor in model.stored_tensors().items()}
    write_tensors(run.weights_path, tensors, {"step": 1})
    return run


def test_a_classifier_on_an_adapter_opens_equal(folder):
    adapter = adapter_on(Run.open("base", folder))
    for config in (FROZEN, FULL):
        classifier = build_classifier(adapter, TASK, config)
        for _ in train_classifier(classifier, TASK):
            pass
        path = save_classifier(classifier, measure_classifier(classifier, TASK), "on-adapter", folder, numbered=True)
        ids = classifier.encode(["a cat", "one dog"])
        assert torch.equal(open_classifier(path, device="cpu").logits(ids), classifier.logits(ids))


@pytest.mark.parametrize("file", ["classifier.json", "classifier.safetensors", "tokenizer.json", "model_config.json"])
@pytest.mark.parametrize("content", ["", "{", None])
def test_a_damaged_or_missing_file_is_refused_by_name(folder, file, content):
    path = folder / "full" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunError, match=file.replace(".", r"\.")):
        open_classifier("full", folder)
