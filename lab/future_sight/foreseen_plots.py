"""Foresight in pictures: windows over a sentence, bags beneath what came, calibration, what the thoughts are for."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from config import FutureBlockConfig
from lab.display.heat_maps import heat_maps
from lab.display.plots import percent
from lab.display.style import CARD, COLOURS, INK, Picture, PlotError, axes, drawable, panels, series
from lab.display.token_display import BOX
from lab.future_sight.calibration import PREDICTORS, Calibration
from lab.future_sight.foreseen import NOTHING, ahead

HIT = "✓"
MOST_AHEAD = 44  # columns drawn to the right of the token that foresees; a window that ends beyond is cut
LEAST_COLUMNS = 20
CONTEXT = 8  # tokens before it in a table
LINE = 0.17  # inches
EXPECTED = 10  # occurrences that a bin must expect, to be drawn


# --- windows over a sentence ------------------------------------------------------------------------------------


def windows_diagram(block: FutureBlockConfig, tokens: Sequence[str], position: int) -> Picture:
    """Which tokens each level is about, seen from one token of a sentence: 1 ahead, then window after window.

    tokens: the sentence, a text for each; windows may reach past its end. Raises PlotError for a position outside.
    """
    windows = [(1, 1), *block.windows]
    kind = "pool" if not block.of_vocabulary else "bag"
    lines = [["the next token"]] + [
        [f"level {level}: a {kind} of {last - first + 1}"] for level, (first, last) in enumerate(block.windows, 1)
    ]
    names = [ahead(*window) for window in windows]
    return staircase(list(tokens), position, windows, names, lines, "What each level foresees", ", ".join(names))


def foresight_picture(frame: pd.DataFrame, position: int | None = None) -> Picture:
    """`foresight_table` as a picture: each bag, its likeliest token on top, beneath the tokens that came."""
    table = foresight_table(frame, position)
    windows = [(bag.first, bag.last) for bag in table.bags]
    lines = [[bag.line(i) for i in range(len(bag.texts))] for bag in table.bags]
    title = f"What is foreseen after «{table.labels[table.position]}» ({HIT} it came in that window)"
    names = [bag.name for bag in table.bags]
    return staircase(table.labels, table.position, windows, names, lines, title, str(table).replace("\n", "; "))


def staircase(
    labels: list[str], position: int, windows: list[tuple[int, int]], names: list[str], lines: list[list[str]],
    title: str, about: str,
) -> Picture:  # fmt: skip
    """The sentence along the top; below it a row for each window, a bracket under its tokens and lines under that."""
    check_position(labels, position)
    if windows[-1][0] > MOST_AHEAD:
        raise PlotError(f"a window {windows[-1][0]} ahead can't be drawn, only up to {MOST_AHEAD}; take fewer levels")
    right = position + min(windows[-1][1], MOST_AHEAD)
    left = max(0, min(position - 2, right + 1 - LEAST_COLUMNS))
    room = max(right, position + windows[-1][0] + 0.25 * (right - left))  # the last row's text must fit, too
    heights = [LINE * (len(texts) + 1.1) for texts in lines]
    with axes(1.35 + sum(heights), title) as plot:
        plot.set(xlim=(left - 0.5, room + 0.5), ylim=(sum(heights) + 0.05, -0.85), xticks=[])
        size = min(8.5, 300 / (room - left + 1))
        for column in range(left, right + 1):
            draw_token(plot, column, labels[column] if column < len(labels) else "", column == position, size)
        middles, top = [], 0.0
        for level, ((first, last), texts, height) in enumerate(zip(windows, lines, heights)):
            colour, start, end = COLOURS[level % len(COLOURS)], position + first - 0.45, position + last + 0.45
            plot.add_patch(Rectangle((start, -0.8), end - start, top + 0.95, color=colour, alpha=0.22, linewidth=0))
            ends, bar = top + 0.07, top + 0.15
            plot.plot([start, start, end, end], [ends, bar, bar, ends], color=colour, linewidth=2)
            for i, text in enumerate(texts):
                weight = "bold" if text.endswith(HIT) else "normal"
                place = (start + 0.05, top + LINE * (i + 1) + 0.05)
                # on a ground of its own: long ones stand before the bands of the next levels
                ground = dict(facecolor=CARD, edgecolor="none", pad=2.2)
                plot.text(*place, drawable(text, most=40), va="top", fontsize=8.5, fontweight=weight, bbox=ground)
            middles.append(top + height / 2 + 0.03)
            top += height
        plot.set_yticks([-0.4, *middles], ["token", *names])
        plot.tick_params(length=0)
        plot.grid(visible=False)
        for spine in plot.spines.values():
            spine.set_visible(False)
        return Picture(plot.figure, f"{title}: {about}")


def draw_token(plot: Axes, column: int, text: str, here: bool, size: float) -> None:
    """One token of the sentence in its box: dark where it foresees from, dashed where nothing has come yet."""
    style = dict(facecolor=INK if here else CARD, edgecolor=INK, linewidth=0.8, linestyle="-" if text else ":")
    plot.add_patch(Rectangle((column - 0.45, -0.8), 0.9, 0.8, **style))
    plot.text(
        column, -0.4, drawable(text, most=9), rotation=90 if len(text) > 2 else 0, ha="center", va="center",
        fontsize=size, color=CARD if here else INK, fontweight="bold" if here else "normal",
    )  # fmt: skip


def check_position(labels: list[str], position: int) -> None:
    if not 0 <= position < len(labels):
        raise PlotError(f"position {position} is outside the sentence; choose 0 to {len(labels) - 1}")


# --- bags under what came ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bag:
    """The ranked tokens of one window; hits: whether each came, NA while the window has not come as a whole."""

    first: int
    last: int
    texts: list[str]
    shares: list[float]
    hits: list

    @property
    def name(self) -> str:
        return ahead(self.first, self.last) + (" (to come)" if pd.isna(self.hits).any() else "")

    def line(self, i: int) -> str:
        hit = f" {HIT}" if self.hits[i] is True else ""
        return f"{self.texts[i]} {percent(self.shares[i])}{hit}"


@dataclass(frozen=True, repr=False)
class ForesightTable:
    """A sentence with what is foreseen from one of its tokens: a table in a notebook, lines in a terminal."""

    labels: list[str]
    position: int
    bags: list[Bag]

    def __str__(self) -> str:
        lines = [f"{bag.name}: " + ", ".join(map(bag.line, range(len(bag.texts)))) for bag in self.bags]
        return "\n".join([f"after «{self.labels[self.position]}» ({HIT} came)", *lines])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left, right = max(0, self.position - CONTEXT), self.position + self.bags[-1].last + 1
        shown = [*self.labels, *["…"] * (right - len(self.labels))][left:right]
        style = "text-align:left;vertical-align:top;padding:2px 4px;white-space:nowrap"
        boxes = {self.position: f"outline:2px solid;font-weight:bold;{BOX}"}
        head = "".join(
            f'<th style="{style}"><span style="{boxes.get(i, BOX)}">{escape(text)}</span></th>'
            for i, text in enumerate(shown, left)
        )
        body = "".join(
            f'<tr><th style="{style}">{bag.name}</th><td colspan="{self.position + bag.first - left}"></td>'
            f'<td colspan="{bag.last + 1 - bag.first}" style="{style};border-top:3px solid {colour};'
            f'background:{colour}22">{bag_html(bag)}</td></tr>'
            for bag, colour in zip(self.bags, COLOURS * len(self.bags))
        )
        return (
            f"<div>Foreseen after the outlined token, beneath the window that it is for ({HIT}: it came there)</div>"
            f'<div style="overflow-x:auto"><table><tr><th style="{style}">token</th>{head}</tr>{body}</table></div>'
        )


def bag_html(bag: Bag) -> str:
    """A token in each line; no wider than nothing, so that long ones stand over the empty cells to their right."""
    lines = (escape(bag.line(i)) for i in range(len(bag.texts)))
    marked = "<br>".join(f"<b><u>{line}</u></b>" if line.endswith(HIT) else line for line in lines)
    return f'<div style="width:0;overflow:visible">{marked}</div>'


def foresight_table(frame: pd.DataFrame, position: int | None = None) -> ForesightTable:
    """What `foreseen` found after one token, each bag beneath the tokens that it is for; hits are marked.

    position: whose foresight; None: the last one's whose windows have all come, or the last of all. Raises PlotError
    for a position outside of the frame, or a frame that lacks the sentence.
    """
    labels = frame.groupby("position")["after"].first()
    if not len(labels) or labels.index.tolist() != list(range(len(labels))):
        raise PlotError("the frame must hold every position of its sentence; give what foreseen returns")
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
    """By level: nats per token, and how much of a window of W tokens is among the W likeliest, beside the baselines;
    then what was observed by what was predicted, without the bins that expect it fewer than 10 times."""
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


def thought_maps(frame: pd.DataFrame, head: int | None = None) -> Picture:
    """What each position reads of its thoughts, a panel for each layer and window; head None: the mean over heads.

    The first column is `nothing`, the same for all windows of a layer; the colours end where the thoughts do. frame:
    what `thought_attention` returns. Raises PlotError for a head that it lacks.
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
        tables, labels, [NOTHING, *labels], row_name="who reads", column_name="foreseen after", unit="weight",
        title="What each token reads of its thoughts: " + ("mean over heads" if head is None else f"head {head}"),
        most=max(np.nanmax(table[:, 1:]) for table in tables.values()),
    )  # fmt: skip
