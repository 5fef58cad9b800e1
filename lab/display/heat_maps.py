"""Tables of numbers as coloured cells, one panel or several with the same colours."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from lab.display.palette import FAINT
from lab.display.style import Picture, PlotError, drawable, panels

# Colour-blind readers can read both: orange below 0, white at 0, purple above; and from dark to light
SIGNED, PLAIN, SHADES = "PuOr", "cividis", 21
MOST_LABELS = 48  # on one axis; of more rows or columns every second has a label, or every third, ...
MOST_NUMBERS = 100  # cells of a single panel: up to so many show their numbers
CHARACTERS = 100  # room for the numbers of one row
ROW = 0.15  # inches


class Labels(NamedTuple):
    """What an axis is called, and the label of each row or column on it."""

    name: str
    texts: Sequence[str]


class Scale(NamedTuple):
    """The unit of the numbers, and how colours show them.

    signed: two colours that meet at 0. most: the number at which the colours end; None: the largest one.
    """

    unit: str
    signed: bool = False
    most: float | None = None


def heat_maps(
    tables: dict[str, np.ndarray], rows: Labels, columns: Labels, scale: Scale, title: str = ""
) -> Picture:
    """A panel for each named table (rows, columns), up to three side by side, the first row on top.

    Cells that are not a number are grey. Raises PlotError if there is nothing to draw.
    """
    values = {name: np.asarray(table, dtype=float) for name, table in tables.items()}
    finite = np.concatenate([table[np.isfinite(table)] for table in values.values()] or [np.empty(0)])
    n_rows, n_columns = len(rows.texts), len(columns.texts)
    if not finite.size or any(table.shape != (n_rows, n_columns) for table in values.values()):
        shapes = ", ".join(str(table.shape) for table in values.values()) or "none"
        raise PlotError(f"heat maps need tables of {n_rows} × {n_columns} with a finite number, not {shapes}")
    high = scale.most or np.abs(finite).max() or 1.0
    low = -high if scale.signed else min(0.0, finite.min())
    colours = matplotlib.colormaps[SIGNED if scale.signed else PLAIN].resampled(SHADES).with_extremes(bad=FAINT)
    across = min(3, len(values))
    down = -(-len(values) // across)
    named = min(MOST_LABELS if across == 1 else 16, max(n_rows, 8))
    with panels(down * (0.75 + ROW * named + 0.06 * longest(columns.texts)) + 0.6, across, rows=down) as plots:
        for i, plot in enumerate(plots):
            if i >= len(values):
                plot.set_visible(False)
                continue
            name, table = list(values.items())[i]
            mesh = plot.pcolormesh(table, norm=Normalize(low, high), cmap=colours)
            plot.set_title(drawable(name, most=76 // across), fontsize=11 if across == 1 else 10)
            name_cells(plot.yaxis, rows.texts if i % across == 0 else [], named)
            name_cells(plot.xaxis, columns.texts, MOST_LABELS if across == 1 else 16, longest(columns.texts) > 2)
            plot.grid(visible=False)
            plot.tick_params(length=0, labelsize=8)
            plot.set(ylim=(n_rows, 0), xlabel=columns.name, ylabel=rows.name if i % across == 0 else "")
            if len(values) == 1 and table.size <= MOST_NUMBERS:
                write_numbers(plot, table, mesh)
        ends = [end for end, beyond in (("min", finite.min() < low), ("max", finite.max() > high)) if beyond]
        extend = "both" if len(ends) == 2 else ends[0] if ends else "neither"
        bar = plot.figure.colorbar(mesh, ax=plots, location="right", fraction=0.05, pad=0.02, extend=extend)
        bar.set_label(scale.unit, fontsize=9)
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        bar.ax.tick_params(labelsize=9)
        if title:
            plot.figure.suptitle(drawable(title), x=0.02, ha="left", fontsize=11, fontweight="bold")
        extent = f"{finite.min():.3g} to {finite.max():.3g}"
        about = f"{title or 'Heat map'}: {scale.unit} by {rows.name} and {columns.name}, {extent}"
        return Picture(plot.figure, about + (f"; panels: {', '.join(values)}" if len(values) > 1 else ""))


def longest(labels: Sequence[str]) -> int:
    return min(12, max(map(len, labels), default=0))


def name_cells(axis: Axis, labels: Sequence[str], most: int, upright: bool = False) -> None:
    """Writes the labels at the middles of the cells, at most so many."""
    shown = range(0, len(labels), -(-len(labels) // most) or 1)
    texts = [drawable(labels[i], most=12) for i in shown]
    axis.set_ticks([i + 0.5 for i in shown], texts, rotation=90 if upright else 0)


def write_numbers(plot: Axes, table: np.ndarray, mesh) -> None:
    """Writes each cell's number, black on light cells and white on dark ones."""
    room = CHARACTERS // table.shape[1]
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            place = dict(ha="center", va="center", fontsize=8, color="white" if dark else "black")
            plot.text(column + 0.5, row + 0.5, number_text(value, room), **place)


def number_text(value: float, room: int) -> str:
    """The number with two digits, or with as many as fit into `room` characters; "" where none fit."""
    texts = (f"{value:{form}}" for form in (".2g", ".2f", ".1f", ".0f"))
    return next((text for text in texts if len(text) <= room), "")
