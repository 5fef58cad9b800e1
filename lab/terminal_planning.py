"""The command `plan`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from config import ModelConfig, Preset, TrainConfig
from lab.costs.machines import MFU
from lab.terminal_flags import FLAGS, kinds_as_choices, option
from lab.terminal_training import Training, starting_point
from settings.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Say what a training would take on other machines: memory, sharding, time, cost. Nothing is trained.

    The settings are those of `train`: --preset, --config or --like, and any --model and --train flag.
    """

    hardware: str  # h100, h100x8 (a node of eight), 2xh100x8 (two nodes), a100-80gb, rtx-4090, ..., cpu, cpux2.
    tokens: Annotated[int | None, tyro.conf.arg(name="train.tokens")] = None  # In place of --train.steps.
    price: float | None = None  # Of one card, or of this machine, for an hour.
    mfu: float = MFU  # The share of a card's peak that the training is assumed to reach.
    preset: str = Training.preset
    config: Path | None = None
    like: str | None = None
    model: ModelConfig
    train: TrainConfig


def parse_planning(arguments: list[str]) -> Planning:
    """The arguments of `plan` as settings."""
    if option(arguments, "--train.tokens") is not None and option(arguments, "--train.steps") is not None:
        raise ConfigError("--train.tokens and --train.steps say the same; give one of them")
    start = starting_point(arguments)
    default = Planning(
        hardware=tyro.MISSING, preset=start.preset, config=start.config, like=start.like, model=start.model,
        train=start.train,
    )
    with kinds_as_choices():
        return tyro.cli(Planning, args=arguments, default=default, config=FLAGS, prog="python tools.py plan")


def plan(settings: Planning) -> None:
    from lab.costs.plans import plan as plan_training

    found = plan_training(
        Preset(settings.model, settings.train), settings.hardware, settings.tokens, settings.price, settings.mfu
    )
    print(repr(found))
