"""The commands that make something new of a trained run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro

from config import DistilConfig, ModelConfig, Preset, TrainConfig
from lab.adapting.classifier_settings import ClassifierConfig
from lab.terminal_flags import FLAGS, kinds_as_choices
from lab.terminal_training import RANK_TIMEOUT, Sharding, default_name, say_progress, starting_point, train_new
from settings.errors import ConfigError

if TYPE_CHECKING:
    from lab.adapting.labelled import LabelledTask

Positional = tyro.conf.Positional
PROGRESS_LINES = 10  # of a classifier's training
DEFAULTS = ClassifierConfig()


@dataclass(frozen=True, kw_only=True)
class Distilling:
    """Train a model, the student, that also learns from a trained run, its teacher: from its logits and hidden states.

    The student reads the teacher's data and tokens. All other defaults follow --preset or --like.
    """

    teacher: Positional[str]  # The name of a trained run, or its folder. It stands before the flags.
    name: str | None = None  # The student's; by default from the preset's and the teacher's, numbered where taken.
    preset: str = "llama-tiny"  # An architecture and a size: gpt2-tiny, llama-small, alibi-character, ...
    like: str | None = None  # A run whose settings to start from, instead of a preset's.
    sharding: Sharding = "none"  # full: with torchrun, weights, gradients and optimizer are split over the processes.
    rank_timeout: float = RANK_TIMEOUT  # Seconds that a process waits in a step for the others.
    model: ModelConfig
    train: TrainConfig


def parse_distilling(arguments: list[str]) -> Distilling:
    """The arguments of `distil` as settings."""
    start = starting_point(arguments)
    teacher, model, train = tyro.MISSING, start.model, start.train.replace(distil=DistilConfig(teacher="TEACHER"))
    if arguments and not arguments[0].startswith("-"):
        from lab.adapting.distillation import student_settings
        from lab.runs.run import Run

        teacher = arguments[0]
        model, train = student_settings(Run.open(teacher), Preset(model, train))
    elif "-h" not in arguments and "--help" not in arguments:
        raise ConfigError("name the teacher first, as in: python tools.py distil llama-tiny-tales --preset llama-tiny")
    default = Distilling(teacher=teacher, preset=start.preset, like=start.like, model=model, train=train)
    with kinds_as_choices(), without_flag(DistilConfig, "teacher"):
        return tyro.cli(Distilling, args=arguments, default=default, config=FLAGS, prog="python tools.py distil")


@contextmanager
def without_flag(settings: type, name: str) -> Iterator[None]:
    """Inside the `with`, tyro makes no flag of that setting."""
    before = settings.__annotations__[name]
    settings.__annotations__[name] = tyro.conf.Suppress[before]
    try:
        yield
    finally:
        settings.__annotations__[name] = before


def distil(settings: Distilling) -> None:
    from lab.runs.run import Run

    name = settings.name or default_name(settings.like or settings.preset, f"from-{settings.teacher}")
    numbered = settings.name is None
    train_new(settings, lambda: Run.create(name, settings.model, settings.train, numbered=numbered, tell=say_progress))


def merge(run: Positional[str], name: str | None = None) -> None:
    """Make a run of its own of an adapter and its base; it computes the same and needs the base no longer.

    Args:
        run: The adapter's run, or its folder.
        name: What to call the new run; by default the run's name with -merged.
    """
    from lab.adapting.adapters import merge_adapter
    from lab.runs.run import Run

    print(repr(merge_adapter(Run.open(run), name)))


def quantise(
    run: Positional[str], bits: Literal[8, 4] = 8, group: Literal[32, 64] | None = None, layers: str = "blocks.*",
    name: str | None = None,
) -> None:
    """Make a run of its own whose weights have few bits. It predicts nearly the same and takes less memory.

    Args:
        run: The run's name, or its folder.
        bits: 8, with a scale for each output of a layer, or 4, with a scale and an offset for each group of inputs.
        group: Inputs in a group, for 4 bits; by default 32.
        layers: Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".
        name: What to call the new run; by default the run's name with -int8 or -int4.
    """
    from lab.adapting.quantising import measure_quantisation, quantise_run
    from lab.runs.run import Run

    made = quantise_run(Run.open(run), bits=bits, group=group, layers=layers, name=name)
    print(repr(made))
    print(repr(measure_quantisation(made)))


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
