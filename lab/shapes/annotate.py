"""Live source with the sizes of a traced pass in the margin of each statement."""

import ast
import textwrap
from dataclasses import dataclass
from html import escape

from lab.display.html import render
from lab.display.palette import GREY, translucent
from lab.display.source_view import CODE, GROUND, QUIET, SourceCode, highlight, show
from lab.shapes.axis_colours import axes_html
from settings.messages import suggest
from tracing.rows import Row
from tracing.traces import Trace, TraceError

PAGE = """
<div style="{{ ground }}"><div style="opacity:{{ quiet }}">{{ header }}</div>
<div style="{{ code }};display:grid;grid-template-columns:max-content max-content">
{%- for margin, look, line in lines -%}
<div style="padding-right:1.5em">{{ margin|safe }}</div><div style="padding-left:1em;{{ look }}">{{ line|safe }}</div>
{%- endfor -%}
</div></div>
"""
BORDER = f"border-left:1px solid {translucent(GREY, 0.5)}"
IDLE = f"opacity:{QUIET};border-left:1px dashed"

@dataclass(frozen=True)
class Note:
    """What a statement made: the names of the variables with the same axes, and these axes."""

    names: str
    row: Row
    more: str = ""

    def __str__(self) -> str:
        return f"{self.names} {self.row.axes} {self.more}".strip()

    @property
    def html(self) -> str:
        axes = escape(self.row.axes) if self.row.shape is None else axes_html(self.row.claim or (), self.row.shape)
        return f"{escape(self.names)} {axes} {escape(self.more)}".strip()


@dataclass(frozen=True)
class Annotated:
    """notes: by line number, from the line's first run. idle: the lines that did not run, shown without colours."""

    source: SourceCode
    notes: dict[int, list[Note]]
    idle: frozenset[int]

    def _repr_html_(self) -> str:
        lines, both = [], zip(self.source.lines, highlight(self.source.lines))
        for number, (plain, coloured) in enumerate(both, self.source.first):
            margin = "\n".join(note.html for note in self.notes.get(number, ()))
            idle = number in self.idle
            lines.append((margin, IDLE if idle else BORDER, (escape(plain) if idle else coloured) or " "))
        return render(PAGE, ground=GROUND, quiet=QUIET, code=CODE, header=self.source.header, lines=lines)

    def __str__(self) -> str:
        width = max([len(str(note)) for notes in self.notes.values() for note in notes], default=0)
        lines = [f"# {self.source.header}"]
        for number, line in enumerate(self.source.lines, self.source.first):
            notes = [str(note) for note in self.notes.get(number, ())] or [""]
            bar = "┊" if number in self.idle else "│"
            lines.append(f"{notes[0]:<{width}} {bar} {line}".rstrip())
            lines += [f"{note:<{width}} {bar}" for note in notes[1:]]
        return "\n".join(lines)

    __repr__ = __str__


def annotate(trace: Trace, thing: object) -> Annotated:
    """The source of a class or function, or of the class of the module at a path, as it ran in the trace.

    Raises TraceError for what did not run, SourceError for what has no source.
    """
    path = None
    if isinstance(thing, str):
        path, thing = thing, _class_at(trace, thing)
    source = show(thing)
    last = source.first + len(source.lines) - 1
    inside = range(source.first, last + 1)
    ran = {line for at, file, line in trace.ran if file == source.file and line in inside and path in (None, at)}
    if not ran:
        traced = {row.owner.partition(".")[0] for row in trace.rows if row.line}
        raise TraceError(f"nothing of {source.name} ran statement by statement; {suggest(source.name, traced)}")
    here = (row for row in trace.rows if row.file == source.file and row.line in inside)
    rows = [row for row in here if path in (None, row.path)]
    lines = {line: [row for row in rows if row.line == line] for line in {row.line for row in rows}}
    return Annotated(source, {line: _notes(found) for line, found in lines.items()}, _idle(source, ran))


def _class_at(trace: Trace, path: str) -> type:
    paths = dict(trace.model.named_modules())
    if path not in paths:
        raise TraceError(f"the model has no module {path!r}; {suggest(path, {row.path for row in trace.rows})}")
    return type(paths[path])


def _notes(rows: list[Row]) -> list[Note]:
    """The values of the first run, grouped by axes; and how many shapes there were, if they differ."""
    shapes: dict[str, dict[object, None]] = {}
    for row in rows:
        shapes.setdefault(row.variable, {})[row.shape if row.shape is not None else row.value] = None
    groups: dict[str, list[Row]] = {}
    for variable in shapes:
        first = next(row for row in rows if row.variable == variable)
        varied = len(shapes[variable])
        groups.setdefault(first.axes + f"… {varied} shapes" * (varied > 1), []).append(first)
    several = len(shapes) > 1 or rows[0].kind == "input"
    notes = []
    for group in groups.values():
        names = ", ".join(row.variable.removeprefix("return ") for row in group) if several else ""
        varied = len(shapes[group[0].variable])
        kind = "shapes" if group[0].shape is not None else "values"
        notes.append(Note(names, group[0], f"… {varied} {kind}" * (varied > 1)))
    return notes


def _idle(source: SourceCode, ran: set[int]) -> frozenset[int]:
    """The lines of statements, and of whole functions, that did not run."""
    tree = ast.parse(textwrap.dedent("\n".join(source.lines)))
    idle: set[int] = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
        if source.first + start - 1 not in ran:
            idle.update(range(start, function.end_lineno + 1))
            continue
        for node in ast.walk(function):
            documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.stmt) and node is not function and not documents:
                body = getattr(node, "body", None)
                last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
                if source.first + node.lineno - 1 not in ran:
                    idle.update(range(node.lineno, last + 1))
    return frozenset(source.first + line - 1 for line in idle)
