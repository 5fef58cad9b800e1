"""Axis comments held against the sizes that a pass really had."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from tracing.axes import ELLIPSIS, malformed, size
from tracing.glossary import LOCAL, MAY_AGREE
from tracing.rows import Row


def bind(rows: list[Row], known: dict[str, int]) -> dict[str, int]:
    """The size of each letter in one pass: the known ones, for the others what most comments say, so that one lie
    can't make liars of all."""
    votes = defaultdict(Counter)
    for row in rows:
        for axis, n in pairs(row):
            if len(axis) == 1 and axis.isalpha() and axis not in LOCAL:
                votes[axis][n] += 1
    return {letter: counts.most_common(1)[0][0] for letter, counts in votes.items()} | known


def pairs(row: Row) -> list[tuple[str, int]]:
    """Each axis of a row's claim with the size found there; nothing where the ranks differ."""
    axes, shape = row.claim or (), row.shape or ()
    if axes and axes[0] == ELLIPSIS:
        axes = axes[1:]
        shape = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else shape
    return list(zip(axes, shape)) if len(axes) == len(shape) else []


def mismatches(rows: list[Row], glossary: Iterable[str], known: dict[str, int], distinct: bool = False) -> list[str]:
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
    problems = ((row, check_row(row, sizes | local[row.turn])) for row in readable)
    return found + [f"{row.where}: {problem}" for row, problem in problems if problem]


def same_size(rows: list[Row], sizes: dict[str, int], known: dict[str, int]) -> list[str]:
    """A sentence for each comment with a letter that has another letter's size, where the model does not say so."""
    found = []
    for letter, n in sizes.items():
        others = [a for a in sizes if a != letter and sizes[a] == n > 1 and frozenset((a, letter)) not in MAY_AGREE]
        if others and letter not in known:
            said = [row for row in rows if letter in "".join(row.claim)]
            found += [f"{row.where}: {row.variable} says {letter}, whose size {n} is {others[0]}'s" for row in said]
    return found


def check_row(row: Row, sizes: dict[str, int]) -> str | None:
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
