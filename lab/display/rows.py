"""Tables of three columns: what (indented where it is part of the line above), how much, and a remark."""

from collections.abc import Iterable
from html import escape

Row = tuple[str, str, str]


def rows_as_text(rows: Iterable[Row]) -> str:
    """Aligned lines: the amounts to the right."""
    rows = list(rows)
    wide, narrow = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"{what:{wide}}  {amount:>{narrow}}  {remark}".rstrip() for what, amount, remark in rows)


def rows_as_html(rows: Iterable[Row]) -> str:
    """The same as a table for a notebook."""

    def cell(text: str, side: str) -> str:
        indent = 0.5 + 0.7 * (len(text) - len(text.lstrip()))
        return f'<td style="text-align:{side};padding-left:{indent:.1f}em">{escape(text.lstrip())}</td>'

    lines = ("".join(map(cell, row, ("left", "right", "left"))) for row in rows)
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
