"""Settings that are checked when they are made, and written as JSON and read back exactly."""

import dataclasses
import functools
import json
import typing
from collections.abc import Iterator, Mapping

import pydantic.dataclasses
from pydantic import ConfigDict, ValidationError
from pydantic_core import ArgsKwargs

from settings.errors import ConfigError
from settings.json_text import parse_json
from settings.messages import short, suggest
from settings.registry import kind, name_settings
from settings.sentences import members, sentences

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
FAMILY_SETTINGS: dict[str, type["Config"]] = {}  # of kinds that have none of their own
MOST_UNKNOWN = 20  # settings that an error names


class Config:
    """What all settings share: keywords alone, all problems in one error, `replace`, an exact JSON round trip.

    family: the part of a model that these are settings of, for settings that are told apart by their `kind`.
    """

    family: typing.ClassVar[str | None] = None
    earlier: typing.ClassVar[dict[str, object]] = {}  # what JSON of earlier versions means by leaving a setting out

    def problems(self) -> Iterator[str]:
        """Yields one sentence for each impossible combination, with its remedy."""
        yield from ()

    def model_problems(self, model: "Config") -> Iterator[str]:
        """Yields one sentence for each reason why this part can't be in that model, with its remedy."""
        yield from ()

    def replace(self, **changes):
        """A copy with `changes`, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in field_types(type(self))}, **changes})

    def to_dict(self) -> dict:
        """The settings as JSON has them: dicts, lists, numbers, text, True, False, None; no part that is None."""
        values = {name: getattr(self, name) for name in field_types(type(self))}
        absent = {name for name, hint in field_types(type(self)).items() if values[name] is None and settings_in(hint)}
        return {name: as_json(value) for name, value in values.items() if name not in absent}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping):
        """The inverse of `to_dict`. Raises ConfigError for anything that `to_dict` would not write."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__} must be a JSON object, not {short(values)}")
        types, found, problems = field_types(cls), {}, []
        values = {**cls.earlier, **values}
        for name, value in values.items():
            try:
                found[name] = from_json(value, types.get(name))
            except ConfigError as error:
                problems.append(f"{name}: {error}")
        config = cls.__new__(cls)
        fill(config, found, problems, given=values.keys())
        return config

    @classmethod
    def from_json(cls, text: str):
        """The inverse of `to_json`. Raises ConfigError for any other text."""
        try:
            values = parse_json(text)
        except ConfigError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error
        return cls.from_dict(values)


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type) -> type:
    """Makes settings of a class of annotated fields: frozen, checked, made by keywords. Its base is Config.

    Settings whose `kind` has a default are registered as that kind of their family.
    """
    made = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
    made.__init__ = make
    if "family" in vars(made):
        FAMILY_SETTINGS[made.family] = made
    elif made.family:
        name = made.__dataclass_fields__["kind"].default
        name_settings(made.family, name, made, built_in=made.__module__ == "config")
    return made


def make(self, /, *positional, **values) -> None:  # a setting may be called anything but self
    """The __init__ of all settings."""
    if positional:
        name = type(self).__name__
        raise ConfigError(f"{name} takes keyword arguments only, as in {name}(name=value)")
    fill(self, values, [], given=values.keys())


def fill(config: Config, values: dict, problems: list[str], given: typing.Collection[str]) -> None:
    """Sets the fields of new settings. Raises one ConfigError for `problems` and all others that are found.

    given: the names of all settings that were there, those in `problems` among them.
    """
    cls = type(config)
    types = field_types(cls)
    strange = [name for name in given if name not in types]
    unknown = [f"unknown setting {short(name)}; {suggest(str(name), types)}" for name in strange[:MOST_UNKNOWN]]
    if len(strange) > MOST_UNKNOWN:
        unknown.append(f"and {len(strange) - MOST_UNKNOWN:,} more unknown settings")
    known = {name: value for name, value in values.items() if name in types}
    wrong = validate(config, known)
    problems = problems + [text for name, text in wrong.items() if name in known or name not in given]
    right = {name: value for name, value in known.items() if name not in wrong}
    if not wrong or (wrong.keys() <= known.keys() and not validate(config, right)):
        found = [*own_kind(config), *config.problems()]  # of settings that are wrong, the combinations say nothing
        problems += [text for text in found if not any(name in text for name in wrong)]
    problems = unknown + problems
    if problems:
        raise ConfigError(f"{cls.__name__}: " + "\n  ".join(["", *problems] if len(problems) > 1 else problems))


def validate(config: Config, values: dict) -> dict[str, str]:
    """Sets the fields; where that can't be, a sentence for each setting that is wrong or missing."""
    try:
        type(config).__pydantic_validator__.validate_python(ArgsKwargs((), values), self_instance=config)
    except ValidationError as error:
        return sentences(error, field_types(type(config)))
    return {}


def settings_of(family: str, name: str) -> type[Config]:
    """The settings class of a kind. Raises ConfigError where there is no such kind."""
    return kind(family, name).settings or FAMILY_SETTINGS[family]


def own_kind(config: Config) -> Iterator[str]:
    """A sentence where a kind has settings of its own, and these are others."""
    if config.family and type(config) is not settings_of(config.family, config.kind):
        yield f"kind {config.kind!r} has settings of its own: {settings_of(config.family, config.kind).__name__}(...)"


@functools.cache
def field_types(cls: type) -> dict[str, object]:
    """The annotation of each setting, by name."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def settings_in(hint: object) -> type[Config] | None:
    """The settings class that an annotation names, if it names one."""
    found = [member for member in members(hint) if isinstance(member, type) and issubclass(member, Config)]
    return found[0] if found else None


def from_json(value: object, hint: object) -> object:
    """JSON's object or list as the settings or the tuple that an annotation names; anything else as it is."""
    part = settings_in(hint)
    if part is not None and isinstance(value, dict):
        if part.family:
            part = settings_of(part.family, value.get("kind", part.__dataclass_fields__["kind"].default))
        return part.from_dict(value)
    if isinstance(value, list) and any(typing.get_origin(member) is tuple for member in members(hint)):
        return tuple(value)
    return value


def as_json(value: object) -> object:
    if isinstance(value, Config):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value
