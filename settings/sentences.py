"""What is wrong with a value, in a sentence: the setting's name, what it may be, what it is."""

import types
import typing
from typing import Annotated, Literal

from annotated_types import Interval, MaxLen
from pydantic import ValidationError

from settings.messages import short
from settings.types import LARGEST, KindOf

PLAIN = {int: "an integer", float: "a finite number", bool: "True or False", str: "Unicode text"}


def sentences(error: ValidationError, hints: dict[str, object]) -> dict[str, str]:
    """One sentence for each setting that a validation found wrong, by its name."""
    found = {}
    for problem in error.errors(include_url=False, include_context=True):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name in found:
            continue
        if problem["type"] in ("missing", "missing_keyword_only_argument"):
            found[name] = f"setting {name!r} is missing"
        elif problem["type"] == "kind":
            found[name] = f"{name}: {problem['msg']}"
        elif problem["type"] == "less_than_equal" and problem["ctx"]["le"] == LARGEST:
            found[name] = f"{name} must be at most {LARGEST:g}, not {short(problem['input'])}"
        else:
            found[name] = f"{name} must be {describe(hints[name])}, not {short(problem['input'])}"
    return found


def members(hint: object) -> tuple:
    """The types that a union allows; of any other annotation, itself. Without what `Annotated` adds to a type."""
    if typing.get_origin(hint) is Annotated:
        return members(typing.get_args(hint)[0])
    return tuple(one for member in typing.get_args(hint) for one in members(member)) if is_union(hint) else (hint,)


def is_union(hint: object) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def describe(hint: object) -> str:
    """What a setting may be, in words."""
    if typing.get_origin(hint) is Annotated:
        inner, *extras = typing.get_args(hint)
        return described(inner, extras)
    if is_union(hint):
        return " or ".join(describe(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a tuple of texts" if str in members(typing.get_args(hint)[0]) else "a tuple of finite numbers"
    return PLAIN.get(hint, "None" if hint is types.NoneType else f"a {getattr(hint, '__name__', hint)}")


def described(inner: object, extras: list) -> str:
    text = describe(inner)
    for extra in extras:
        if isinstance(extra, KindOf):
            return "one of " + ", ".join(map(repr, extra.names))
        if isinstance(extra, MaxLen):
            text += f" of at most {extra.max_length:,} " + ("characters" if inner is str else "items")
        if isinstance(extra, Interval):
            text += between(extra)
    return text


def between(ends: Interval) -> str:
    """" from 1 to 512", or " above 0"; nothing for the bounds that every number has."""
    if ends.gt is not None:
        return f" above {ends.gt:,}" + (f" and at most {ends.le:,}" if ends.le not in (None, LARGEST) else "")
    if ends.le == LARGEST and ends.ge in (None, -LARGEST):
        return ""
    return f" of {ends.ge:,} or more" if ends.le == LARGEST else f" from {ends.ge:,} to {ends.le:,}"
