"""The pictures of a comparison: loss curves of the trainings, and loss against cost. They take numbers, not runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter
from numpy.lib.stride_tricks import sliding_window_view

from lab.display.palette import INK
from lab.display.plots import extremes, usual_smoothing
from lab.display.style import MARKERS, MOST_LINES, Picture, PlotError, axes, drawable, series
from settings.errors import ConfigError

PLACES = 400  # points of a smoothed line; half of them crowd at the beginning, for logarithmic axes
AXES = {"steps": "step", "tokens": "tokens", "seconds": "training time (s)", "flops": "training FLOPs"}
LOSSES = {"loss": "training loss", "validation_loss": "validation loss"}
COSTS = {"parameters": "parameters", "seconds": "training time (s)", "flops": "training FLOPs"}
SHOWN_FROM = 0.1  # of a linear axis: the steep fall before it would flatten all else
RAW_POINTS = 3_000  # of all raw lines together: the more runs, the fainter


@dataclass(frozen=True, kw_only=True)
class CurveView:
    """What to draw and on which axes. x: "steps", "tokens", "seconds" or "flops". y: "loss" or "validation_loss".

    smoothing: steps whose median is one point of the line; None: a fortieth of the run; 1: as logged.
    Raises ConfigError for an unknown axis or an impossible smoothing.
    """

    x: str = "steps"
    y: str = "loss"
    log_x: bool = False
    log_y: bool = False
    smoothing: int | None = None

    def __post_init__(self):
        if self.x not in AXES or self.y not in LOSSES:
            known = f"x is one of {', '.join(AXES)}, y one of {', '.join(LOSSES)}"
            raise ConfigError(f"{known}; not {self.x!r} and {self.y!r}")
        if self.smoothing is not None and self.smoothing < 1:
            raise ConfigError(f"smoothing is the median of so many steps: 1 or more, not {self.smoothing}")


class Band(NamedTuple):
    """x, and the mean, lowest and highest y over the runs, where all of them have been."""

    at: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class Line:
    """One configuration. runs: x and y of the logged rows of each of its runs. smoothing: as in CurveView."""

    name: str
    runs: Sequence[tuple[np.ndarray, np.ndarray]]
    smoothing: int | None

    def width(self, n_rows: int) -> int:
        """Rows whose median is one point of the line."""
        return usual_smoothing(n_rows) if self.smoothing is None else self.smoothing

    def smoothed(self, at: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One run at PLACES points or fewer."""
        rows = places(len(at))
        return at[rows], medians(values, rows, self.width(len(at)) // 2)

    @cached_property
    def band(self) -> Band:
        """Of one run, mean, lowest and highest are the same; empty where no run has a value."""
        curves = [self.smoothed(*run) for run in self.runs if len(run[0])]
        if not curves:
            return Band(*(np.empty(0),) * 4)
        if len(curves) == 1:
            at, values = curves[0]
            return Band(at, values, values, values)
        first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
        at = curves[0][0]
        at = np.unique(np.clip(at, first, max(first, last)))
        values = np.array([np.interp(at, *curve) for curve in curves])
        return Band(at, values.mean(0), values.min(0), values.max(0))


@dataclass(frozen=True, eq=False, kw_only=True)
class CurveData:
    """The lines of a picture, in one unit. floors: horizontal lines by name. remarks: what is missing, and why."""

    lines: Sequence[Line]
    unit: str
    floors: Mapping[str, float] = field(default_factory=dict)
    remarks: Sequence[str] = ()


def places(n_rows: int) -> np.ndarray:
    """PLACES rows or fewer with the first and the last one: half of them evenly, half ever denser towards 0."""
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


def curves(data: CurveData, view: CurveView, mark: float | None = None) -> Picture:
    """The lines, with the raw values faintly behind; the band is from the lowest to the highest seed. mark: an x to
    point at. Raises PlotError where there is nothing to draw."""
    lines = [line for line in data.lines if len(line.band.at)]
    loss, has_bands = LOSSES[view.y], any(len(line.runs) > 1 for line in lines)
    if not 1 <= len(lines) <= MOST_LINES:
        raise PlotError(f"{len(lines)} configurations have a {loss} to draw; choose 1 to {MOST_LINES} of them")
    rows = -(-(len(lines) + len(data.floors)) // 2)
    several = f"{len(lines)} configurations" if len(lines) > 1 else lines[0].name
    with axes(3.9 + 0.19 * rows, f"{loss.capitalize()} of {several}") as plot:
        n_runs = sum(len(line.runs) for line in lines)
        for i, line in enumerate(lines):
            _add_line(plot, line, series(i), view, n_runs)
            few = view.y != "loss" or len(line.band.at) < 20
            apart = None if few else (0.02 * (i % len(MARKERS)), 0.14)  # shares of the panel's diagonal
            label = drawable(f"{line.name}: {line.band.mean[-1]:.3f}", most=52)
            plot.plot(*line.band[:2], linewidth=1.6, markersize=4, label=label, markevery=apart, **series(i))
        for name, floor in data.floors.items():
            _add_floor(plot, name, floor)
        if mark is not None:
            plot.axvline(mark, color=INK, linewidth=1)
        how = _set_scale(plot, [line.band for line in lines], data.floors, view)
        missing = "".join(f"\n{drawable(remark)}" for remark in data.remarks)
        plot.set(xlabel=AXES[view.x] + missing, ylabel=f"{loss} ({data.unit}){how}")
        plot.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        if has_bands:
            plot.set_title("band: lowest to highest seed, line: mean", loc="right", fontsize=9, fontweight="normal")
        return Picture(plot.figure, _description(data, view, lines))


def _add_line(plot: Axes, line: Line, style: dict, view: CurveView, n_runs: int) -> None:
    """Draws the background of a line: the raw values of its runs, and the band of several runs."""
    for at, values in line.runs:
        if line.width(len(at)) > 1:
            shown = extremes(values, most=max(100, RAW_POINTS // n_runs))
            if view.log_x:  # where the first of these stretches is half of the axis
                shown = np.union1d(shown, places(len(values)))
            faint = dict(linewidth=0.5, alpha=float(np.clip(3 / n_runs, 0.06, 0.35)))
            plot.plot(at[shown], values[shown], color=style["color"], **faint)
    if len(line.runs) > 1:
        at, _, low, high = line.band
        plot.fill_between(at, low, high, color=style["color"], alpha=0.25, linewidth=0)


def _add_floor(plot: Axes, name: str, floor: float) -> None:
    plot.axhline(floor, color=INK, linewidth=1.2, linestyle=(0, (8, 3)))
    plot.annotate(
        f"{name}: {floor:.3f}, the grammar's entropy", (0.99, floor), (0, -3), ha="right", va="top", fontsize=8,
        xycoords=("axes fraction", "data"), textcoords="offset points",
    )


def _set_scale(plot: Axes, bands: Sequence[Band], floors: Mapping[str, float], view: CurveView) -> str:
    """Sets scales and limits. Returns what the axis label must say about them."""
    if view.log_y:
        plot.set_yscale("log")
        for set_formatter in (plot.yaxis.set_major_formatter, plot.yaxis.set_minor_formatter):
            set_formatter(ScalarFormatter())
        plot.yaxis.set_minor_locator(MaxNLocator(nbins=6))
        plot.grid(which="minor")
    if view.log_x:
        plot.set_xscale("log")
    else:
        plot.xaxis.set_major_locator(MaxNLocator(nbins=7))
    plot.xaxis.set_major_formatter(EngFormatter(sep="" if view.x == "steps" else " "))
    whole = max(band.high.max() for band in bands)
    late = [band.high[band.at >= SHOWN_FROM * band.at[-1]].max() for band in bands]
    top = whole if view.log_x else max(late)
    low = min([*(band.low.min() for band in bands), *floors.values()])
    pad = 0.04 * (top - low) or 0.04
    plot.set_ylim(bottom=0.85 * low if view.log_y else low - 2 * pad)  # room for the floor's name
    if view.log_x:
        return ""
    plot.set_xlim(0, 1.01 * max(band.at[-1] for band in bands))
    plot.set_ylim(top=top + pad)
    return "\nthe first fall lies above" if whole > top + pad else ""


def _description(data: CurveData, view: CurveView, lines: Sequence[Line]) -> str:
    has_bands = any(len(line.runs) > 1 for line in lines)
    band = "; a band is from the lowest to the highest seed, its line the mean" if has_bands else ""
    ends = ", ".join(f"{line.name} {line.band.mean[-1]:.4f} at {line.band.at[-1]:,.0f}" for line in lines)
    floors = "".join(f"; {name} {floor:.4f}" for name, floor in data.floors.items())
    remarks = "".join(f"; {remark}" for remark in data.remarks)
    return f"{LOSSES[view.y].capitalize()} in {data.unit} by {AXES[view.x]}{band}: {ends}{floors}{remarks}"


def pareto(table: pd.DataFrame, against: str, metric: str) -> Picture:
    """`metric` of each row against a cost; lower and further left is better. Steps join the runs of the front."""
    if against not in COSTS:
        raise ConfigError(f"against is one of {', '.join(COSTS)}, not {against!r}")
    rows = table.dropna(subset=[metric, against])
    if not 1 <= len(rows) <= MOST_LINES:
        raise PlotError(f"{len(rows)} runs have a loss and a cost to draw; choose 1 to {MOST_LINES} of them")
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
    """The Pareto front, by rising cost: no other one is at least as low in both and lower in one."""
    best: list[int] = []
    for i in np.lexsort((losses, costs)):
        if not best or losses[i] < losses[best[-1]]:
            best.append(int(i))
    return best
