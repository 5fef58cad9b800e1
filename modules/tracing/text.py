"""Rows as aligned text."""

from modules.tracing.rows import Row

NAME, AXES, MEASURED = 44, 28, 34  # widths of the columns where what is still to come can't be known
LINE = 160  # characters of a whole table's lines


def label(row: Row) -> str:
    """A module's path and class, an argument with an arrow, or what a statement assigns."""
    if row.kind == "module":
        return f"{row.path or 'model'} · {row.owner}"
    return f"→ {row.variable}" if row.kind == "input" else row.variable


def measures(row: Row) -> str:
    """What was asked for beyond shapes: statistics, gradient, time, FLOPs."""
    parts = [str(row.statistics)] if row.statistics else []
    parts += [f"gradient: {row.gradient}"] if row.gradient else []
    parts += [f"{1e3 * row.seconds:.2f} ms"] if row.seconds is not None else []
    parts += [f"{amount(row.flops)}FLOP"] if row.flops else []
    parts += [f"{row.parameters:,} parameters"] if row.parameters else []
    return ", ".join(parts)


def amount(number: float) -> str:
    """12,345,678 as `12.3 M`, ready for its unit."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g} "


def line(row: Row, name: int = NAME, axes: int = AXES, measured: int | None = None) -> str:
    """One row; the numbers are the widths of the first columns."""
    about = measures(row)
    if measured is None:
        measured = MEASURED if about else 0
    source = f"{row.where}  {row.text}" if row.text else ""
    first = "  " * row.depth + label(row)
    return f"{first:<{name}} {row.axes:<{axes}} {row.dtype:<8} {about:<{measured}} {source}".rstrip()


def table(rows: list[Row]) -> str:
    """All rows, each column as wide as it needs to be, what is longer than LINE then cut."""
    if not rows:
        return "nothing was recorded: call the model inside the `with` block"
    name = max(len(label(row)) + 2 * row.depth for row in rows)
    axes = max(len(row.axes) for row in rows)
    measured = max((len(measures(row)) for row in rows if row.text), default=0)
    lines = (line(row, name, axes, measured) for row in rows)
    return "\n".join(text if len(text) <= LINE else text[: LINE - 1] + "…" for text in lines)
