"""Reads axis comments: what each letter and each expression of letters stands for."""

import math
import re
from functools import cache

from settings.errors import GlassboxError

ELLIPSIS = "…"
TERM = re.compile(r"(\d*)([A-Z]*)(?:/(\d+))?")
CLAIM = re.compile(r"\(([^()]*)\)")

Axes = tuple[str, ...]


class AxesError(GlassboxError):
    """Axis comments that do not hold."""


def claims(comment: str) -> tuple[tuple[Axes, ...], ...] | None:
    """The axes that a comment gives for each value; "or" joins alternatives.

    `(B, T), (C) or (D)` gives ((("B", "T"),), (("C",), ("D",))). A comment that does not start with a bracket is prose
    and gives None; one that can't be read gives ().
    """
    if not comment.startswith("("):
        return None
    found, end, alternative = [], 0, False
    while match := CLAIM.match(comment, end):
        axes = tuple(axis.strip() for axis in match[1].split(",") if axis.strip())
        if alternative:
            found[-1] += (axes,)
        else:
            found.append((axes,))
        end = match.end()
        alternative = comment.startswith(" or (", end)
        end += 4 if alternative else 2 if comment.startswith(", (", end) else 0
    return () if comment.startswith("(", end) else tuple(found)  # an incomplete bracket


def fitting(alternatives: tuple[Axes, ...], rank: int) -> Axes:
    """The alternative with that many axes, or the first one if none has."""
    return next((axes for axes in alternatives if len(axes) == rank), alternatives[0])


@cache
def malformed(axes: Axes, glossary: frozenset[str]) -> str | None:
    """Why the axes of a comment can't be read, or None."""
    for index, axis in enumerate(axes):
        if axis == ELLIPSIS:
            if index:
                return f"{ELLIPSIS} may stand only in front"
            continue
        for part in re.split(r"[|+-]", axis):
            term = TERM.fullmatch(part)
            if not part or not term or not (term[1] or term[2]):
                return f"{axis!r} can't be read; write letters and numbers, as in 2F, H+2G, T+1, C/2, BT or B|1"
            for letter in term[2]:
                if letter not in glossary:
                    return f"{letter!r} is not in the glossary, which has {' '.join(sorted(glossary))}"
    return None


def size(expression: str, sizes: dict[str, int]) -> int | None:
    """The number that H+2G or BT stands for; None if the size of a letter is not known."""
    total = 0
    for number, factors, divisor in terms(expression):
        if not sizes.keys() >= set(factors):
            return None
        total += number * math.prod(sizes[letter] for letter in factors) // divisor
    return total


@cache
def terms(expression: str) -> list[tuple[int, str, int]]:
    """The terms of an expression: the number in front with its sign, the letters that are multiplied, the divisor."""
    found, sign = [], 1
    for part in re.split(r"([+-])", expression):
        if part in "+-":
            sign = 1 if part == "+" else -1
            continue
        number, factors, divisor = TERM.fullmatch(part).groups()
        found.append((sign * int(number or 1), factors, int(divisor or 1)))
    return found


def letters(axes: Axes, shape: tuple[int, ...]) -> str:
    """`(B=3, T=17, C=40)`: a shape with the names of its axes."""
    if axes and axes[0] == ELLIPSIS:
        rest = axes[1:]
        axes = ("",) * (len(shape) - len(rest)) + rest
    if len(axes) != len(shape):
        return "(" + ", ".join(map(str, shape)) + ")"
    shown = (str(n) if not axis or axis.isdigit() else f"{axis}={n}" for axis, n in zip(axes, shape))
    return "(" + ", ".join(shown) + ")"
