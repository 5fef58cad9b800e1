"""Classifiers in folders: saved whole or not at all, and opened to the same numbers."""

import os
from pathlib import Path

import torch
from torch import nn

from config import ModelConfig
from lab.adapting.classifier_report import ClassifierReport
from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.text_classifier import TextClassifier
from lab.compute.device import pick_device
from lab.data.tokenizers import tokenizer_from_json
from lab.files.reading import named_path, reading
from lab.runs.classifier_record import CLASSIFIER_WEIGHTS, RECORD, ClassifierRecord, is_classifier, read_record
from lab.runs.idea_source import check_ideas_imported, idea_source
from lab.runs.lock import build_folder
from lab.runs.names import check_name, no_run, runs_folder
from lab.runs.run import Run, free_name
from lab.runs.weights import check_layers, misfit, read_header, read_tensors, weights_file, write_tensors
from modules.classifier import Classifier
from modules.transformer import Transformer
from settings.errors import GlassboxError, RunError


def save_classifier(
    classifier: TextClassifier, report: ClassifierReport, name: str, folder: Path | None = None, *,
    numbered: bool = False,
) -> Path:
    """Writes a classifier into a new folder of that name beside the runs, and returns it.

    A frozen classifier's folder holds the head alone; it needs its run with the same weights when it is opened.
    numbered: if the name is taken, use name-2, name-3, ... Raises RunError for a name that is taken or that some file
    system refuses, and where the folder can't be written.
    """
    free, folder = check_free(name, folder, numbered=numbered), runs_folder(folder)
    config = classifier.module.trunk.config
    record = ClassifierRecord(
        task=report.task, texts=report.texts, classes=classifier.classes, settings=classifier.config.to_dict(),
        accuracy=report.accuracy, baseline=report.baseline_accuracy, held_out=len(report.labels),
    )
    files = {
        RECORD: record.to_json(), "origin.json": classifier.origin.to_json(), "model_config.json": config.to_json(),
        "tokenizer.json": classifier.tokenizer.to_json(),
    }
    source = idea_source(config)
    try:
        with build_folder(free, folder) as building:
            for file, text in (files | ({"idea.py": source} if source else {})).items():
                (building / file).write_text(text, encoding="utf-8", newline="\n")
            write_tensors(building / CLASSIFIER_WEIGHTS, stored_parameters(classifier.module), {})
    except OSError as error:
        reason = f"{error.strerror}; free space or choose another folder"
        raise RunError(f"can't save a classifier in {folder}: {reason}") from error
    return folder / free


def check_free(name: str, folder: Path | None = None, *, numbered: bool = False) -> str:
    """The name under which a classifier can be saved. Raises RunError as `save_classifier` does for names."""
    check_name(name)
    return free_name(name, runs_folder(folder), numbered)


def open_classifier(name: str | Path, folder: Path | None = None, device: str = "auto") -> TextClassifier:
    """The classifier that `save_classifier` wrote under that name.

    Raises RunError where there is none, where it is damaged, and for a frozen one whose run is gone or has other
    weights now.
    """
    folder, name = runs_folder(folder), named_path(name)
    path = folder / name if os.path.isdir(folder / name) else name
    if not is_classifier(path):
        if os.path.isdir(path):
            raise RunError(f"{path.name!r} is no classifier: it has no {RECORD}; Run.open opens a run")
        raise no_run(str(name), folder)
    try:
        return read_classifier(path, device)
    except GlassboxError as error:
        raise RunError(f"classifier {path.name!r} can't be opened: {error}") from error


def read_classifier(path: Path, device: str) -> TextClassifier:
    """The classifier in a folder. Raises GlassboxError."""
    record, origin = read_record(path)
    with reading(path / RECORD):
        settings = ClassifierConfig.from_dict(record.settings)
    with reading(path / "model_config.json"):
        text = (path / "model_config.json").read_text(encoding="utf-8")
        if os.path.lexists(path / "idea.py"):
            check_ideas_imported(text, path.name)
        config = ModelConfig.from_json(text)
    with reading(path / "tokenizer.json"):
        tokenizer = tokenizer_from_json((path / "tokenizer.json").read_text(encoding="utf-8"))
    if settings.full:
        shapes = read_header(path / CLASSIFIER_WEIGHTS)[0]
        inner = {name.removeprefix("trunk."): shape for name, shape in shapes.items()}
        check_layers(inner, config.replace(lora=None), path / CLASSIFIER_WEIGHTS)  # before a large model is built
        trunk = Transformer(config)
    else:
        run = Run.open(origin.find(path.parent, weights_file(config)))
        if (run.model_config, run.tokenizer.fingerprint) != (config, tokenizer.fingerprint):
            raise RunError(f"{run.name!r} has another tokenizer or other settings than when this was trained on it")
        trunk = run.load_model()
    module = Classifier(trunk, len(record.classes), settings.full)
    read_parameters(module, path / CLASSIFIER_WEIGHTS)
    return TextClassifier(module.to(pick_device(device)).eval(), record.classes, tokenizer, origin, settings)


def stored_parameters(module: Classifier) -> dict[str, nn.Parameter]:
    """What a classifier's folder holds: the head's parameters, and where all were trained, those of the model too."""
    return {name: value for name, value in module.named_parameters() if module.full or name.startswith("head.")}


def read_parameters(module: Classifier, path: Path) -> None:
    """Copies the stored parameters into a classifier. Raises RunError where others are stored."""
    tensors, expected = read_tensors(path)[0], stored_parameters(module)
    wrong = [
        f"{name}: stored {found}, expected {wanted}"
        for name in sorted(tensors.keys() | expected.keys())
        for found, wanted in [tuple(describe_tensor(name, part) for part in (tensors, expected))]
        if found != wanted
    ]
    if wrong:
        raise misfit(path, "; ".join(wrong[:3]))
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])


def describe_tensor(name: str, tensors: dict[str, torch.Tensor]) -> str:
    """The type and the shape of a tensor, in words."""
    return f"{tensors[name].dtype} {tuple(tensors[name].shape)}" if name in tensors else "nothing"
