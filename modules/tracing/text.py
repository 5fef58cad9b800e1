"""Rows as aligned text."""

from modules.tracing.rows import Row

WIDEST = 44  # of a name with its indentation


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


def line(row: Row, name: int = WIDEST, axes: int = 28) -> str:
    """One row; name and axes are the widths of the first columns."""
    cells = ["  " * row.depth + label(row), row.axes, row.dtype, measures(row)]
    source = f"{row.where}  {row.text}" if row.text else ""
    return f"{cells[0]:<{name}} {cells[1]:<{axes}} {cells[2]:<8} {cells[3]:<{bool(cells[3]) * 34}} {source}".rstrip()


def table(rows: list[Row]) -> str:
    """All rows, the columns as wide as they need, the source's part cut to what fits."""
    if not rows:
        return "nothing was recorded: call the model inside the `with` block"
    name = max(len(label(row)) + 2 * row.depth for row in rows)
    axes = max(len(row.axes) for row in rows)
    return "\n".join(line(row, min(name, WIDEST), axes) for row in rows)
