"""Position encodings seen: vectors that are added, angles that turn, biases that fall, and how far each one reaches."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from lab.display.heat_maps import PLAIN, heat_maps
from lab.display.style import BLUE, INK, MOST_LINES, VERMILLION, Picture, PlotError, axes, drawable, panels, series

MOST_HEADS = 8
ENCODINGS = ("none", "learned", "sinusoidal", "rope", "alibi", "alibi-duplicate")  # one colour each, in every picture
STEPS_APART = 0.22  # between two labels of turned vectors, as a share of the longest


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
        return Picture(plots[0].figure, f"A vector turned by RoPE at positions 0 to {steps}, in {len(pairs)} planes")


def ends_of(x: np.ndarray, y: np.ndarray) -> list[tuple[str, int]]:
    """The positions 0, 1 and the last, each with its label; those too near to a former one share its label."""
    named: dict[int, list[str]] = {}
    for i in dict.fromkeys((0, len(x) - 1, 1)):
        apart = STEPS_APART * np.hypot(x, y).max()
        near = [j for j in named if np.hypot(x[i] - x[j], y[i] - y[j]) < apart]
        named.setdefault(near[0] if near else i, []).append(str(i))
    return [(", ".join(sorted(texts, key=int)), i) for i, texts in named.items()]


def line_styles(names: Collection[str]) -> list[dict]:
    """Colour, dash and marker for each name: position encodings keep theirs in every picture, others go in turn."""
    known = all(name in ENCODINGS for name in names)
    return [series(ENCODINGS.index(name) if known else i) for i, name in enumerate(names)]


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
        for i, (style, (name, values)) in enumerate(zip(line_styles(slopes), slopes.items())):
            size = 11 - 5 * i / max(1, len(slopes) - 1)  # marks on one another stay visible
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
    """The score of one query with one key at every distance, for several places of the query. Where the lines lie on
    one another, only the distance counts. Each array holds the scores at distances 0, 1, 2, …"""
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
    """Loss by length of the window, a line per variant: the mean over seeds, bars of one sd where there are several.

    results: columns variant, length, loss (NaN where learned positions end), as `extrapolation` gives them. The legend
    says where positions end. trained: the lengths of the training (None: the shortest), dotted.
    """
    lengths, facts = sorted(results["length"].unique()), []
    means = results.groupby(["variant", "length"], sort=False)["loss"].agg(["mean", "std"])
    names = list(results["variant"].unique())
    check_lines(names, measured=bool(means["mean"].notna().any()))
    labels = {name: name + positions_end(means.loc[name, "mean"]) for name in names}
    with axes(3.6 + legend_height(labels.values()), title or "Longer than the training") as plot:
        for i, (name, style) in enumerate(zip(names, line_styles(names))):
            by_length = means.loc[name].dropna(subset="mean").sort_index()
            # lines on one another stay visible: the later, the smaller
            style |= dict(markersize=max(4, 8 - i), capsize=3, label=drawable(labels[name], most=52))
            plot.errorbar(by_length.index, by_length["mean"], yerr=by_length["std"].fillna(0), **style)
            ends = dict.fromkeys((*by_length.index[:1], *by_length.index[-1:]))  # one, where it goes no further
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
    """Loss by position in the window, the mean of 16 neighbours; dotted where the training, or each of them, ended.

    A model whose positions end before all windows has no values, and the legend says so.
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
    """For a label, where the positions of a model end, from its losses by length, NaN beyond."""
    reached = losses.dropna().index
    if len(reached) == len(losses):
        return ""
    return f" (positions end at {reached.max():,})" if len(reached) else " (no such positions)"


def check_lines(names: Sequence[str], measured: bool) -> None:
    if not measured:
        raise PlotError("there is no loss to draw: no model accepts such lengths; take shorter ones")
    if len(names) > MOST_LINES:
        raise PlotError(f"give the losses of 1 to {MOST_LINES} models, not of {len(names)}: more can't be told apart")


def legend(plot: Axes, names: Collection[str]) -> None:
    """Beside the lines where the names are few and short, below where they are not."""
    below = legend_height(names) > 0
    plot.figure.legend(loc="outside lower center" if below else "outside right center", ncols=2 if below else 1)


def legend_height(names: Collection[str]) -> float:
    """Inches that a legend takes below."""
    beside = len(names) <= 6 and max(map(len, names)) <= 16
    return 0.0 if beside else 0.1 + 0.19 * -(-len(names) // 2)


def length_axis(plot: Axes, lengths: Sequence[int]) -> None:
    plot.xaxis.set_major_locator(FixedLocator(lengths))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.xaxis.set_major_formatter(ScalarFormatter())
