"""The pieces that error messages are made of."""

import difflib
import reprlib
from collections.abc import Iterable, Mapping


def suggest(name: str, choices: Iterable[str]) -> str:
    """The end of an 'unknown name' message: the nearest choice, if one is near, and all of them."""
    choices = sorted(choices)
    if not choices:
        return "there are none yet"
    near = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "choose from: " + ", ".join(choices)


def left_out_remarks(left_out: Mapping[str, str]) -> list[str]:
    """A sentence for each run that a result leaves out, with the reason."""
    return [f"left out: {name}: {reason}" for name, reason in left_out.items()]


def short(value: object) -> str:
    """`value` as Python writes it, shortened where it is long or deep: for messages."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a number of {type(value).__name__} with thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
