"""Pictures of predicted futures: windows over a sentence, predictions under what came, calibration, attention."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from config import FutureBlockConfig
from lab.display.heat_maps import Labels, Scale, heat_maps
from lab.display.html import render
from lab.display.palette import CARD, INK, LINES
from lab.display.plots import percent
from lab.display.style import Picture, PlotError, axes, drawable, panels, series
from lab.display.token_box import token_box
from lab.future_sight.calibration import PREDICTORS, Calibration
from lab.future_sight.future_attention import NOTHING
from lab.future_sight.predictions import ahead

HIT = "✓"
MOST_AHEAD = 44  # columns to the right of the predicting token; a window that ends beyond is cut
LEAST_COLUMNS = 20
CONTEXT = 8  # tokens before the predicting one in a table
LINE = 0.17  # inches
EXPECTED = 10  # a bin is drawn if it expects so many occurrences

# The lines of a bag have width 0, so that long lines may cover the empty cells to their right
TABLE = """
{% set style = "text-align:left;vertical-align:top;padding:2px 4px;white-space:nowrap" %}
<div>Predicted after the outlined token, under the window of the prediction ({{ hit }}: it came there)</div>
<div style="overflow-x:auto"><table>
<tr><th style="{{ style }}">token</th>{% for box in boxes %}<th style="{{ style }}">{{ box|safe }}</th>{% endfor %}</tr>
{% for bag, colour, before in bags %}
<tr><th style="{{ style }}">{{ bag.name }}</th><td colspan="{{ before }}"></td>
<td colspan="{{ bag.last + 1 - bag.first }}"
 style="{{ style }};border-top:3px solid {{ colour }};background:{{ colour }}22">
