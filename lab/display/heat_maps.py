"""Tables of numbers as coloured cells, one panel or several with the same colours."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from lab.display.style import FAINT, Picture, PlotError, drawable, panels

# Both told apart by colour-blind readers: orange below 0, white, purple above; and from dark to light
SIGNED, PLAIN, SHADES = "PuOr", "cividis", 21
MOST_LABELS = 48  # rows or columns named on one axis; of more, every other, every third, ...
MOST_NUMBERS = 100  # cells of a single panel in which the numbers themselves are written
CHARACTERS = 100  # of these numbers, side by side in one row
ROW = 0.15  # inches


def heat_maps(
    tables: dict[str, np.ndarray], rows: Sequence[str], columns: Sequence[str], *, row_name: str, column_name: str,
    unit: str, title: str = "", signed: bool = False, most: float | None = None,
) -> Picture:  # fmt: skip
    """A panel for each named table (rows, columns), up to three beside each other, the first row on top.

    signed: two colours that part at 0. most: where the colours end, if some cells are to lie beyond. What is not a
    number stays grey. Raises PlotError where nothing is to be drawn.
    """
    values = {name: np.asarray(table, dtype=float) for name, table in tables.items()}
    finite = np.concatenate([table[np.isfinite(table)] for table in values.values()] or [np.empty(0)])
    if not finite.size or any(table.shape != (len(rows), len(columns)) for table in values.values()):
        shapes = ", ".join(str(table.shape) for table in values.values()) or "none"
        raise PlotError(f"heat maps need tables of {len(rows)} × {len(columns)} with a finite number, not {shapes}")
    most = most or np.abs(finite).max() or 1.0
    low, high = -most if signed else min(0.0, finite.min()), most
    colours = matplotlib.colormaps[SIGNED if signed else PLAIN].resampled(SHADES).with_extremes(bad=FAINT)
    across = min(3, len(values))
    down = -(-len(values) // across)
    named = min(MOST_LABELS if across == 1 else 16, max(len(rows), 8))
    with panels(down * (0.75 + ROW * named + 0.06 * longest(columns)) + 0.6, across, rows=down) as plots:
        for i, plot in enumerate(plots):
            if i >= len(values):
                plot.set_visible(False)
                continue
            name, table = list(values.items())[i]
            mesh = plot.pcolormesh(table, norm=Normalize(low, high), cmap=colours)
            plot.set_title(drawable(name, most=76 // across), fontsize=11 if across == 1 else 10)
            name_cells(plot, rows if i % across == 0 else [], columns, named, MOST_LABELS if across == 1 else 16)
            plot.set(ylim=(len(rows), 0), xlabel=column_name, ylabel=row_name if i % across == 0 else "")
            if len(values) == 1 and table.size <= MOST_NUMBERS:
                write_numbers(plot, table, mesh)
        ends = [end for end, beyond in (("min", finite.min() < low), ("max", finite.max() > high)) if beyond]
        extend = "both" if len(ends) == 2 else ends[0] if ends else "neither"
        bar = plot.figure.colorbar(mesh, ax=plots, location="right", fraction=0.05, pad=0.02, extend=extend)
        bar.set_label(unit, fontsize=9)
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        bar.ax.tick_params(labelsize=9)
        if title:
            plot.figure.suptitle(drawable(title), x=0.02, ha="left", fontsize=11, fontweight="bold")
        extent = f"{finite.min():.3g} to {finite.max():.3g}"
        about = f"{title or 'Heat map'}: {unit} by {row_name} and {column_name}, {extent}"
        return Picture(plot.figure, about + (f"; panels: {', '.join(values)}" if len(values) > 1 else ""))


def longest(labels: Sequence[str]) -> int:
    return min(12, max(map(len, labels), default=0))


def name_cells(plot: Axes, rows: Sequence[str], columns: Sequence[str], most_rows: int, most_columns: int) -> None:
    """Labels in the middle of the cells, as many as can be read."""
    plot.grid(visible=False)
    plot.tick_params(length=0, labelsize=8)
    for set_ticks, labels, most, turn in (
        (plot.set_yticks, rows, most_rows, 0), (plot.set_xticks, columns, most_columns, 90 * (longest(columns) > 2)),
    ):  # fmt: skip
        shown = range(0, len(labels), -(-len(labels) // most) or 1)
        set_ticks([i + 0.5 for i in shown], [drawable(labels[i], most=12) for i in shown], rotation=turn)


def write_numbers(plot: Axes, table: np.ndarray, mesh) -> None:
    """Each cell's number, in black on light cells and white on dark ones."""
    room = CHARACTERS // table.shape[1]
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            plot.text(
                column + 0.5, row + 0.5, short(value, room), ha="center", va="center", fontsize=8,
                color="white" if dark else "black",
            )  # fmt: skip


def short(value: float, room: int) -> str:
    """Two digits of it, or what fits into so many characters; "" where nothing does."""
    texts = (f"{value:{form}}" for form in (".2g", ".2f", ".1f", ".0f"))
    return next((text for text in texts if len(text) <= room), "")
