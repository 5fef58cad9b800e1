"""The picture of a watched training: how large activations and gradients were, layer by layer and step by step."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from lab.display.palette import FAINT, INK, VERMILLION
from lab.display.style import Picture, PlotError, drawable, panels
from lab.training.watch import by_layer

MAP, SHADES = "viridis", 20  # even steps of lightness, which colour-blind readers can distinguish
PANELS = {"activation": ("Activations", "root mean square"), "gradient": ("Gradients", "norm")}
MOST_LABELS = 26  # layer names on one axis; with more layers, every second or third is named


def watch_heatmap(frame: pd.DataFrame, title: str = "") -> Picture:
    """Run.watch()'s activations and gradients: a row for each layer, the first on top, a column for each watched step.

    Colours are logarithmic. Exact zeros are black; what is not finite is red. Raises PlotError for no rows.
    """
    tables = {kind: by_layer(frame, kind) for kind in PANELS}
    if any(table.empty for table in tables.values()):
        raise PlotError("there are no watched steps to draw; train with watch_every=50, say, and give run.watch()")
    facts = []
    with panels(2.1 + 0.2 * min(MOST_LABELS, max(len(table.columns) for table in tables.values())), 2) as both:
        for plot, (kind, (name, unit)) in zip(both, PANELS.items()):
            draw_heat_map(plot, tables[kind], name, unit)
            facts.append(f"{name.lower()} ({unit}) of {len(tables[kind].columns)} layers, {extent(tables[kind])}")
        if title:
            both[0].figure.suptitle(drawable(title), x=0.02, ha="left", fontsize=11, fontweight="bold")
        steps = tables["activation"].index
        where = f"at step {steps[0]:,}" if len(steps) == 1 else f"from step {steps[0]:,} to {steps[-1]:,}"
        return Picture(plot.figure, f"Heat maps{' of ' + title if title else ''} {where}: " + "; ".join(facts))


def draw_heat_map(plot: Axes, table: pd.DataFrame, name: str, unit: str) -> None:
    """Draws a coloured cell for each step (row of `table`) and layer (column), and a bar for the colours."""
    values, layers = table.T.to_numpy(), list(table.columns)
    usual = values[np.isfinite(values) & (values > 0)]
    low, high = (usual.min(), usual.max()) if usual.size else (0.1, 1.0)
    low, high = (low, high) if low < high else (low / 2, high * 2)
    outside = {"min": (values == 0).any(), "max": np.isposinf(values).any()}
    drawn = np.where(values == 0, low / 2, np.minimum(values, 2 * high))  # no logarithm of 0 or infinity
    colours = matplotlib.colormaps[MAP].resampled(SHADES).with_extremes(bad=FAINT, under=INK, over=VERMILLION)
    mesh = plot.pcolormesh(
        edges(table.index.to_numpy()), np.arange(len(layers) + 1), drawn, norm=LogNorm(low, high), cmap=colours
    )
    plot.set_title(name)
    plot.grid(visible=False)
    stride = -(-len(layers) // MOST_LABELS)
    shown = range(0, len(layers), stride)
    plot.set_yticks([i + 0.5 for i in shown], [drawable(layers[i], most=16) for i in shown], fontsize=9)
    plot.tick_params(axis="y", length=0)
    plot.set(ylim=(len(layers), 0), xlabel="step")
    plot.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    plot.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ends = [end for end, there in outside.items() if there]
    notes = {"min": "black: 0", "max": "red: not finite"}
    bar = plot.figure.colorbar(
        mesh, ax=plot, location="bottom", extend="both" if len(ends) == 2 else ends[0] if ends else "neither"
    )
    bar.set_label("; ".join([f"{unit}, log scale", *(notes[end] for end in ends)]), fontsize=9)
    ticks = np.geomspace(low, high, 3)
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks], fontsize=9)
    bar.ax.minorticks_off()


def edges(steps: np.ndarray) -> np.ndarray:
    """The borders of the columns: halfway between watched steps; the first is half a step left of the first step."""
    middles = (steps[1:] + steps[:-1]) / 2
    first = steps[0] - 0.5
    return np.array([first, *middles, 2 * steps[-1] - (middles[-1] if len(middles) else first)])


def extent(table: pd.DataFrame) -> str:
    return f"{np.nanmin(table.to_numpy()):.2g} to {np.nanmax(table.to_numpy()):.2g}"
