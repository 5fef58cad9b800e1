"""The pictures of a comparison: loss as the trainings went, and loss against what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter
from numpy.lib.stride_tricks import sliding_window_view

from lab.comparison.compared import Compared
from lab.display.palette import INK
from lab.display.plots import extremes, usual_smoothing
from lab.display.style import MARKERS, MOST_LINES, Picture, PlotError, axes, drawable, series
from settings.errors import ConfigError

PLACES = 400  # at which a smoothed line is drawn; half of them crowd at the beginning, for logarithmic axes
AXES = {"steps": "step", "tokens": "tokens", "seconds": "training time (s)", "flops": "training FLOPs"}
LOSSES = {"loss": "training loss", "validation_loss": "validation loss"}
COSTS = {"parameters": "parameters", "seconds": "training time (s)", "flops": "training FLOPs"}
SHOWN_FROM = 0.1  # of a linear axis: the fall before it would press everything else flat
RAW_POINTS = 3_000  # of all raw lines together: the more runs, the fainter


@dataclass(frozen=True, eq=False)
class Line:
    """One configuration: its runs, each with the factor that takes its nats per token to the unit drawn."""

    name: str
    members: Sequence[tuple[Compared, float]]
    y: str
    smoothing: int | None

    def logged(self, member: tuple[Compared, float], x: str) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the rows that have a value."""
        compared, scale = member
        values = compared.log[self.y].to_numpy(dtype=float)
        there = np.isfinite(values)
        return compared.at(x)[there], values[there] * scale

    def width(self, n_rows: int) -> int:
        """Rows whose median is one point of the line."""
        if self.y != "loss":
            return 1
        return usual_smoothing(n_rows) if self.smoothing is None else self.smoothing

    def smoothed(self, member: tuple[Compared, float], x: str) -> tuple[np.ndarray, np.ndarray]:
        """The line of one run at PLACES points or fewer."""
        at, values = self.logged(member, x)
        rows = places(len(at))
        return at[rows], medians(values, rows, self.width(len(at)) // 2)

    def band(self, x: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, mean, lowest and highest over the runs, where all of them have been; of one run the three are the same."""
        curves = [self.smoothed(member, x) for member in self.members]
        curves = [curve for curve in curves if len(curve[0])]
        if not curves:
            return (np.empty(0),) * 4
        if len(curves) == 1:
            return (*curves[0], curves[0][1], curves[0][1])
        first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
        at = curves[0][0]
        at = np.unique(np.clip(at, first, max(first, last)))
        values = np.array([np.interp(at, *curve) for curve in curves])
        return at, values.mean(0), values.min(0), values.max(0)


def places(n_rows: int) -> np.ndarray:
    """PLACES rows or fewer, the first and the last among them, half of them evenly, half ever denser towards 0."""
    if n_rows <= PLACES:
        return np.arange(n_rows)
    even, dense = np.linspace(0, n_rows - 1, PLACES // 2), np.geomspace(1, n_rows, PLACES // 2) - 1
    return np.unique(np.concatenate([even, dense]).round().astype(int))


def medians(values: np.ndarray, rows: np.ndarray, half: int) -> np.ndarray:
    """The median of each row with its `half` neighbours on either side, as many of them as there are."""
    half = min(half, len(values) - 1)
    if half < 1:
        return values[rows]
    padded = np.pad(values, half, constant_values=np.inf)  # sorted last, so that each window begins with its values
    windows = np.sort(sliding_window_view(padded, 2 * half + 1)[rows], axis=1)
    neighbours = np.minimum(rows, half) + np.minimum(len(values) - 1 - rows, half)
    lower, upper = (windows[np.arange(len(rows)), middle] for middle in (neighbours // 2, (neighbours + 1) // 2))
    return (lower + upper) / 2


def curves(
    lines: Sequence[Line], floors: Mapping[str, float], x: str, y: str, unit: str, *, log_x: bool = False,
    log_y: bool = False, mark: float | None = None,
) -> Picture:  # fmt: skip
    """The lines, raw values faintly behind; the band is from the lowest to the highest seed. mark: an x to point at.

    Raises ConfigError for an unknown axis, PlotError where there is nothing to draw.
    """
    check_axes(x, y)
    drawn = {line: band for line in lines if len((band := line.band(x))[0])}
    if not 1 <= len(drawn) <= MOST_LINES:
        raise PlotError(f"{len(drawn)} configurations have a {LOSSES[y]} to draw; choose 1 to {MOST_LINES} of them")
    rows = -(-(len(drawn) + len(floors)) // 2)
    facts, n_runs = [], sum(len(line.members) for line in drawn)
    several = f"{len(drawn)} configurations" if len(drawn) > 1 else next(iter(drawn)).name
    with axes(3.9 + 0.19 * rows, f"{LOSSES[y].capitalize()} of {several}") as plot:
        for i, (line, (at, mean, low, high)) in enumerate(drawn.items()):
            style = series(i)
            for member in line.members:
                logged, values = line.logged(member, x)
                if line.width(len(logged)) > 1:
                    shown = extremes(values, most=max(100, RAW_POINTS // n_runs))
                    if log_x:  # where the first of these stretches is half of the axis
                        shown = np.union1d(shown, places(len(values)))
                    faint = dict(linewidth=0.5, alpha=float(np.clip(3 / n_runs, 0.06, 0.35)))
                    plot.plot(logged[shown], values[shown], color=style["color"], **faint)
            if len(line.members) > 1:
                plot.fill_between(at, low, high, color=style["color"], alpha=0.25, linewidth=0)
            few = y != "loss" or len(at) < 20
            apart = None if few else (0.02 * (i % len(MARKERS)), 0.14)  # shares of the panel's diagonal
            label = drawable(f"{line.name}: {mean[-1]:.3f}", most=52)
            plot.plot(at, mean, linewidth=1.6, markersize=4, label=label, markevery=apart, **style)
            facts.append(f"{line.name} {mean[-1]:.4f} at {at[-1]:,.0f}")
        for name, floor in floors.items():
            plot.axhline(floor, color=INK, linewidth=1.2, linestyle=(0, (8, 3)))
            plot.annotate(
                f"{name}: {floor:.3f}, the grammar's entropy", (0.99, floor), (0, -3), ha="right", va="top", fontsize=8,
                xycoords=("axes fraction", "data"), textcoords="offset points",
            )  # fmt: skip
        if mark is not None:
            plot.axvline(mark, color=INK, linewidth=1)
        how = _scale(plot, list(drawn.values()), floors, x, log_x, log_y)
        plot.set(xlabel=AXES[x], ylabel=f"{LOSSES[y]} ({unit}){how}")
        plot.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        band = "; a band is from the lowest to the highest seed, its line the mean" if any(
            len(line.members) > 1 for line in drawn) else ""  # fmt: skip
        if band:
            plot.set_title("band: lowest to highest seed, line: mean", loc="right", fontsize=9, fontweight="normal")
        said = f"{LOSSES[y].capitalize()} in {unit} by {AXES[x]}{band}: " + ", ".join(facts)
        return Picture(plot.figure, said + "".join(f"; {name} {floor:.4f}" for name, floor in floors.items()))


def _scale(plot: Axes, bands: Sequence[tuple], floors: Mapping[str, float], x: str, log_x: bool, log_y: bool) -> str:
    """Sets scales and limits; what the label must say of them."""
    if log_y:
        plot.set_yscale("log")
        for set_formatter in (plot.yaxis.set_major_formatter, plot.yaxis.set_minor_formatter):
            set_formatter(ScalarFormatter())
        plot.yaxis.set_minor_locator(MaxNLocator(nbins=6))
        plot.grid(which="minor")
    if log_x:
        plot.set_xscale("log")
    else:
        plot.xaxis.set_major_locator(MaxNLocator(nbins=7))
    plot.xaxis.set_major_formatter(EngFormatter(sep="" if x == "steps" else " "))
    whole = max(high.max() for *_, high in bands)
    top = whole if log_x else max(high[at >= SHOWN_FROM * at[-1]].max() for at, _, _, high in bands)
    low = min([*(low.min() for _, _, low, _ in bands), *floors.values()])
    pad = 0.04 * (top - low) or 0.04
    plot.set_ylim(bottom=0.85 * low if log_y else low - 2 * pad)  # room for the floor's name
    if log_x:
        return ""
    plot.set_xlim(0, 1.01 * max(at[-1] for at, *_ in bands))
    plot.set_ylim(top=top + pad)
    return "\nthe first fall lies above" if whole > top + pad else ""


def check_axes(x: str, y: str) -> None:
    if x not in AXES or y not in LOSSES:
        raise ConfigError(f"x is one of {', '.join(AXES)}, y one of {', '.join(LOSSES)}; not {x!r} and {y!r}")


def pareto(table: pd.DataFrame, against: str, metric: str) -> Picture:
    """`metric` of each row against a cost, lower and further left being better; the front joined by steps."""
    if against not in COSTS:
        raise ConfigError(f"against is one of {', '.join(COSTS)}, not {against!r}")
    rows = table.dropna(subset=[metric])
    if not 1 <= len(rows) <= MOST_LINES:
        raise PlotError(f"{len(rows)} runs have a loss to draw; choose 1 to {MOST_LINES} of them")
    unit = "bits per byte" if metric == "bits_per_byte" else "nats per token"
    name = {"validation_loss": "validation loss", "loss": "held-out loss"}.get(metric, "held-out loss")
    costs, losses = rows[against].to_numpy(dtype=float), rows[metric].to_numpy(dtype=float)
    best = front(costs, losses)
    with axes(3.9 + 0.19 * -(-len(rows) // 2), f"Loss against {COSTS[against].split(' (')[0]}") as plot:
        label = "front: no other is lower in both"
        corners = np.append(costs[best], costs.max()), np.append(losses[best], losses[best[-1]])
        plot.step(*corners, where="post", color=INK, linewidth=1, label=label)
        for i, (run, cost, loss) in enumerate(zip(rows.index, costs, losses)):
            style = series(i) | {"linestyle": ""}
            edge = dict(markeredgecolor=INK, markeredgewidth=1.4) if i in best else {}
            plot.plot(cost, loss, markersize=8, label=drawable(f"{run}: {loss:.4f}", most=52), **style, **edge)
        plot.set(xlabel=COSTS[against], ylabel=f"{name} ({unit})")
        plot.xaxis.set_major_formatter(EngFormatter(sep=" "))
        plot.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        joined = ", ".join(f"{rows.index[i]} {losses[i]:.4f}" for i in best)
        return Picture(plot.figure, f"{name} in {unit} against {COSTS[against]}; on the front: {joined}")


def front(costs: np.ndarray, losses: np.ndarray) -> list[int]:
    """Those that no other one equals in both and beats in one, by rising cost."""
    best: list[int] = []
    for i in np.lexsort((losses, costs)):
        if not best or losses[i] < losses[best[-1]]:
            best.append(int(i))
    return best
