"""A trace as a tree that opens and closes: HTML that needs no script and no kernel."""

from collections import defaultdict
from dataclasses import dataclass, field
from html import escape
from itertools import groupby

from lab.display.palette import GREY, SKY, WRONG, translucent
from lab.shapes.axis_colours import axes_html
from tracing import checks
from tracing.rows import Row
from tracing.text import measures, row_label
from tracing.traces import Trace

MOST_ROWS = 3_000  # more make a browser slow
# Naming the class three times gives these rules precedence over the notebook's own rules for tables
STYLE = f"""<style>
& {{ font-size: 13px; line-height: 1.5; overflow-x: auto; color: inherit }}
& details {{ margin-left: .4em; padding-left: .9em; border-left: 2px solid {translucent(GREY, 0.35)} }}
& summary {{ cursor: pointer; padding: 1px 4px; border-radius: 4px; white-space: nowrap }}
& summary:hover {{ background: {translucent(SKY, 0.18)} }}
& summary:focus-visible {{ outline: 2px solid currentColor }}
& table {{ border-collapse: collapse; border: none; margin: 0 0 0 1.1em; table-layout: auto; color: inherit }}
& td {{ text-align: left; padding: 0 1.2em 0 0; border: none; white-space: nowrap; font-size: 12px;
  vertical-align: top; font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; color: inherit }}
& tr, & tbody tr:nth-child(odd) {{ background: none }}
& tbody tr:hover {{ background: {translucent(GREY, 0.12)} }}
& td:nth-child(1) {{ min-width: 13em }} & td:nth-child(2) {{ min-width: 20em }}
& td:nth-child(3) {{ min-width: 5em }}
& td.measured {{ min-width: 30em }} & .quiet {{ opacity: .72 }}
& .mismatch {{ font-weight: bold; background: {translucent(WRONG, 0.3)}; border-radius: 3px; padding: 0 4px }}
</style>""".replace("&", ".gb-shapes" * 3)


@dataclass(frozen=True)
class About:
    """mismatches: place -> the mismatches of its comment. measured: whether the pass measured values, time or FLOPs."""

    mismatches: dict[str, list[str]]
    measured: bool


@dataclass(eq=False)
class Branch:
    """A row with the rows inside it; the root has no row."""

    row: Row | None
    inside: list["Branch"] = field(default_factory=list)


def tree(trace: Trace) -> str:
    """HTML of all passes: a module opens to its arguments and statements, these to the functions they called."""
    shown = trace.rows[:MOST_ROWS]
    if not shown:
        return '<div class="gb-shapes">nothing was recorded: call the model inside the <code>with</code> block</div>'
    parts = [STYLE, '<div class="gb-shapes">']
    passes = [(number, list(rows)) for number, rows in groupby(shown, key=lambda row: row.number)]
    several = len({number for number, _ in passes}) > 1
    for number, rows in passes:
        about = About(_mismatches(rows, trace), any(measures(row) for row in rows if row.kind != "module"))
        parts.append(f"<div><b>pass {number}</b></div>" if several else "")
        parts += _branches(_nest(rows).inside, about, level=0)
    if left_out := len(trace.rows) - len(shown):
        parts.append(
            f"<div>… and {left_out:,} more rows are left out, so that the page stays fast. Show a part, as in "
            "<code>shapes[&quot;blocks.0&quot;]</code>, or all rows with <code>shapes.frame()</code></div>"
        )
    return "".join(parts) + "</div>"


def _nest(rows: list[Row]) -> Branch:
    root = Branch(None)
    stack = [root]
    for row in rows:
        while len(stack) > 1 and stack[-1].row.depth >= row.depth:
            stack.pop()
        branch = Branch(row)
        stack[-1].inside.append(branch)
        stack.append(branch)
    return root


def _mismatches(rows: list[Row], trace: Trace) -> dict[str, list[str]]:
    """Place -> the mismatches of its comment."""
    found = defaultdict(list)
    by_length = sorted({row.where for row in rows}, key=len, reverse=True)
    for sentence in checks.mismatches(rows, trace.glossary, trace.known):
        place = next(where for where in by_length if sentence.startswith(f"{where}: "))
        found[place].append(sentence.removeprefix(f"{place}: "))
    return found


def _branches(branches: list[Branch], about: About, level: int) -> list[str]:
    parts: list[str] = []
    lines: list[str] = []
    previous: Row | None = None

    def close_table() -> None:
        if lines:
            parts.append(f"<table>{''.join(lines)}</table>")
            lines.clear()

    for branch in branches:
        if branch.row.kind == "module":
            close_table()
            parts.append(_module(branch, about, level))
            continue
        again = previous is not None and previous.text != "" and _place(previous) == _place(branch.row)
        lines.append(_line(branch.row, about, again))
        previous = branch.row if not branch.inside else None
        for is_module, group in groupby(branch.inside, key=lambda child: child.row.kind == "module"):
            close_table()
            if is_module:
                parts += [_module(child, about, level) for child in group]
                continue
            for owner, calls in groupby(group, key=lambda child: child.row.owner):
                inner = "".join(_branches(list(calls), about, level + 1))
                parts.append(f"<details><summary><i>{escape(owner)}</i></summary>{inner}</details>")
    close_table()
    return parts


def _module(branch: Branch, about: About, level: int) -> str:
    row = branch.row
    shape = "" if row.shape is None else "→ " + axes_html(row.claim or (), row.shape)
    more = " · ".join(filter(None, [row.dtype, measures(row)]))
    inside = "".join(_branches(branch.inside, about, level + 1))
    inside = inside or '<div class="quiet" style="margin-left:1.1em">library code, not followed inside</div>'
    return (
        f"<details{' open' * (level == 0)}><summary><b>{escape(row.path or 'model')}</b> · {escape(row.owner)} "
        f'{shape} <span class="quiet">{escape(more)}</span></summary>{inside}</details>'
    )


def _line(row: Row, about: About, again: bool) -> str:
    """again: the line above shows the same statement, so it is not repeated."""
    shape = escape(row.axes) if row.shape is None else axes_html(row.claim or (), row.shape)
    source = f'{escape(row.text)} <span class="quiet">{escape(row.where)}</span>' if row.text and not again else ""
    wrong = about.mismatches.get(row.where, ()) if row.kind == "statement" else ()
    said = [text for text in wrong if _is_about(text, row)]
    source = "".join(f'<span class="mismatch">✗ {escape(text)}</span> ' for text in said) + source
    measured = f'<td class="measured">{escape(measures(row))}</td>' if about.measured else ""
    return f"<tr><td>{escape(row_label(row))}</td><td>{shape}</td><td>{row.dtype}</td>{measured}<td>{source}</td></tr>"


def _place(row: Row) -> tuple:
    return row.where, row.turn


def _is_about(mismatch: str, row: Row) -> bool:
    named = mismatch.startswith((f"{row.variable} is ", f"{row.variable}: "))
    return named or mismatch == row.complaint or " is (" not in mismatch
