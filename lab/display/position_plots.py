"""Pictures of position encodings: vectors, rotations and biases, and the loss at positions near and far."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from lab.display.heat_maps import PLAIN, Labels, Scale, heat_maps
from lab.display.palette import BLUE, INK, VERMILLION
from lab.display.style import MOST_LINES, Picture, PlotError, axes, drawable, panels, series

MOST_HEADS = 8
ENCODINGS = ("none", "learned", "sinusoidal", "rope", "alibi", "alibi-duplicate")  # the same colours in all pictures
STEPS_APART = 0.22  # between two labels of rotated vectors, as a share of the longest vector


def position_vectors(table: np.ndarray, name: str) -> Picture:
    """The vectors (T, C) that an encoding adds to the embedding: a row per position, a column per channel."""
    positions, channels = ([str(i) for i in range(n)] for n in table.shape)
    return heat_maps(
        {f"{name}: what is added at each position": table}, Labels("position", positions),
        Labels("channel", channels), Scale("value", signed=True),
    )


def rotations(turned: np.ndarray, pairs: Sequence[int], theta: float) -> Picture:
    """One vector rotated by RoPE at positions 0, 1, 2, …, in some planes. turned (T, D); d pairs with d + D/2."""
    half = turned.shape[1] // 2
    with panels(2.3, len(pairs)) as plots:
        for plot, pair in zip(plots, pairs):
            x, y = turned[:, pair], turned[:, pair + half]
            reach = 1.35 * float(np.hypot(x, y).max())
            for i, (a, b) in enumerate(zip(x, y)):
                arrow = dict(arrowstyle="->", color=BLUE, alpha=1.0 if i == 0 else 0.35)
                plot.annotate("", (a, b), (0, 0), arrowprops=arrow)
            plot.plot(x, y, linestyle="", marker="o", markersize=3, color=VERMILLION)
            for text, i in ends_of(x, y):
                side = "left" if x[i] > 0.2 * reach else "right" if x[i] < -0.2 * reach else "center"
                plot.annotate(text, (1.1 * x[i], 1.1 * y[i]), fontsize=8, ha=side, va="bottom" if y[i] > 0 else "top")
            plot.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[0], yticks=[0])
            step = np.degrees(theta ** (-pair / half))
            plot.set_title(f"channels {pair} and {pair + half}\n{step:.3g}° a step", fontsize=9)
        steps = len(turned) - 1
        return Picture(plots[0].figure, f"A vector rotated by RoPE at positions 0 to {steps}, in {len(pairs)} planes")


def ends_of(x: np.ndarray, y: np.ndarray) -> list[tuple[str, int]]:
    """Labels for the positions 0, 1 and the last. Positions too near to each other share a label."""
    named: dict[int, list[str]] = {}
    for i in dict.fromkeys((0, len(x) - 1, 1)):
        apart = STEPS_APART * np.hypot(x, y).max()
        near = [j for j in named if np.hypot(x[i] - x[j], y[i] - y[j]) < apart]
        named.setdefault(near[0] if near else i, []).append(str(i))
    return [(", ".join(sorted(texts, key=int)), i) for i, texts in named.items()]


def line_styles(names: Collection[str]) -> list[dict]:
    """Colour, dash and marker for each name. A position encoding has the same in every picture; others go in turn."""
    known = all(name in ENCODINGS for name in names)
    return [series(ENCODINGS.index(name) if known else i) for i, name in enumerate(names)]


def alibi_biases(slopes: Sequence[float], length: int = 24) -> Picture:
    """slope · (key − query) for the keys that a query can attend to, a panel for each head."""
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
    """Each head's slope on a logarithmic scale, for one or more rules."""
    with axes(2.8, "ALiBi's slopes, head by head") as plot:
        for i, (style, (name, values)) in enumerate(zip(line_styles(slopes), slopes.items())):
            size = 11 - 5 * i / max(1, len(slopes) - 1)  # marks that coincide stay visible
            style |= dict(linestyle="", markersize=size, fillstyle="none", markeredgewidth=1.8)
            plot.plot(range(len(values)), values, label=name, **style)
        plot.set(xlabel="head", ylabel="slope", xticks=range(max(map(len, slopes.values()))))
        plot.set_yscale("log", base=2)
        plot.margins(y=0.12)
        plot.yaxis.set_major_formatter(lambda value, _: f"1/{round(1 / value)}")
        plot.figure.legend(loc="outside lower center", ncols=len(slopes))
        said = "; ".join(f"{name}: " + ", ".join(f"{v:.4g}" for v in values) for name, values in slopes.items())
        return Picture(plot.figure, f"ALiBi's slopes. {said}")


