"""Pictures of a training and of what a model expects next; texts shaded by probability or set side by side.

A `Picture` is a PNG in a notebook and a sentence in a terminal; `.save(path)` writes it. The texts are HTML in a
notebook and plain text in a terminal.
"""

import math
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, StrMethodFormatter

from lab.display.html import render
from lab.display.palette import BLUE, INK, PROBABLE, SKY, VERMILLION, translucent
from lab.display.style import Picture, PlotError, axes, drawable
from lab.display.token_box import readable, split_end, token_box, visible

MOST_POINTS = 1_000  # of one line: more can't be seen
MOST_BARS = 50
MOST_MARKERS = 20  # on one line
DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
GAP = " │ "
SHADED = """
<div style="line-height:1.9"><div>probability of each token: {{ scale|safe }}</div>
<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere">{{ tokens|safe }}</div></div>
"""
COLUMNS = """
{% set style = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;" ~
"line-height:1.5" %}
<table style="width:100%;table-layout:fixed">
<tr>{% for name in texts %}<th style="{{ style }}">{{ name }}</th>{% endfor %}</tr>
<tr>{% for text in texts.values() %}<td style="{{ style }}">{{ text }}</td>{% endfor %}</tr>
</table>
"""


def loss_curve(log: pd.DataFrame, floor: float | None = None, title: str = "") -> Picture:
    """Training and validation loss by step, as logged. Raises PlotError for a log without rows.

    The bold line is the running median. floor: the entropy of the data in nats per token, which no model can beat.
    """
    log = log.dropna(subset=["loss"])
    if not len(log):
        raise PlotError("the log has no rows yet; train for a step at least")
    steps, losses, validated = log["step"].to_numpy(), log["loss"].to_numpy(), log.dropna(subset=["validation_loss"])
    facts = [f"training loss {losses[-1]:.3f} at step {steps[-1]:,}"]
    margins = dict(left=0.1, right=0.97, bottom=0.25, top=0.82 if title else 0.87)  # a live curve must not jump
    with axes(4.0, title, margins) as plot:
        few, shown = usual_smoothing(len(log)) == 1, extremes(losses)
        style = dict(linewidth=0.7, marker="s" if few else "", markersize=4)
        plot.plot(steps[shown], losses[shown], color=SKY, label="training loss of each step", **style)
        if not few:
            around = usual_smoothing(len(log))
            median = log["loss"].rolling(around, center=True, min_periods=1).median().to_numpy()
            shown = extremes(median)
            label = f"training loss, median of {around} steps: {median[-1]:.3f}"
            plot.plot(steps[shown], median[shown], color=BLUE, linewidth=2, label=label)
        if len(validated):
            last = validated.iloc[-1]
            fact = f"validation loss: {last['validation_loss']:.3f} at step {int(last['step']):,}"
            style = dict(color=VERMILLION, linewidth=1.4, marker="o", markersize=4)
            style["markevery"] = math.ceil(len(validated) / MOST_MARKERS)
            plot.plot(validated["step"], validated["validation_loss"], label=fact, **style)
            facts.append(fact.replace(":", ""))
        if floor is not None:
            label = f"grammar's entropy (floor): {floor:.3f}"
            plot.axhline(floor, color=INK, linewidth=1.4, linestyle="--", label=label)
            facts.append(f"floor {floor:.3f}")
        plot.figure.legend(loc="lower center", ncols=2)
        plot.set_ylabel("loss (nats per token)")
        steps_axis(plot, steps[-1])
        per_step = log["tokens"].iloc[-1] / steps[-1]
        tokens = plot.secondary_xaxis("top", functions=(lambda step: step * per_step, lambda token: token / per_step))
        tokens.set_xlabel("tokens", fontsize=9)
        tokens.tick_params(labelsize=9)
        tokens.xaxis.set_major_formatter(EngFormatter(sep=""))
        return Picture(plot.figure, f"Loss curve{of(title)}: " + ", ".join(facts))


def next_token_bars(labels: Sequence[str], probabilities: Sequence[float], title: str = "") -> Picture:
    """A bar for each next token, the first on top. The labels mark spaces and control characters."""
    marked = [readable(label.encode()).replace("\n", "") or "(nothing)" for label in labels]
    shares = probabilities_of(probabilities)
    return horizontal_bars(marked, 100 * shares, [percent(share) for share in shares], "probability (%)", title)


def bars(labels: Sequence[str], values: Sequence[float], unit: str, title: str = "") -> Picture:
    """A bar for each amount, with its number: for timings, say."""
    amounts = numbers(values, "values")
    return horizontal_bars(labels, amounts, [f"{amount:,.4g} {unit}" for amount in amounts], unit, title)


def shaded_tokens(pieces: Sequence[str], probabilities: Sequence[float]) -> "ShadedTokens":
    """A text in which a token is the bluer, the more probable the model found it."""
    same_length(pieces, probabilities)
    shares = probabilities_of(probabilities).tolist() if len(pieces) else []
    return ShadedTokens(tuple(pieces), tuple(shares))