<div style="width:0;overflow:visible">
{%- for line in bag.lines -%}
{{ "<br>"|safe if not loop.first else "" }}
{%- if line.endswith(hit) %}<b><u>{{ line }}</u></b>{% else %}{{ line }}{% endif %}
{%- endfor -%}
</div></td></tr>
{% endfor %}
</table></div>
"""


# --- windows over a sentence ------------------------------------------------------------------------------------


def windows_diagram(block: FutureBlockConfig, tokens: Sequence[str], position: int) -> Picture:
    """The tokens that each level predicts, seen from one token of a sentence: the next one, then window after window.

    tokens: the sentence, a text for each; windows may reach past its end. Raises PlotError for a position outside.
    """
    kind = "pool" if not block.of_vocabulary else "bag"
    levels = [(1, 1, "the next token")] + [
        (first, last, f"level {level}: a {kind} of {last - first + 1}")
        for level, (first, last) in enumerate(block.windows, 1)
    ]
    windows = [DrawnWindow(first, last, ahead(first, last), [text]) for first, last, text in levels]
    about = ", ".join(window.name for window in windows)
    return staircase(list(tokens), position, windows, "The tokens that each level predicts", about)


def foresight_picture(frame: pd.DataFrame, position: int | None = None) -> Picture:
    """`foresight_table` as a picture: the likeliest tokens of each window under the tokens that came."""
    table = foresight_table(frame, position)
    windows = [DrawnWindow(bag.first, bag.last, bag.name, bag.lines) for bag in table.bags]
    title = f"Predicted after «{table.labels[table.position]}» ({HIT} it came in that window)"
    return staircase(table.labels, table.position, windows, title, str(table).replace("\n", "; "))


class DrawnWindow(NamedTuple):
    """A window from first to last tokens ahead, its name, and the lines of text under its bracket."""

    first: int
    last: int
    name: str
    lines: list[str]


def staircase(labels: list[str], position: int, windows: list[DrawnWindow], title: str, about: str) -> Picture:
    """The sentence along the top. Below it a row for each window: a bracket under its tokens, and lines of text."""
    check_position(labels, position)
    end = windows[-1]
    if end.first > MOST_AHEAD:
        raise PlotError(f"a window {end.first} ahead can't be drawn, only up to {MOST_AHEAD}; take fewer levels")
    right = position + min(end.last, MOST_AHEAD)
    left = max(0, min(position - 2, right + 1 - LEAST_COLUMNS))
    room = max(right, position + end.first + 0.25 * (right - left))  # the text of the last row must fit too
    heights = [LINE * (len(window.lines) + 1.1) for window in windows]
    with axes(1.35 + sum(heights), title) as plot:
        plot.set(xlim=(left - 0.5, room + 0.5), ylim=(sum(heights) + 0.05, -0.85), xticks=[])
        size = min(8.5, 300 / (room - left + 1))
        for column in range(left, right + 1):
            draw_token(plot, column, labels[column] if column < len(labels) else "", column == position, size)
        middles, top = [], 0.0
        for level, (window, height) in enumerate(zip(windows, heights)):
            colour = LINES[level % len(LINES)]
            start, end = position + window.first - 0.45, position + window.last + 0.45
            plot.add_patch(Rectangle((start, -0.8), end - start, top + 0.95, color=colour, alpha=0.22, linewidth=0))
            ends, bar = top + 0.07, top + 0.15
            plot.plot([start, start, end, end], [ends, bar, bar, ends], color=colour, linewidth=2)
            for i, text in enumerate(window.lines):
                weight = "bold" if text.endswith(HIT) else "normal"
                place = (start + 0.05, top + LINE * (i + 1) + 0.05)
                # with a background, because long lines cover the bands of the next levels
                ground = dict(facecolor=CARD, edgecolor="none", pad=2.2)
                plot.text(*place, drawable(text, most=40), va="top", fontsize=8.5, fontweight=weight, bbox=ground)
            middles.append(top + height / 2 + 0.03)
            top += height
        plot.set_yticks([-0.4, *middles], ["token", *(window.name for window in windows)])
        plot.tick_params(length=0)
        plot.grid(visible=False)
        for spine in plot.spines.values():
            spine.set_visible(False)
        return Picture(plot.figure, f"{title}: {about}")


def draw_token(plot: Axes, column: int, text: str, here: bool, size: float) -> None:
    """Draws one token of the sentence in its box: dark for the predicting token, dotted where nothing has come yet."""
    style = dict(facecolor=INK if here else CARD, edgecolor=INK, linewidth=0.8, linestyle="-" if text else ":")
    plot.add_patch(Rectangle((column - 0.45, -0.8), 0.9, 0.8, **style))
    plot.text(
        column, -0.4, drawable(text, most=9), rotation=90 if len(text) > 2 else 0, ha="center", va="center",
        fontsize=size, color=CARD if here else INK, fontweight="bold" if here else "normal",
    )


def check_position(labels: list[str], position: int) -> None:
    if not 0 <= position < len(labels):
        raise PlotError(f"position {position} is outside the sentence; choose 0 to {len(labels) - 1}")


# --- predictions under what came --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bag:
    """The likeliest tokens of one window. hits: whether each came, NA if the text ends before the window."""

    first: int
    last: int
    texts: list[str]
    shares: list[float]
    hits: list

    @property
    def name(self) -> str:
        return ahead(self.first, self.last) + (" (to come)" if pd.isna(self.hits).any() else "")

    @property
    def lines(self) -> list[str]:
        """A line for each token: its text, its share, and a mark if it came."""
        rows = zip(self.texts, self.shares, self.hits)
        return [f"{text} {percent(share)}" + (f" {HIT}" if hit is True else "") for text, share, hit in rows]


@dataclass(frozen=True, repr=False)
class ForesightTable:
    """A sentence with the predictions after one of its tokens: a table in a notebook, lines in a terminal."""

    labels: list[str]
    position: int
    bags: list[Bag]

    def __str__(self) -> str:
        lines = [f"{bag.name}: " + ", ".join(bag.lines) for bag in self.bags]
        return "\n".join([f"after «{self.labels[self.position]}» ({HIT} came)", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left, right = max(0, self.position - CONTEXT), self.position + self.bags[-1].last + 1
        shown = [*self.labels, *["…"] * (right - len(self.labels))][left:right]
        here = "outline:2px solid;font-weight:bold"
        boxes = [token_box(text, "", style=here if i == self.position else "") for i, text in enumerate(shown, left)]
        bags = [(bag, colour, self.position + bag.first - left) for bag, colour in zip(self.bags, cycle(LINES))]
        return render(TABLE, boxes=boxes, bags=bags, hit=HIT)


def foresight_table(frame: pd.DataFrame, position: int | None = None) -> ForesightTable:
    """The `future_predictions` after one token, each window's under the tokens of this window; hits are marked.

    position: the predicting token. None: the last one whose windows all lie inside the sentence, or the last of all.
    Raises PlotError for a position outside of the frame, or a frame that lacks positions of the sentence.
    """
    labels = frame.groupby("position")["after"].first()
    if not len(labels) or labels.index.tolist() != list(range(len(labels))):
        raise PlotError("the frame must hold every position of its sentence; give what future_predictions returns")
    if position is None:
        reach = frame["last"].max()
        position = len(labels) - 1 - (reach if reach < len(labels) else 0)
    check_position(list(labels), position)
    rows = frame[frame["position"] == position]
    bags = [
        Bag(*window, *(bag[column].tolist() for column in ("text", "probability", "came")))
        for window, bag in rows.groupby(["first", "last"])
    ]
    return ForesightTable(list(labels), position, bags)


# --- calibration and attention ----------------------------------------------------------------------------------


def calibration_plot(found: Calibration) -> Picture:
    """Three panels: loss by level, and how much of a window of W tokens is among the W likeliest, with the baselines;
    observed by predicted frequency, without bins that expect fewer than 10 occurrences."""
    measures, facts = found.measures, []
    levels = measures.drop_duplicates("level")
    names = [ahead(first, last).removesuffix(" ahead") for first, last in zip(levels["first"], levels["last"])]
    with panels(3.4, 3) as plots:
        for name, style in zip(PREDICTORS, (dict(color=INK, marker="o"), series(3), series(4))):
            rows = measures[measures["predictor"] == name]
            for plot, column, scale in zip(plots, ("loss", "top_window"), (1, 100)):
                label = name if column == "loss" else None
                plot.plot(names, scale * rows[column], label=label, markersize=5, **style)
            facts.append(f"{name} " + " ".join(f"{loss:.2f}" for loss in rows["loss"]))
        for i, ((level, bins), name) in enumerate(zip(found.bins.groupby("level"), names)):
            windows = levels.loc[levels["level"] == level, "windows"].iloc[0]
            bins = bins[(bins["predicted"] * bins["pairs"] * windows >= EXPECTED) & (bins["observed"] > 0)]
            style = series(i) | dict(markersize=3.5, linewidth=1)
            plots[2].plot(bins["predicted"], bins["observed"], label=f"{name} ahead", **style)
        ends = np.array([min(found.bins["predicted"].min(), 1e-4), 1.0])
        plots[2].plot(ends, ends, color=INK, linewidth=0.8)
        plots[0].set(title="Loss", xlabel="tokens ahead", ylabel="nats per token")
        plots[1].set(title="Coverage", xlabel="tokens ahead", ylabel="found of the window (%)")
        plots[1].set_ylim(bottom=0)
        plots[2].set(title="Reliability", xlabel="predicted (%)", ylabel="observed (%)", xscale="log", yscale="log")
        plots[2].tick_params(labelsize=8)
        for axis in (plots[2].xaxis, plots[2].yaxis):
            axis.set_major_locator(LogLocator(base=100, numticks=4))
            axis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        figure = plots[0].figure
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
        figure.legend(*plots[2].get_legend_handles_labels(), loc="outside lower right", ncols=2, handlelength=1.5)
        return Picture(figure, "Nats per token of the windows " + ", ".join(names) + ": " + "; ".join(facts))


def future_attention_maps(frame: pd.DataFrame, head: int | None = None) -> Picture:
    """How each position attends to predictions, a panel for each layer and window. head None: the mean over heads.

    The first column is `nothing`, the same for all windows of a layer; the colours end at the largest weight of a
    prediction. frame: what `future_attention` returns, with layers from 1 and heads from 0. Raises PlotError for a head
    that it lacks.
    """
    heads = sorted(frame["head"].unique())
    if head is not None and head not in heads:
        raise PlotError(f"there is no head {head}; choose from {', '.join(map(str, heads))}")
    frame = frame if head is None else frame[frame["head"] == head]
    labels = list(frame.groupby("position")["text"].first())
    tables, nothing = {}, frame["reads"] == NOTHING
    for (layer, reads), rows in frame[~nothing].groupby(["layer", "reads"], sort=False):
        table = np.full((len(labels), len(labels) + 1), np.nan)
        sums = rows.groupby(["position", "source"])["weight"].sum()
        table[sums.index.get_level_values(0), 1 + sums.index.get_level_values(1).astype(int)] = sums
        table[:, 0] = frame[nothing & (frame["layer"] == layer)].groupby("position")["weight"].sum()
        tables[f"layer {layer}: {reads}"] = table / frame["head"].nunique()
    return heat_maps(
        tables, Labels("query token", labels), Labels("predicted after", [NOTHING, *labels]),
        Scale("weight", most=max(np.nanmax(table[:, 1:]) for table in tables.values())),
        "Attention to predicted futures: " + ("mean over heads" if head is None else f"head {head}"),
    )
