"""Single settings by dotted name, as in "model.position.theta" and "train.seed": for overrides and the terminal."""

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from settings.checked import Config, field_types, settings_in
from settings.errors import ConfigError
from settings.messages import short, suggest
from settings.registry import REGISTRY
from settings.sentences import describe

Roots = Mapping[str, type[Config]]


def types_by_name(roots: Roots) -> dict[str, object]:
    """The type of every setting below `roots`, those of all kinds of each part included."""
    found: dict[str, object] = {}
    for prefix, config in roots.items():
        found |= types_below(config, prefix)
    return found


def types_below(config: type[Config], prefix: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, hint in field_types(config).items():
        part, dotted = settings_in(hint), f"{prefix}.{name}"
        if part is None:
            found[dotted] = hint
            continue
        kinds = REGISTRY.kinds[part.family] if part.family else {}
        for variant in [part, *(kind.settings for kind in kinds.values() if kind.settings)]:
            found |= types_below(variant, dotted)
        if kinds:
            found[f"{dotted}.kind"] = Literal[tuple(kinds)]
    return found


def check_setting(roots: Roots, name: str, value: object) -> None:
    """Raises ConfigError unless there is a setting of that dotted name, and `value` is of its type."""
    types = types_by_name(roots)
    if name not in types:
        raise ConfigError(f"unknown setting {name!r}; {suggest(name, types)}")
    if not fits(value, types[name]):
        raise ConfigError(f"{name} must be {describe(types[name])}, not {short(value)}")


def fits(value: object, hint: object) -> bool:
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        return False
    return True


def read_setting(roots: Roots, name: str, text: str) -> object:
    """What `text` means as a value of that setting: None, True, False, a number or the text, whichever its type takes.

    Raises ConfigError for an unknown name, or where its type takes none of them.
    """
    for read in ({"None": None, "True": True, "False": False}.__getitem__, int, float):
        try:
            value = read(text)
            check_setting(roots, name, value)
            return value
        except (KeyError, ValueError):  # a ConfigError is one
            pass
    check_setting(roots, name, text)
    return text
