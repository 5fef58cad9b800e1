"""Axis comments: read, and held against the sizes that a pass really had."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from config import GlassboxError
from modules import LOCAL, MAY_AGREE

if TYPE_CHECKING:
    from modules.tracing.rows import Row

ELLIPSIS = "…"
TERM = re.compile(r"(\d*)([A-Z]*)(?:/(\d+))?")
CLAIM = re.compile(r"\(([^()]*)\)")

Axes = tuple[str, ...]


class AxesError(GlassboxError):
    """Axis comments that do not say what is so."""


def claims(comment: str) -> tuple[tuple[Axes, ...], ...] | None:
    """What a comment says of each value, with the alternatives to it, joined by "or".

    `(B, T), (C) or (D)` is ((("B", "T"),), (("C",), ("D",))); a comment that starts otherwise is prose: None. Empty
    where it can't be read.
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
    return () if comment.startswith("(", end) else tuple(found)  # half a claim is none


def fitting(alternatives: tuple[Axes, ...], rank: int) -> Axes:
    """The alternative with that many axes; the first where none has."""
    return next((axes for axes in alternatives if len(axes) == rank), alternatives[0])


def malformed(axes: Axes, glossary: Iterable[str]) -> str | None:
    """What is wrong with the way that a claim is written, or None."""
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
    """The number that H+2G or BT stands for; None where a letter's size is not known."""
    total, sign = 0, 1
    for part in re.split(r"([+-])", expression):
        if part in "+-":
            sign = 1 if part == "+" else -1
            continue
        number, factors, divisor = TERM.fullmatch(part).groups()
        if not sizes.keys() >= set(factors):
            return None
        total += sign * int(number or 1) * math.prod(sizes[letter] for letter in factors) // int(divisor or 1)
    return total


def letters(axes: Axes, shape: tuple[int, ...]) -> str:
    """`(B=3, T=17, C=40)`: a shape with what its axes are called."""
    if axes and axes[0] == ELLIPSIS:
        rest = axes[1:]
        axes = ("",) * (len(shape) - len(rest)) + rest
    if len(axes) != len(shape):
        return "(" + ", ".join(map(str, shape)) + ")"
    shown = (str(n) if not axis or axis.isdigit() else f"{axis}={n}" for axis, n in zip(axes, shape))
    return "(" + ", ".join(shown) + ")"


def bind(rows: list["Row"], known: dict[str, int]) -> dict[str, int]:
    """The size of each letter in one pass: the known ones, for the others what most comments say, so that one lie
    can't make liars of all."""
    votes = defaultdict(Counter)
    for row in rows:
        for axis, n in pairs(row):
            if len(axis) == 1 and axis.isalpha() and axis not in LOCAL:
                votes[axis][n] += 1
    return {letter: counts.most_common(1)[0][0] for letter, counts in votes.items()} | known


def pairs(row: "Row") -> list[tuple[str, int]]:
    """Each axis of a row's claim with the size found there; nothing where the ranks differ."""
    axes, shape = row.claim or (), row.shape or ()
    if axes and axes[0] == ELLIPSIS:
        axes = axes[1:]
        shape = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else shape
    return list(zip(axes, shape)) if len(axes) == len(shape) else []


def lies(rows: list["Row"], glossary: Iterable[str], known: dict[str, int], distinct: bool = False) -> list[str]:
    """A sentence for each comment of one pass that is not so: one letter, one size; the rank; the glossary.

    known: the letters whose sizes the model itself gives. distinct: the sizes were chosen all different, so that two
    letters of one size, other than those that MAY_AGREE, are a lie as well.
    """
    glossary = set(glossary)
    found = []
    readable = []
    for row in rows:
        if row.complaint:
            found.append(f"{row.where}: {row.complaint}")
        elif row.kind != "statement" or row.claim is None or row.shape is None:
            continue
        elif complaint := malformed(row.claim, glossary):
            found.append(f"{row.where}: {complaint}")
        else:
            readable.append(row)
    sizes = bind(readable, known)
    found += same_size(readable, sizes, known) if distinct else []
    local: dict[object, dict[str, int]] = defaultdict(dict)
    for row in readable:
        for axis, n in pairs(row):
            if axis in LOCAL:
                local[row.turn].setdefault(axis, n)
    return found + [f"{row.where}: {lie}" for row in readable if (lie := judge(row, sizes | local[row.turn]))]


def same_size(rows: list["Row"], sizes: dict[str, int], known: dict[str, int]) -> list[str]:
    """A sentence for each comment with a letter that has another letter's size, where the model does not say so."""
    found = []
    for letter, n in sizes.items():
        others = [a for a in sizes if a != letter and sizes[a] == n > 1 and frozenset((a, letter)) not in MAY_AGREE]
        if others and letter not in known:
            said = [row for row in rows if letter in "".join(row.claim)]
            found += [f"{row.where}: {row.variable} says {letter}, whose size {n} is {others[0]}'s" for row in said]
    return found


def judge(row: "Row", sizes: dict[str, int]) -> str | None:
    """What a row's comment says wrongly of its shape, or None."""
    said, shape = "(" + ", ".join(row.claim) + ")", "(" + ", ".join(map(str, row.shape)) + ")"
    rank = len(row.claim)
    fits = len(row.shape) >= rank - 1 if row.claim[:1] == (ELLIPSIS,) else len(row.shape) == rank
    if not fits:
        return f"{row.variable} is {shape}, {len(row.shape)} axes, but its comment says {said}"
    for axis, n in pairs(row):
        options = [size(option, sizes) for option in axis.split("|")]
        if None in options:
            return f"{row.variable}: the size of {axis!r} can't be told; no axis in this pass is that letter alone"
        if n not in options:
            expected = " or ".join(map(str, options))
            return f"{row.variable} is {shape}, but its comment says {said} and {axis} is {expected}"
    return None
