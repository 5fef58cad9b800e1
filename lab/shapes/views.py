"""A trace that can be looked at: `with trace(model) as shapes: model(tokens)`, then `shapes` alone in a cell."""

import pandas

from lab.shapes.annotate import Annotated, annotated
from lab.shapes.diagram import Diagram, draw
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
        """A line per row: where it happened, what it is called, its axes, shape, type, size; and what was measured,
        statistics under names such as gradient_std."""
        return pandas.DataFrame([_record(row) for row in self.rows], columns=_columns(self.rows))

    def annotate(self, thing: object) -> Annotated:
        """The live source of a class or function, as in shapes.annotate(Attention), or of a module by its path, with
        the true sizes in the margin of each statement; dim where it did not run.

        Raises TraceError for what was not traced, SourceError for what has no source.
        """
        return annotated(self, thing)

    def diff(self, other: Trace) -> Difference:
        """What differs from another trace: of another architecture, or another sequence length."""
        return difference(self, other)

    def diagram(self, path: str = "") -> Diagram:
        """The parts of the module at `path`, drawn: boxes, the operations that join them, sizes along the edges.

        Raises TraceError where nothing can be drawn.
        """
        return draw(self, path)


trace = Shapes  # reads well in `with trace(model) as shapes:`


def _record(row: Row) -> dict[str, object]:
    record = {
        "pass": row.number, "path": row.path, "function": row.owner, "kind": row.kind, "variable": row.variable,
        "axes": "" if row.claim is None else f"({', '.join(row.claim)})", "shape": row.shape, "value": row.value,
        "dtype": row.dtype, "bytes": row.nbytes, "parameters": row.parameters, "source": row.text,
        "where": row.where,
    }  # fmt: skip
    for name in MEASURES:
        value = getattr(row, name)
        if isinstance(value, Statistics):
            record |= {_statistic(name, key): number for key, number in value._asdict().items()}
        elif value is not None:
            record[name] = value
    return record


def _columns(rows: list[Row]) -> list[str]:
    """Those that every row has, and the measures that any has."""
    found = dict.fromkeys(_record(Row("module", "", "", 0, 0, "")))
    for row in rows:
        found |= dict.fromkeys(_record(row))
    return list(found)


def _statistic(name: str, key: str) -> str:
    return key if name == "statistics" else f"{name}_{key}"
