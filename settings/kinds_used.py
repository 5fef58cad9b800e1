"""Which kinds a model's settings name, and which of them nobody has imported."""

import typing
from collections.abc import Iterator
from typing import Annotated

from settings.checked import Config, field_types, settings_in, settings_of
from settings.errors import ConfigError
from settings.registry import is_built_in, kind
from settings.types import KindOf


def ideas_used(config: Config) -> list[tuple[str, str]]:
    """The family and name of each kind in these settings that is not built in, each once."""
    return [found for found in dict.fromkeys(kinds_named(config.to_dict(), type(config))) if not is_built_in(*found)]


def ideas_missing(values: dict, settings: type[Config]) -> list[tuple[str, str]]:
    """The family and name of each kind that stored settings name and nobody has registered."""
    return [found for found in dict.fromkeys(kinds_named(values, settings)) if not is_known(*found)]


def kinds_named(values: object, settings: type[Config]) -> Iterator[tuple[str, str]]:
    """The family and name of each kind in settings as JSON has them; of an unknown kind's own settings, none."""
    if not isinstance(values, dict):
        return
    if settings.family and isinstance(values.get("kind"), str):
        yield settings.family, values["kind"]
        if not is_known(settings.family, values["kind"]):
            return
        settings = settings_of(settings.family, values["kind"])
    for name, hint in field_types(settings).items():
        part, marker = settings_in(hint), kind_marker(hint)
        if part is not None:
            yield from kinds_named(values.get(name), part)
        elif marker is not None and name != "kind" and isinstance(values.get(name), str):
            yield marker.family, values[name]


def kind_marker(hint: object) -> KindOf | None:
    """The `KindOf` of an annotation, if it has one."""
    extras = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, KindOf)), None)


def is_known(family: str, name: str) -> bool:
    try:
        kind(family, name)
    except ConfigError:
        return False
    return True
