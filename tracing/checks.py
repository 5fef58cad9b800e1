"""Compares axis comments with the sizes that a pass really had."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from tracing.axes import ELLIPSIS, malformed, size
from tracing.glossary import LOCAL, MAY_AGREE
from tracing.rows import Row


def letter_sizes(rows: list[Row], known: dict[str, int]) -> dict[str, int]:
    """The size of each letter in one pass: the known sizes, else what most comments say, so that one wrong comment does
    not make the others look wrong."""
    votes = defaultdict(Counter)
    for row in rows:
        for axis, n in axis_sizes(row):
            if len(axis) == 1 and axis.isalpha() and axis not in LOCAL:
                votes[axis][n] += 1
    return {letter: counts.most_common(1)[0][0] for letter, counts in votes.items()} | known


def axis_sizes(row: Row) -> list[tuple[str, int]]:
    """Each axis of a row's comment with its size; nothing if the ranks differ."""
    axes, shape = row.claim or (), row.shape or ()
    if axes and axes[0] == ELLIPSIS:
        axes = axes[1:]
        shape = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else shape
    return list(zip(axes, shape)) if len(axes) == len(shape) else []


def mismatches(rows: list[Row], glossary: Iterable[str], known: dict[str, int], distinct: bool = False) -> list[str]:
    """A sentence for each wrong comment of one pass: a letter has one size, ranks agree, letters are in the glossary.

    known: the sizes that the model itself gives. distinct: all sizes were chosen different, so two letters of one size
    are wrong as well, except those that MAY_AGREE.
    """
    glossary = frozenset(glossary)
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
    sizes = letter_sizes(readable, known)
    found += same_size(readable, sizes, known) if distinct else []
    local: dict[object, dict[str, int]] = defaultdict(dict)
    for row in readable:
        for axis, n in axis_sizes(row):
            if axis in LOCAL:
                local[row.turn].setdefault(axis, n)
    problems = ((row, check_row(row, sizes | local[row.turn])) for row in readable)
    return found + [f"{row.where}: {problem}" for row, problem in problems if problem]


def same_size(rows: list[Row], sizes: dict[str, int], known: dict[str, int]) -> list[str]:
    """A sentence for each comment with a letter that has another letter's size, unless the model gives its size."""
    found = []
    for letter, n in sizes.items():
        others = [a for a in sizes if a != letter and sizes[a] == n > 1 and frozenset((a, letter)) not in MAY_AGREE]
        if others and letter not in known:
            said = [row for row in rows if letter in "".join(row.claim)]
            found += [f"{row.where}: {row.variable} says {letter}, but {n} is the size of {others[0]}" for row in said]
    return found


def check_row(row: Row, sizes: dict[str, int]) -> str | None:
    """How a row's comment differs from its shape, or None."""
    rank = len(row.claim)
    fits = len(row.shape) >= rank - 1 if row.claim[:1] == (ELLIPSIS,) else len(row.shape) == rank
    if not fits:
        return f"{row.variable} is {listed(row.shape)}, {len(row.shape)} axes, but its comment says {listed(row.claim)}"
    for axis, n in axis_sizes(row):
        options = [size(option, sizes) for option in axis.split("|")]
        if None in options:
            return f"{row.variable}: the size of {axis!r} is not known; no comment in this pass gives that letter alone"
        if n not in options:
            expected = " or ".join(map(str, options))
            said = f"its comment says {listed(row.claim)} and {axis} is {expected}"
            return f"{row.variable} is {listed(row.shape)}, but {said}"
    return None


def listed(axes: Iterable[object]) -> str:
    return "(" + ", ".join(map(str, axes)) + ")"
