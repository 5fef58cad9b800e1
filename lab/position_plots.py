"""Position encodings seen: vectors that are added, angles that turn, biases that fall, and how far each one reaches."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from lab.heat_maps import PLAIN, heat_maps
from lab.plot_style import BLUE, INK, SKY, VERMILLION, Picture, PlotError, axes, panels

# colour, line, marker: told apart without the colour too
SERIES = [
    (BLUE, "-", "o"), (VERMILLION, "--", "s"), (SKY, "-.", "^"), ("#009E73", ":", "D"), ("#CC79A7", "-", "v"),
    (INK, "--", "x"),
]  # fmt: skip
MOST_HEADS = 8


def position_vectors(table: np.ndarray, name: str) -> Picture:
    """What an encoding adds to the embedding: a row per position, a column per channel; table (T, C)."""
    positions, channels = ([str(i) for i in range(n)] for n in table.shape)
    return heat_maps(
        {f"{name}: what is added at each position": table}, positions, channels, row_name="position",
        column_name="channel", unit="value", signed=True,
    )  # fmt: skip


def rotations(turned: np.ndarray, pairs: Sequence[int], theta: float) -> Picture:
    """One vector turned by RoPE at positions 0, 1, 2, …, seen in some of its planes; turned (T, D), d with d + D/2."""
    half = turned.shape[1] // 2
    with panels(2.3, len(pairs)) as plots:
        for plot, pair in zip(plots, pairs):
            x, y = turned[:, pair], turned[:, pair + half]
            reach = 1.25 * float(np.hypot(x, y).max())
            for i, (a, b) in enumerate(zip(x, y)):
                arrow = dict(arrowstyle="->", color=BLUE, alpha=1.0 if i == 0 else 0.35)
                plot.annotate("", (a, b), (0, 0), arrowprops=arrow)
            plot.plot(x, y, linestyle="", marker="o", markersize=3, color=VERMILLION)
            for i in {0, 1, len(x) - 1}:
                plot.annotate(str(i), (x[i], y[i]), xytext=(4, 3), textcoords="offset points", fontsize=8)
            plot.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[0], yticks=[0])
            step = np.degrees(theta ** (-pair / half))
            plot.set_title(f"channels {pair} and {pair + half}\n{step:.3g}° a step", fontsize=9)
        steps = len(turned) - 1
        return Picture(plots[0].figure, f"A vector turned by RoPE at positions 0 to {steps}, in {len(pairs)} planes")


def alibi_biases(slopes: Sequence[float], length: int = 24) -> Picture:
    """slope · (key − query) for the keys that a query sees, head by head."""
    shown = list(slopes)[:MOST_HEADS]
    offsets = np.arange(length)[None, :] - np.arange(length)[:, None]
    biases = [np.where(offsets <= 0, slope * offsets, np.nan) for slope in shown]
    low = min(float(np.nanmin(bias)) for bias in biases)
    with panels(1.7, len(shown)) as plots:
        for head, (plot, bias) in enumerate(zip(plots, biases)):
            mesh = plot.imshow(bias, cmap=PLAIN, vmin=low, vmax=0, interpolation="nearest")
            plot.set_title(f"head {head}\n{shown[head]:.3g}", fontsize=9)
            plot.set(xticks=[0, length - 1], yticks=[0, length - 1] if head == 0 else [], xlabel="key")
            plot.grid(visible=False)
        plots[0].set_ylabel("query")
        plots[0].figure.colorbar(mesh, ax=plots, label="added to the score", pad=0.02, shrink=0.7)
        said = ", ".join(f"{slope:.3g}" for slope in shown)
        return Picture(plots[0].figure, f"ALiBi's biases of {len(shown)} heads, slopes {said}")


def slope_dots(slopes: Mapping[str, Sequence[float]]) -> Picture:
    """The slopes of each head on a logarithmic scale, for one or more rules."""
    with axes(2.8, "ALiBi's slopes, head by head") as plot:
        for (name, values), (colour, _, marker) in zip(slopes.items(), SERIES):
            plot.plot(range(len(values)), values, linestyle="", marker=marker, color=colour, label=name, markersize=7,
                      fillstyle="none", markeredgewidth=1.8)  # fmt: skip
        plot.set(xlabel="head", ylabel="slope", xticks=range(max(map(len, slopes.values()))))
        plot.set_yscale("log", base=2)
        plot.yaxis.set_major_formatter(lambda value, _: f"1/{round(1 / value)}")
        plot.figure.legend(loc="outside lower center", ncols=len(slopes))
        said = "; ".join(f"{name}: " + ", ".join(f"{v:.4g}" for v in values) for name, values in slopes.items())
        return Picture(plot.figure, f"ALiBi's slopes. {said}")


def scores_by_offset(scores: Mapping[str, np.ndarray], title: str) -> Picture:
    """The score of one query with one key at every distance, for several places of the query: lines on one another say
    that the distance alone counts. Each array holds the scores at distances 0, 1, 2, …"""
    with axes(2.9, title) as plot:
        for i, ((name, values), (colour, line, marker)) in enumerate(zip(scores.items(), SERIES)):
            every = max(1, len(values) // 12)
            style = dict(color=colour, linestyle=line, marker=marker, markersize=4)
            plot.plot(values, markevery=(i, every), label=name, **style)
        plot.set(xlabel="distance from query back to key (tokens)", ylabel="score")
        plot.figure.legend(loc="outside lower center", ncols=3)
        return Picture(plot.figure, f"{title}: {', '.join(scores)}")


def extrapolation_curves(results: pd.DataFrame, title: str = "") -> Picture:
    """Loss by length of the window, a line per variant: the mean over seeds, bars of one sd where there are several.

    results: columns variant, length, loss (NaN where the model does not go), as `extrapolation` gives them.
    """
    if results.empty or len(results["variant"].unique()) > len(SERIES):
        raise PlotError(f"give the results of 1 to {len(SERIES)} variants, not {len(results['variant'].unique())}")
    lengths, facts = sorted(results["length"].unique()), []
    with axes(3.6, title or "Longer than the training") as plot:
        for (name, rows), (colour, line, marker) in zip(results.groupby("variant", sort=False), SERIES):
            by_length = rows.dropna(subset="loss").groupby("length")["loss"].agg(["mean", "std"])
            style = dict(color=colour, linestyle=line, marker=marker, markersize=5, capsize=3, label=name)
            plot.errorbar(by_length.index, by_length["mean"], yerr=by_length["std"].fillna(0), **style)
            facts.append(f"{name} {by_length['mean'].iloc[0]:.3f} to {by_length['mean'].iloc[-1]:.3f}")
        plot.axvline(lengths[0], color=INK, linewidth=0.8, linestyle=":")
        plot.set_xscale("log", base=2)
        length_axis(plot, lengths)
        plot.set(xlabel="length of the text it reads (tokens; dotted: as trained)", ylabel="loss (nats per token)")
        plot.figure.legend(loc="outside right center")
        return Picture(plot.figure, f"Loss from {lengths[0]} to {lengths[-1]} tokens: " + ", ".join(facts))


def position_losses(losses: Mapping[str, np.ndarray], trained: int, title: str = "") -> Picture:
    """Loss by position in the window, the mean of 16 neighbours; the dotted line is where training ended."""
    with axes(3.4, title or "Loss at each position of one long text") as plot:
        for (name, values), (colour, line, _) in zip(losses.items(), SERIES):
            bins = np.array([part.mean() for part in np.array_split(values, max(1, len(values) // 16))])
            plot.plot(np.linspace(0, len(values), len(bins)), bins, color=colour, linestyle=line, label=name)
        plot.axvline(trained, color=INK, linewidth=0.8, linestyle=":")
        plot.set(xlabel="position (tokens; dotted: the training length)", ylabel="loss (nats)")
        plot.figure.legend(loc="outside right center")
        return Picture(plot.figure, "Loss by position of " + ", ".join(losses))


def length_axis(plot: Axes, lengths: Sequence[int]) -> None:
    plot.xaxis.set_major_locator(FixedLocator(lengths))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.xaxis.set_major_formatter(ScalarFormatter())
