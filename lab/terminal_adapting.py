"""The commands that make something new of a trained run."""

from typing import TYPE_CHECKING

import tyro

from lab.adapting.classifier_settings import ClassifierConfig
from settings.errors import ConfigError

if TYPE_CHECKING:
    from lab.adapting.labelled import LabelledTask

Positional = tyro.conf.Positional
PROGRESS_LINES = 10  # of a classifier's training
DEFAULTS = ClassifierConfig()


def merge(run: Positional[str], name: str | None = None) -> None:
    """Make a run of its own of an adapter and its base; it computes the same and needs the base no longer.

    Args:
        run: The adapter's run, or its folder.
        name: What to call the new run; by default the run's name with -merged.
    """
    from lab.adapting.adapters import merge_adapter
    from lab.runs.run import Run

    print(repr(merge_adapter(Run.open(run), name)))


def classify(
    run: Positional[str], task: str | None = None, text: str | None = None, name: str | None = None,
    text_field: str | None = None, label_field: str | None = None,
    settings: tyro.conf.OmitArgPrefixes[ClassifierConfig] = DEFAULTS,
) -> None:
    """Train a classifier on a run (--task), or classify a text by one that was trained (--text).

    Args:
        run: With --task the name or folder of a run; with --text that of a classifier.
        task: prose-or-code, tale-of-probe, pronoun-in-tale, or a table of your own (jsonl, csv, tsv, parquet) whose
            rows hold a text and a label.
        text: A text to classify.
        name: The classifier's; by default from the run's and the task's, numbered where taken.
        text_field: The column of texts in your own table; by default the one called "text".
        label_field: The column of labels in it; by default "label".
        settings: How it is trained.
    """
    if (task is None) == (text is None):
        raise ConfigError("give --task to train a classifier on a run, or --text to classify a text by a classifier")
    if task is not None:
        from lab.adapting.labelled import LABEL_FIELD
        from lab.adapting.tasks import load_task

        train_and_save(run, load_task(task, text_field, label_field or LABEL_FIELD), name, settings)
        return
    if (name, text_field, label_field, settings) != (None, None, None, DEFAULTS.replace(device=settings.device)):
        raise ConfigError("with --text a classifier is only read: leave the settings of a training out")
    from lab.adapting.stored_classifier import open_classifier

    print(repr(open_classifier(run, device=settings.device).classify(text)))


def train_and_save(run: str, task: "LabelledTask", name: str | None, settings: ClassifierConfig) -> None:
    """Trains a classifier, prints how often it is right, and saves it."""
    from lab.adapting.classification import train_classifier
    from lab.adapting.classifier_report import measure_classifier
    from lab.adapting.stored_classifier import check_free, save_classifier
    from lab.adapting.text_classifier import build_classifier
    from lab.runs.names import name_from
    from lab.runs.run import Run

    opened = Run.open(run)
    wanted = name_from(f"{opened.name}-{task.name}") if name is None else name
    check_free(wanted, numbered=name is None)
    classifier = build_classifier(opened, task, settings)
    print(f"{task!r}\n{classifier!r}", flush=True)
    for step in train_classifier(classifier, task):
        if step.step % max(1, settings.steps // PROGRESS_LINES) == 0:
            print(f"step {step.step:,} of {settings.steps:,}: loss {step.loss:.4f} nats per text", flush=True)
    report = measure_classifier(classifier, task)
    path = save_classifier(classifier, report, wanted, numbered=name is None)
    print(repr(report))
    print(f"saved as {path.name}; python tools.py classify {path.name} --text ...")
