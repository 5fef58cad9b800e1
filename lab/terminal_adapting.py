"""The commands that make something new of a trained run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import tyro

from config import DistilConfig, ModelConfig, Preset, TrainConfig
from lab.terminal_flags import FLAGS, kinds_as_choices
from lab.terminal_training import default_name, starting_point, train_on
from settings.errors import ConfigError

Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class Distilling:
    """Train a model, the student, that also learns from a trained run, its teacher: from its logits and hidden states.

    The student reads the teacher's data and tokens. All other defaults follow --preset or --like.
    """

    teacher: Positional[str]  # The name of a trained run, or its folder. It stands before the flags.
    name: str | None = None  # The student's; by default from the preset's and the teacher's, numbered where taken.
    preset: str = "llama-tiny"  # An architecture and a size: gpt2-tiny, llama-small, alibi-character, ...
    like: str | None = None  # A run whose settings to start from, instead of a preset's.
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
    train_on(Run.create(name, settings.model, settings.train, numbered=settings.name is None))


def merge(run: Positional[str], name: str | None = None) -> None:
    """Make a run of its own of an adapter and its base; it computes the same and needs the base no longer.

    Args:
        run: The adapter's run, or its folder.
        name: What to call the new run; by default the run's name with -merged.
    """
    from lab.adapting.adapters import merge_adapter
    from lab.runs.run import Run

    print(repr(merge_adapter(Run.open(run), name)))
