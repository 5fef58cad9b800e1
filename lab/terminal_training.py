"""The commands `train` and `resume`."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from config import VOCABULARIES, LoRAConfig, ModelConfig, Preset, TrainConfig, list_presets, preset
from lab.terminal_flags import FLAGS, kinds_as_choices, option, with_kinds
from settings.errors import ConfigError

Sharding = Literal["none", "full"]
RANK_TIMEOUT = 300.0
QUICK_SIZE, QUICK_STEPS, QUICK_TOKENS = "128x4", 200, 10_000_000  # of --quick


@dataclass(frozen=True, kw_only=True)
class Training:
    """Train a model; its run appears in trained/. All other defaults follow --preset, --config, --like or --from.

    --from starts from a run's weights, which never change: all of them train further, or with any --lora flag an
    adapter trains and they stay frozen. With the run's own text and more steps than it has done, its training goes on.

    A part of another kind, as in --model.position.kind alibi, has that kind's settings as flags. --idea FILE imports a
    file that registers an idea first.

    torchrun --nproc-per-node N tools.py train ... trains in N processes, each on an equal part of every batch.
    """

    name: str | None = None  # The run's; by default from the preset's and the data's, numbered where taken.
    preset: str = "llama-tiny"  # An architecture and a size: gpt2-tiny, llama-small, alibi-character, ...
    config: Path | None = None  # A JSON file of settings, or a run's folder, to start from.
    quick: bool = False  # A trial of the preset's architecture: width 128, 4 layers, 200 steps, 10M tokens an epoch.
    like: str | None = None  # A run whose settings to start from, instead of a preset's.
    base: Annotated[str | None, tyro.conf.arg(name="from")] = None  # A run whose settings and weights to start from.
    restart: bool = False  # With --from: begin optimizer and schedule anew, where the run's training could go on.
    epochs: float | None = None  # In place of --train.steps: how often each training token is read.
    write_config: Path | None = None  # Writes all settings into this file, for --config, and trains nothing.
    lora: LoRAConfig | None = None  # With --from.
    sharding: Sharding = "none"  # full: with torchrun, weights, gradients and optimizer are split over the processes.
    rank_timeout: float = RANK_TIMEOUT  # Seconds that a process waits in a step for the others.
    model: ModelConfig
    train: TrainConfig


def parse_training(arguments: list[str]) -> Training:
    """The arguments of `train` as settings."""
    if option(arguments, "--write-config") and (option(arguments, "--from") or option(arguments, "--name")):
        raise ConfigError("--write-config writes the settings of a new model: leave --from and --name out")
    start = starting_point(arguments)
    with kinds_as_choices():
        settings = tyro.cli(Training, args=arguments, default=start, config=FLAGS, prog="python tools.py train")
    adapting = any(argument.startswith("--lora.") for argument in arguments)
    if settings.base is None and (adapting or settings.restart):
        raise ConfigError("--lora and --restart need a run to start from: --from RUN")
    if settings.epochs is not None and option(arguments, "--train.steps") is not None:
        raise ConfigError("--epochs and --train.steps say the same; give one of them")
    return settings if adapting else replace(settings, lora=None)


def starting_point(arguments: list[str]) -> Training:
    """The defaults of `train`: those of the preset, the file or the run that its arguments name.

    The model has as many tokens as the tokenizer named, unless the arguments say how many.
    """
    flags = ("--like", "--preset", "--from", "--config")
    like, name, base, file = (option(arguments, flag) for flag in flags)
    if [like, name, base, file].count(None) < 3:
        raise ConfigError(f"{', '.join(flags)} each name a starting point; give one of them")
    quick = option(arguments, "--quick") == "True"
    if quick and (like or base or file):
        raise ConfigError("--quick makes a trial of a preset; leave it out, or name a preset")
    if file is not None and Path(file).is_dir():
        like = file
    if like is not None or base is not None:
        from lab.runs.run import Run
        from lab.runs.settings import with_own_warmup

        run = Run.open(like or base)
        model, train = run.model_config, with_own_warmup(run.train_config)
        train = train.replace(data=run.data_settings()) if like else train
        train = train.replace(distil=None) if base else train  # only a model with new weights can have a teacher
    elif file is not None:
        from lab.comparison.settings_file import read_settings

        name, (model, train) = read_settings(file, Training.preset)
    else:
        name = Training.preset if name is None else name
        name = f"{name.rpartition('-')[0]}-{QUICK_SIZE}" if quick and name in list_presets() else name
        model, train = preset(name)
        train = trial(train, arguments) if quick else train
    tokenizer = option(arguments, "--train.data.tokenizer")
    if tokenizer is not None and tokenizer != train.data.tokenizer:
        model = model.replace(vocab_size=VOCABULARIES.get(tokenizer))  # None: it follows when the run is made
    model = with_kinds(model, arguments)
    return Training(
        preset=name or Training.preset, like=like, base=base, config=file and Path(file), quick=quick,
        lora=LoRAConfig(), model=model, train=train,
    )


def trial(train: TrainConfig, arguments: list[str]) -> TrainConfig:
    """The settings of a trial: few steps, and of a streamed set of the hub a tenth of what an epoch has."""
    from lab.data.hub_sets import is_hub_source

    streamed = any(map(is_hub_source, arguments)) and option(arguments, "--train.data.hub.streamed") != "False"
    return train.replace(
        steps=QUICK_STEPS, data=train.data.replace(tokens_per_epoch=QUICK_TOKENS) if streamed else train.data
    )


def train(settings: Training) -> None:
    if settings.write_config is not None:
        write_config(settings)
        return
    train_new(settings, lambda: create(settings))


def train_new(settings, create: Callable) -> None:
    """Trains the run that `create` makes, in each process that torchrun started. settings: what was asked for."""
    from lab.compute.ranks import join_ranks
    from lab.training.launch import check_same_request, create_together

    with join_ranks(settings.sharding == "full", settings.rank_timeout) as ranks:
        check_same_request(ranks, settings)
        train_on(create_together(ranks, create), settings.sharding)


def write_config(settings: Training) -> None:
    """Writes the settings into the file that they name."""
    from lab.comparison.settings_file import write_settings

    settings = settings if settings.epochs is None else with_steps(settings)
    write_settings(settings.write_config, Preset(settings.model, settings.train))
    file = shlex.quote(str(settings.write_config))
    print(f"wrote {file}; python tools.py train --config {file} trains with it")


def create(settings: Training):
    """The run that the arguments describe."""
    from lab.adapting.fine_tuning import fine_tune
    from lab.runs.run import Run

    if settings.epochs is not None:
        settings = with_steps(settings)
    name = settings.name
    if settings.base is not None:
        return fine_tune(
            Run.open(settings.base), settings.train, model=settings.model, lora=settings.lora, name=name,
            restart=settings.restart,
        )
    if name is None:
        start = settings.like or (settings.config and settings.config.stem) or settings.preset
        name = default_name(start, *settings.train.data.sources)
    return Run.create(name, settings.model, settings.train, numbered=settings.name is None, tell=say_progress)


def say_progress(what: str) -> None:
    """Writes how far something is: over the line before in a terminal, a line of its own in a file."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{what:<100}", end=end, file=sys.stderr, flush=True)