def side_by_side(texts: dict[str, str]) -> "SideBySide":
    """Texts in columns under their names: a sample of each strategy, say."""
    if not texts:
        raise PlotError("there are no texts to show side by side; give a dict of name: text")
    return SideBySide(dict(texts))


@dataclass(frozen=True, repr=False)
class ShadedTokens:
    """A text's tokens with their probabilities: shades in a notebook, tenths as small digits in a terminal."""

    pieces: tuple[str, ...]
    probabilities: tuple[float, ...]

    def _repr_html_(self) -> str:
        scale = "".join(shade(f"\u00a0{share:.0%}\u00a0", share, "") for share in (0, 0.25, 0.5, 0.75, 1))
        tokens = "".join(
            shade(visible(piece), share, f"{visible(piece)} {percent(share)}")
            for piece, share in zip(self.pieces, self.probabilities)
        )
        return render(SHADED, scale=scale, tokens=tokens)

    def __str__(self) -> str:
        tenths = (DIGITS[min(9, int(10 * share))] for share in self.probabilities)
        tokens = "".join(add_digit(visible(piece), digit) for piece, digit in zip(self.pieces, tenths))
        return f"after each token its probability in tenths, {DIGITS[0]} below 10 % … {DIGITS[9]} from 90 %\n{tokens}"

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class SideBySide:
    """Named texts in columns."""

    texts: dict[str, str]

    def _repr_html_(self) -> str:
        return render(COLUMNS, texts=self.texts)

    def __str__(self) -> str:
        room = shutil.get_terminal_size().columns + len(GAP)
        width = max(24, room // len(self.texts) - len(GAP))
        columns = [[name, "─" * width, *wrapped(text, width)] for name, text in self.texts.items()]
        rows = zip_longest(*columns, fillvalue="")
        return "\n".join(GAP.join(cell.ljust(width) for cell in row).rstrip() for row in rows)

    __repr__ = __str__


def horizontal_bars(labels: Sequence[str], values: np.ndarray, texts: list[str], unit: str, title: str) -> Picture:
    """Bars from top to bottom in the order given, each with its text at its end."""
    same_length(labels, values)
    if len(values) > MOST_BARS:
        raise PlotError(f"{len(values)} bars can't be read; give at most {MOST_BARS}, those that matter most")
    with axes(0.75 + 0.4 * bool(title) + 0.29 * len(values), title) as plot:
        rows = range(len(values))
        drawn = plot.barh(rows, values, height=0.68, color=BLUE)
        plot.bar_label(drawn, texts, padding=5)
        plot.set_yticks(rows, [drawable(label, most=40) for label in labels])
        room = 1.05 + 0.015 * max(map(len, texts))
        plot.set(xlabel=unit, xlim=(0, room * values.max() or 1), ylim=(len(values) - 0.4, -0.6))
        plot.grid(axis="y", visible=False)
        plot.tick_params(axis="y", length=0)
        parts = ", ".join(f"{label} {text}" for label, text in zip(labels, texts))
        return Picture(plot.figure, f"Bars{of(title)}: {parts}")


def steps_axis(plot: Axes, last: int) -> None:
    """Labels the x axis with whole steps from 0 to the last one, as in 12,000."""
    plot.set(xlabel="step", xlim=(0, 1.02 * max(2, last)))
    plot.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    plot.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def usual_smoothing(n_rows: int) -> int:
    """How many rows make one point of the running median: 1 for a few rows, else odd, with the row in the middle."""
    return 1 if n_rows < 10 else min(201, max(5, n_rows // 40)) | 1


def extremes(values: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of the least and greatest value of each stretch of a line. So a thinned line keeps its spikes."""
    if len(values) <= most:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), most // 2)
    ends = [index for part in stretches for index in (part[values[part].argmin()], part[values[part].argmax()])]
    return np.unique([0, *ends, len(values) - 1])


def numbers(values: Sequence[float], name: str) -> np.ndarray:
    """The values as an array. Raises PlotError if there are none, or one is negative or not finite."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all() or array.min() < 0:
        raise PlotError(f"{name} must be a list of one number or more, each 0 or more, not {values!r:.200}")
    return array


def probabilities_of(values: Sequence[float]) -> np.ndarray:
    array = numbers(values, "probabilities")
    if array.max() > 1.000001:  # a softmax in float32 may end a little above 1
        raise PlotError(f"probabilities must lie between 0 and 1, not {array.max():g}; give them after the softmax")
    return array.clip(0, 1)


def same_length(labels: Sequence[str], values: Sequence[float]) -> None:
    if len(labels) != len(values):
        raise PlotError(f"{len(labels)} labels for {len(values)} numbers; give one label for each")


def percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def of(title: str) -> str:
    return f" of {title}" if title else ""


def shade(text: str, share: float, title: str) -> str:
    """`text` in a box, the bluer the more probable it is."""
    return token_box(text, title, translucent(PROBABLE, round(0.65 * share, 2)))


def add_digit(text: str, digit: str) -> str:
    inside, end = split_end(text)
    return inside + digit + end


def wrapped(text: str, width: int) -> list[str]:
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
