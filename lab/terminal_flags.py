"""What the terminal must know of its arguments before the flags can be read: the preset, the kinds of parts, the ideas.

Flags come from the settings classes. Their defaults, and which settings a part has, follow from a few arguments that
are looked up first. Nothing here imports torch, unless an idea does.
"""

import copy
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import tyro

from config import ModelConfig
from settings.checked import Config, field_types, settings_in, settings_of
from settings.errors import ConfigError, IdeaError
from settings.kinds_used import kind_marker
from settings.paths import ROOT
from settings.registry import kinds_of

FLAGS = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff)


def option(arguments: list[str], flag: str) -> str | None:
    """The value of a flag that must be known before the others can have their defaults."""
    for argument, following in zip(arguments, [*arguments[1:], None]):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == flag:
            return value if equals else following
    return None


def import_ideas(arguments: list[str]) -> list[str]:
    """Imports the files that `--idea FILE` names, however often it stands there; returns the other arguments."""
    rest, waiting = [], iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name != "--idea":
            rest.append(argument)
            continue
        value = value if equals else next(waiting, "")
        if not value:
            raise ConfigError("--idea needs a Python file that registers an idea, as in --idea my_norm.py")
        import_idea(Path(value))
    return rest


def import_idea(path: Path) -> None:
    """Runs a Python file that registers ideas. Raises IdeaError where there is none or it fails, with its line."""
    if not path.is_file():
        raise IdeaError(f"no file {path}; --idea takes a Python file that registers an idea")
    of_repository = path.resolve().parent == ROOT / "modules" / "ideas"
    name = f"{'modules.ideas.' if of_repository else 'idea_'}{path.stem}"
    if of_repository and name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise IdeaError(f"{path} is no Python file: its name must end in .py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise IdeaError(f"{path} can't be imported: {type(error).__name__}: {error}") from error


def with_kinds(model: ModelConfig, arguments: list[str]) -> ModelConfig:
    """The model with the parts that flags such as `--model.position.kind alibi` name, each with its own defaults.

    What is impossible together is told later, when all flags are read: the result is for defaults alone.
    """
    model = copy.copy(model)
    for name, hint in field_types(ModelConfig).items():
        part, value = settings_in(hint), option(arguments, f"--model.{name}.kind")
        if part is None or not part.family or value is None:
            continue
        own, before = settings_of(part.family, value), getattr(model, name)
        if type(before) is not own:
            object.__setattr__(model, name, own(kind=value))
            if getattr(own, "ends_with_context", False):  # as in the presets
                object.__setattr__(model, "max_positions", None)
    return model


@contextmanager
def kinds_as_choices() -> Iterator[None]:
    """Inside the `with`, tyro shows the registered kinds as the choices of a flag: it reads them off the annotation."""
    before = []
    for cls in all_settings(Config):
        for name, hint in field_types(cls).items():
            family = cls.family if name == "kind" else getattr(kind_marker(hint), "family", None)
            if family and name in cls.__annotations__:
                before.append((cls, name, cls.__annotations__[name]))
                cls.__annotations__[name] = Literal[tuple(kinds_of(family))]
    try:
        yield
    finally:
        for cls, name, annotation in before:
            cls.__annotations__[name] = annotation


def all_settings(cls: type) -> Iterator[type]:
    for derived in cls.__subclasses__():
        yield derived
        yield from all_settings(derived)
