"""A trace with views: `with trace(model) as shapes: model(tokens)`, then `shapes` alone in a cell."""

import pandas

from lab.shapes.annotate import Annotated, annotate
from lab.shapes.diagram import Diagram, diagram
from lab.shapes.diff import Difference, difference
from lab.shapes.tree import tree
from tracing.rows import Row, Statistics
from tracing.traces import Trace

MEASURES = ("seconds", "flops", "statistics", "gradient")


class Shapes(Trace):
    """A `Trace` with its views: a tree in a notebook, aligned text in a terminal, and the methods below."""

    def _repr_html_(self) -> str:
        return tree(self)

    def frame(self) -> pandas.DataFrame:
        """A line per row: place, name, axes, shape, type and size. Statistics have names such as gradient_std."""
        return pandas.DataFrame([_record(row) for row in self.rows], columns=_columns(self.rows))

    def annotate(self, thing: object) -> Annotated:
        """The live source with the traced sizes in the margin of each statement; lines that did not run are dim.

        thing: a class or function, as in shapes.annotate(Attention), or the path of a module.

        Raises TraceError for what was not traced, SourceError for what has no source.
        """
        return annotate(self, thing)

    def diff(self, other: Trace) -> Difference:
        """The differences from another trace: of another architecture, or of another sequence length, say."""
        return difference(self, other)

    def diagram(self, path: str = "") -> Diagram:
        """A drawing of the module at `path`: its parts, the operations that join them, sizes along the edges.

        Raises TraceError if nothing can be drawn.
        """
        return diagram(self, path)


trace = Shapes  # reads well in `with trace(model) as shapes:`


def _record(row: Row) -> dict[str, object]:
    record = {
        "pass": row.number, "path": row.path, "function": row.owner, "kind": row.kind, "variable": row.variable,
        "axes": "" if row.claim is None else f"({', '.join(row.claim)})", "shape": row.shape, "value": row.value,
        "dtype": row.dtype, "bytes": row.nbytes, "parameters": row.parameters, "source": row.text,
        "where": row.where,
    }
    for name in MEASURES:
        value = getattr(row, name)
        if isinstance(value, Statistics):
            record |= {_statistic(name, key): number for key, number in value._asdict().items()}
        elif value is not None:
            record[name] = value
    return record


def _columns(rows: list[Row]) -> list[str]:
    """The columns that every row has, and the measures that some rows have."""
    found = dict.fromkeys(_record(Row("module", "", "", 0, 0, "")))
    for row in rows:
        found |= dict.fromkeys(_record(row))
    return list(found)


def _statistic(name: str, key: str) -> str:
    return key if name == "statistics" else f"{name}_{key}"
