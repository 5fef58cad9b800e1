"""The differences between two traces, statement by statement."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from html import escape

from lab.display.html import render
from lab.shapes.axis_colours import axes_html
from tracing.rows import Row
from tracing.text import row_label
from tracing.traces import Trace

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True)
class Difference:
    """pairs: the rows that differ, None if one side has no such row. alike: how many rows are equal."""

    pairs: tuple[tuple[Row | None, Row | None], ...]
    alike: int

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def summary(self) -> str:
        if not self.pairs:
            return f"nothing differs: all {self.alike:,} rows are equal"
        left = sum(right is None for _, right in self.pairs)
        right = sum(left is None for left, _ in self.pairs)
        changed = len(self.pairs) - left - right
        return f"rows that differ: {changed:,} · only left: {left:,} · only right: {right:,} · equal: {self.alike:,}"

    def _lines(self) -> list[tuple[str, str, Row | None, Row | None]]:
        """path, name, left, right. The path is "" where it is that of the line above."""
        lines, path = [], None
        for left, right in self.pairs:
            row = left or right
            lines.append((row.path or "model" if row.path != path else "", _name(row), left, right))
            path = row.path
        return lines

    def __str__(self) -> str:
        table = [(path, name, _text(left), _text(right)) for path, name, left, right in self._lines()]
        if not table:
            return self.summary
        table.insert(0, HEAD)
        widths = [max(len(line[column]) for line in table) for column in range(3)] + [0]
        lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() for line in table)
        return "\n".join((self.summary, *lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if not self.pairs:
            return f"<div>{escape(self.summary)}</div>"
        lines = [(path, name, _html(left), _html(right)) for path, name, left, right in self._lines()]
        return render(PAGE, summary=self.summary, head=HEAD, lines=lines, cell=CELL)


HEAD = ("module", "value", "left", "right")
CELL = (
    "text-align:left;white-space:nowrap;padding:1px 1.4em 1px 0;vertical-align:top;"
    "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px"
)
PAGE = """
<div style="overflow-x:auto"><div>{{ summary }}</div><table style="border-collapse:collapse;color:inherit">
<thead><tr>{% for title in head %}<th scope="col" style="text-align:left">{{ title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for path, name, left, right in lines %}
<tr><td style="{{ cell }};font-weight:bold">{{ path }}</td><td style="{{ cell }}">{{ name }}</td>
<td style="{{ cell }}">{{ left|safe }}</td><td style="{{ cell }}">{{ right|safe }}</td></tr>
{% endfor %}
</tbody></table></div>
"""


def difference(left: Trace, right: Trace) -> Difference:
    """Compares rows of the same module, function and variable: the first with the first, and so on."""
    ours, theirs = _keyed(left.rows), _keyed(right.rows)
    alone = _between(ours, theirs), _between(theirs, ours)
    pairs: list[tuple[Row | None, Row | None]] = []
    for key in (None, *(key for key in ours if key in theirs)):
        if key is not None:
            pairs.append((ours[key], theirs[key]))
        gap = [(row, None) for row in alone[0].get(key, ())] + [(None, row) for row in alone[1].get(key, ())]
        paths = list(dict.fromkeys((left or right).path for left, right in gap))
        pairs += sorted(gap, key=lambda pair: paths.index((pair[0] or pair[1]).path))
    differing = tuple(pair for pair in pairs if None in pair or _said(pair[0]) != _said(pair[1]))
    return Difference(differing, len(pairs) - len(differing))


def _between(own: dict[Key, Row], other: dict[Key, Row]) -> dict[Key | None, list[Row]]:
    """The rows that only one side has, by the common row that they follow."""
    found, common = defaultdict(list), None
    for key, row in own.items():
        if key in other:
            common = key
        else:
            found[common].append(row)
    return found


def _keyed(rows: list[Row]) -> dict[Key, Row]:
    counts: Counter[tuple[str, ...]] = Counter()
    keyed = {}
    for row in rows:
        key = (row.path, row.owner, row.kind, row.variable)
        keyed[*key, counts[key]] = row
        counts[key] += 1
    return keyed


def _said(row: Row) -> tuple:
    return row.shape, row.dtype, row.value


def _name(row: Row) -> str:
    return f"{row.owner} (output)" if row.kind == "module" else f"{row.owner}: {row_label(row)}"


def _text(row: Row | None) -> str:
    return "—" if row is None else f"{row.axes} {row.dtype}".strip()


def _html(row: Row | None) -> str:
    if row is None:
        return '<span title="not on this side">—</span>'
    return escape(row.axes) if row.shape is None else f"{axes_html(row.claim or (), row.shape)} {row.dtype}"
