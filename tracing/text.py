"""Rows as aligned text."""

from tracing.rows import Row

NAME, AXES, MEASURED = 44, 28, 34  # widths of the columns of a live row, when later rows are not known yet
LINE = 150  # characters of a line, with the statement


def row_label(row: Row) -> str:
    """A module's path and class, an argument with an arrow, or the variable of a statement."""
    if row.kind == "module":
        return f"{row.path or 'model'} · {row.owner}"
    return f"→ {row.variable}" if row.kind == "input" else row.variable


def measures(row: Row) -> str:
    """Statistics, gradient, time and FLOPs, as far as they were measured."""
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


def line(row: Row) -> str:
    """One row as it is printed live, before later rows are known."""
    source = f"{row.where}  {row.text}" if row.text else ""
    measured = measures(row)
    return f"{columns(row, row.depth, NAME, AXES)} {measured:<{MEASURED if measured else 0}} {source}".rstrip()


def columns(row: Row, depth: int, name: int, axes: int) -> str:
    return f"{'  ' * depth + row_label(row):<{name}} {row.axes:<{axes}} {row.dtype:<8}"


def table(rows: list[Row]) -> str:
    """All rows, each column as wide as needed. The statement takes the rest of the line and is cut if it is longer."""
    if not rows:
        return "nothing was recorded: call the model inside the `with` block"
    outermost = min(row.depth for row in rows)
    name = max(len(row_label(row)) + 2 * (row.depth - outermost) for row in rows)
    axes = max(len(row.axes) for row in rows)
    measured = max((len(measures(row)) for row in rows if row.text), default=0)
    left = LINE - (name + axes + measured + 13)
    lines, number = [], 1
    for row in rows:
        if row.number > number:
            number = row.number
            lines.append(f"pass {number}")
        source = row.text if len(row.text) <= left else row.text[: max(left - 1, 0)] + "…"
        first = columns(row, row.depth - outermost, name, axes)
        lines.append(f"{first} {measures(row):<{measured}}  {source}".rstrip())
    return "\n".join(lines)