def with_steps(settings: Training) -> Training:
    """The settings with as many steps as the epochs need."""
    from lab.data.packing import prepare
    from lab.runs.run import Run
    from lab.runs.text import find_tokenizer, places

    base = Run.open(settings.base) if settings.base else None
    text = settings.train.data
    if base is not None and base.train_config.data.sources == text.sources:
        text = places(text, base.text, base.folder)[0]
    data = prepare(text, find_tokenizer(text.tokenizer, base), tell=say_progress)
    steps = data.steps(settings.epochs, settings.train.batch_size, settings.model.context_length)
    print(f"{settings.epochs:g} epochs of {len(data.train):,} tokens: {steps:,} steps", flush=True)
    return replace(settings, train=settings.train.replace(steps=steps))


def default_name(start: str, *sources: str) -> str:
    """A run's name from a preset's or a run's and from that of the data, in the letters that a name may have."""
    from lab.runs.names import name_from

    return name_from("-".join([Path(start).name, *(Path(source).stem for source in sources)]))


def resume(
    run: tyro.conf.Positional[str], sharding: Sharding = "none", rank_timeout: float = RANK_TIMEOUT
) -> None:
    """Go on with a run that was stopped, to the numbers it would have reached without the stop.

    Args:
        run: The run's name, or its folder.
        sharding: full: with torchrun, weights, gradients and optimizer are split over the processes.
        rank_timeout: Seconds that a process waits in a step for the others.
    """
    from lab.compute.ranks import join_ranks
    from lab.runs.run import Run

    with join_ranks(sharding == "full", rank_timeout) as ranks:
        train_on(ranks.attempt(lambda: Run.open(run)), sharding)


def train_on(run, sharding: Sharding = "none") -> None:
    """The terminal's training loop. Of several processes, the first shows it."""
    from lab.compute.ranks import current_ranks
    from lab.training.live import live
    from lab.training.loop import train as steps_of

    ranks = current_ranks()
    run.listener = say_progress if ranks.is_first else None
    data = ranks.in_turn(run.load_data)
    steps = steps_of(run, data, sharding=sharding)
    if not ranks.is_first:
        for _ in steps:
            pass
        return
    try:
        for _ in live(steps, run, floor=data.floor):
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