def scores_by_offset(scores: Mapping[str, np.ndarray], title: str) -> Picture:
    """The scores of one query with one key at distances 0, 1, 2, …, a line for each position of the query.

    If the lines coincide, the score depends on the distance only.
    """
    with axes(2.9, title) as plot:
        for i, (name, values) in enumerate(scores.items()):
            every = max(1, len(values) // 12)
            plot.plot(values, markevery=(i, every), markersize=4, label=name, **series(i))
        plot.set(xlabel="distance from query back to key (tokens)", ylabel="score")
        plot.figure.legend(loc="outside lower center", ncols=3)
        return Picture(plot.figure, f"{title}: {', '.join(scores)}")


def extrapolation_curves(
    results: pd.DataFrame, title: str = "", unit: str = "nats per token", trained: Sequence[int] | None = None
) -> Picture:
    """Loss by length of the window, a line per variant: the mean over seeds, with bars of one standard deviation.

    results: columns variant, length, loss (NaN beyond the last learned position), as `extrapolation` returns them. The
    legend says where positions end. trained: the lengths of the training (None: the shortest), dotted.
    """
    lengths, facts = sorted(results["length"].unique()), []
    means = results.groupby(["variant", "length"], sort=False)["loss"].agg(["mean", "std"])
    names = list(results["variant"].unique())
    check_lines(names, measured=bool(means["mean"].notna().any()))
    labels = {name: name + positions_end(means.loc[name, "mean"]) for name in names}
    with axes(3.6 + legend_height(labels.values()), title or "Longer than the training") as plot:
        for i, (name, style) in enumerate(zip(names, line_styles(names))):
            by_length = means.loc[name].dropna(subset="mean").sort_index()
            # smaller marks for later lines, so that lines that coincide stay visible
            style |= dict(markersize=max(4, 8 - i), capsize=3, label=drawable(labels[name], most=52))
            plot.errorbar(by_length.index, by_length["mean"], yerr=by_length["std"].fillna(0), **style)
            ends = dict.fromkeys((*by_length.index[:1], *by_length.index[-1:]))  # one entry if there is only one length
            facts.append(f"{labels[name]} " + " and ".join(f"{by_length['mean'][n]:.3f} at {n:,}" for n in ends))
        for length in lengths[:1] if trained is None else trained:
            plot.axvline(length, color=INK, linewidth=0.8, linestyle=":")
        plot.set_xscale("log", base=2)
        length_axis(plot, lengths)
        plot.set(xlabel="length of the text it reads (tokens; dotted: as trained)", ylabel=f"loss ({unit})")
        legend(plot, labels.values())
        return Picture(plot.figure, "Loss by length in tokens: " + ", ".join(facts))


def position_losses(
    losses: Mapping[str, np.ndarray], trained: int | Sequence[int], title: str = "", unit: str = "nats per token"
) -> Picture:
    """Loss by position in the window, each point the mean of 16 positions. Dotted: the training lengths.

    If a model's positions end before the windows do, it has no values, and the legend says so.
    """
    check_lines(list(losses), measured=any(len(values) for values in losses.values()))
    labels = [name if len(values) else f"{name} (no such positions)" for name, values in losses.items()]
    with axes(3.4 + legend_height(labels), title or "Loss at each position of one long text") as plot:
        for i, (style, label, values) in enumerate(zip(line_styles(losses), labels, losses.values())):
            bins = np.array_split(np.arange(len(values)), max(1, len(values) // 16)) if len(values) else []
            style |= dict(markersize=4, markevery=(i % 4, 4), label=drawable(label, most=52))
            plot.plot([part.mean() for part in bins], [values[part].mean() for part in bins], **style)
        for length in np.atleast_1d(trained):
            plot.axvline(length, color=INK, linewidth=0.8, linestyle=":")
        plot.set(xlabel="position (tokens; dotted: the training length)", ylabel=f"loss ({unit})")
        legend(plot, labels)
        return Picture(plot.figure, "Loss by position of " + ", ".join(labels))


def positions_end(losses: pd.Series) -> str:
    """Text for a label that says where a model's positions end: its losses by length are NaN from there on."""
    reached = losses.dropna().index
    if len(reached) == len(losses):
        return ""
    return f" (positions end at {reached.max():,})" if len(reached) else " (no such positions)"


def check_lines(names: Sequence[str], measured: bool) -> None:
    if not measured:
        raise PlotError("there is no loss to draw: no model accepts such lengths; give shorter ones")
    if len(names) > MOST_LINES:
        raise PlotError(f"give the losses of 1 to {MOST_LINES} models, not of {len(names)}: more can't be told apart")


def legend(plot: Axes, names: Collection[str]) -> None:
    """Puts the legend beside the lines if the names are few and short, else below."""
    below = legend_height(names) > 0
    plot.figure.legend(loc="outside lower center" if below else "outside right center", ncols=2 if below else 1)


def legend_height(names: Collection[str]) -> float:
    """Inches that a legend below the lines needs, 0 for one beside them."""
    beside = len(names) <= 6 and max(map(len, names)) <= 16
    return 0.0 if beside else 0.1 + 0.19 * -(-len(names) // 2)


def length_axis(plot: Axes, lengths: Sequence[int]) -> None:
    plot.xaxis.set_major_locator(FixedLocator(lengths))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.xaxis.set_major_formatter(ScalarFormatter())
