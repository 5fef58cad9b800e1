"""The commands `train` and `resume`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from config import LoRAConfig, ModelConfig, TrainConfig, preset
from lab.terminal_flags import FLAGS, kinds_as_choices, option, with_kinds
from settings.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train a model; its run appears in trained/. All other defaults follow --preset, --like or --from.

    --from starts from a run's weights, which never change: all of them train further, or with any --lora flag an
    adapter trains and they stay frozen. With the run's own text and more steps than it has done, its training goes on.

    A part of another kind, as in --model.position.kind alibi, has that kind's settings as flags. --idea FILE imports a
    file that registers an idea first.
    """

    name: str | None = None  # The run's; by default from the preset's and the data's, numbered where taken.
    preset: str = "llama-tiny"  # An architecture and a size: gpt2-tiny, llama-small, alibi-character, ...
    like: str | None = None  # A run whose settings to start from, instead of a preset's.
    base: Annotated[str | None, tyro.conf.arg(name="from")] = None  # A run whose settings and weights to start from.
    restart: bool = False  # With --from: begin optimizer and schedule anew, where the run's training could go on.
    lora: LoRAConfig | None = None  # With --from.
    model: ModelConfig
    train: TrainConfig


def parse_training(arguments: list[str]) -> Training:
    """The arguments of `train` as settings."""
    start = starting_point(arguments)
    with kinds_as_choices():
        settings = tyro.cli(Training, args=arguments, default=start, config=FLAGS, prog="python tools.py train")
    adapting = any(argument.startswith("--lora.") for argument in arguments)
    if settings.base is None and (adapting or settings.restart):
        raise ConfigError("--lora and --restart need a run to start from: --from RUN")
    return settings if adapting else replace(settings, lora=None)


def starting_point(arguments: list[str]) -> Training:
    """The defaults of `train`: those of the preset, or of the run, that its arguments name.

    The model has as many tokens as the tokenizer named, unless the arguments say how many.
    """
    like, name, base = (option(arguments, flag) for flag in ("--like", "--preset", "--from"))
    if [like, name, base].count(None) < 2:
        raise ConfigError("--preset, --like and --from each name a starting point; give one of them")
    if like is not None or base is not None:
        from lab.runs.run import Run
        from lab.runs.settings import with_own_warmup

        run = Run.open(like or base)
        model, train = run.model_config, with_own_warmup(run.train_config)
        train = train.replace(data=run.data_settings()) if like else train
        train = train.replace(distil=None) if base else train  # only a model with new weights can have a teacher
    else:
        name = Training.preset if name is None else name
        model, train = preset(name)
    tokenizer = option(arguments, "--train.data.tokenizer")
    if tokenizer is not None and tokenizer != train.data.tokenizer:
        from lab.data.tokenizers import vocabulary_size

        model = model.replace(vocab_size=vocabulary_size(tokenizer))
    model = with_kinds(model, arguments)
    return Training(
        preset=name or Training.preset, like=like, base=base, lora=LoRAConfig(), model=model, train=train
    )


def train(settings: Training) -> None:
    from lab.runs.run import Run

    name = settings.name
    if settings.base is not None:
        from lab.adapting.fine_tuning import fine_tune

        train_on(fine_tune(
            Run.open(settings.base), settings.train, model=settings.model, lora=settings.lora, name=name,
            restart=settings.restart,
        ))
        return
    if name is None:
        name = default_name(settings.like or settings.preset, settings.train.data.source)
    train_on(Run.create(name, settings.model, settings.train, numbered=settings.name is None))


def default_name(start: str, source: str) -> str:
    """A run's name from a preset's or a run's and from that of the data, in the letters that a name may have."""
    from lab.runs.names import name_from

    return name_from(f"{Path(start).name}-{Path(source).stem}")


def resume(run: tyro.conf.Positional[str]) -> None:
    """Go on with a run that was stopped, to the numbers it would have reached without the stop.

    Args:
        run: The run's name, or its folder.
    """
    from lab.runs.run import Run

    train_on(Run.open(run))


def train_on(run) -> None:
    """The terminal's training loop."""
    from lab.training.live import live
    from lab.training.loop import train as steps_of

    data = run.load_data()
    try:
        for _ in live(steps_of(run, data), run, floor=data.floor):
            pass
        print(run.summary(data.floor))
    finally:  # after an error, the warnings about layers help most
        print_watch(run)


def print_watch(run) -> None:
    """Prints the warnings about layers, if they were watched."""
    from lab.training.watch import watch_warnings

    if run.watch_path.exists():
        found = watch_warnings(run.watch())
        print("\n".join(["layers:", *(f"  {warning}" for warning in found)]) if found else "layers:          all well")
