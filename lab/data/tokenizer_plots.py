"""Pictures of tokenizers: how merges shorten a text, what a larger vocabulary costs, and which text needs how many
tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from lab.data.fertility import BYTES_PER_TOKEN
from lab.display.palette import BLUE, INK
from lab.display.style import MOST_LINES, Picture, PlotError, axes, drawable, panels, series
from lab.display.token_box import readable

if TYPE_CHECKING:
    import pandas as pd

    from lab.data.readable_bpe import MergeStep

NAMED = (1, 3, 10, 30, 100, 300, 1000)  # merges whose tokens are written beside their counts
TRADE_OFF = ("bytes per token", "embedding share", "bits per byte")


def compression_curve(steps: Sequence["MergeStep"]) -> Picture:
    """The bytes per token after each merge, and how often the joined pair occurred. Raises PlotError if there is no
    merge."""
    if not len(steps):
        raise PlotError("there is no merge to draw; give the steps of learn_merges as a list")
    n_bytes, numbers = steps[0].n_bytes, [step.number for step in steps]
    lengths = [n_bytes / step.n_tokens for step in steps]
    with panels(3.1, 2) as (left, right):
        left.plot([0, *numbers], [n_bytes / (steps[0].n_tokens + steps[0].count), *lengths], color=BLUE, linewidth=2)
        left.set(xlabel="merges", ylabel="bytes per token", xlim=(0, None))
        left.set_title("The text gets shorter")
        right.plot(numbers, [step.count for step in steps], color=BLUE, linewidth=1.4, marker="o", markersize=3)
        right.set(xscale="log", yscale="log", xlabel="merge number", ylabel="times that its pair occurred")
        right.set_title("Later merges save less")
        for step in steps:
            if step.number in NAMED:
                at, shown = (step.number, step.count), drawable(readable(step.token).strip("\n"), most=12)
                right.annotate(shown, at, (5, 4), textcoords="offset points", fontsize=9, color=INK)
        right.margins(x=0.2, y=0.12)
        about = f"Compression over {len(steps):,} merges: {lengths[0]:.2f} to {lengths[-1]:.2f} bytes per token"
        return Picture(left.figure, about)


def vocabulary_trade_off(table: "pd.DataFrame", floor: float | None = None) -> Picture:
    """What a larger vocabulary brings and costs. table: a row for each tokenizer, with the columns "vocabulary" (ids),
    "bytes per token", "embedding share" (of all parameters) and "bits per byte" (of a trained model, held-out text).

    floor: the least bits per byte of any model. Raises PlotError for a table that lacks a column or has no row.
    """
    needed = ("vocabulary", *TRADE_OFF)
    if not len(table) or not {*needed} <= {*table.columns}:
        raise PlotError(f"the table needs a row for each tokenizer and the columns {', '.join(needed)}")
    table = table.sort_values("vocabulary")
    with panels(2.9, 3) as plots:
        for plot, name in zip(plots, TRADE_OFF):
            plot.plot(table["vocabulary"], table[name], color=BLUE, linewidth=1.6, marker="o", markersize=4.5)
            plot.set_title(name, fontsize=10)
            vocabulary_axis(plot, table["vocabulary"])
        plots[0].set_ylim(0, None)
        plots[1].set_ylim(0, 1)
        plots[1].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        if floor is not None:
            plots[2].axhline(floor, color=INK, linewidth=1.4, linestyle="--")
            plots[2].annotate(f"floor {floor:.3f}", (1, floor), (0, 4), xycoords=("axes fraction", "data"),
                              textcoords="offset points", ha="right", fontsize=9)
            plots[2].set_ylim(0, None)
        facts = "; ".join(f"{row['vocabulary']:,.0f} ids: " + ", ".join(f"{name} {row[name]:.3g}" for name in TRADE_OFF)
                          for _, row in table.iterrows())
        return Picture(plots[0].figure, f"Vocabulary trade-off: {facts}")


def fertility_plot(table: "pd.DataFrame", measure: str = BYTES_PER_TOKEN) -> Picture:
    """One measure of `fertility`: a line for each kind of text, a place for each tokenizer, in the table's order.

    Raises PlotError for another measure, and for more texts than can be told apart.
    """
    if measure not in table.columns.get_level_values(0) or not 1 <= len(table[measure].columns) <= MOST_LINES:
        known = ", ".join(dict.fromkeys(table.columns.get_level_values(0)))
        raise PlotError(f"give a table of fertility with 1 to {MOST_LINES} texts, and one of its measures: {known}")
    with axes(3.2, f"{measure.capitalize()} by tokenizer") as plot:
        for i, (name, values) in enumerate(table[measure].items()):
            plot.plot(range(len(table)), values, label=name, linewidth=1.6, markersize=6, **series(i))
        plot.set_xticks(range(len(table)), [drawable(name, most=14) for name in table.index])
        plot.set(ylabel=measure, ylim=(0, None))
        plot.legend()
        extent = {name: f"{values.min():.2f} to {values.max():.2f}" for name, values in table[measure].items()}
        facts = "; ".join(f"{name} {numbers}" for name, numbers in extent.items())
        return Picture(plot.figure, f"{measure.capitalize()} by tokenizer: {facts}")


def vocabulary_axis(plot: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis with the vocabularies themselves as its numbers, as in 512 and 8k."""
    plot.set(xscale="log", xlabel="vocabulary")
    plot.xaxis.set_major_locator(FixedLocator(list(sizes)))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.xaxis.set_major_formatter(FuncFormatter(lambda size, _: short_size(size)))
    plot.tick_params(axis="x", labelsize=8)


def short_size(size: float) -> str:
    """512, 1k for 1,024, 1.46k for 1,500."""
    return f"{size / 1024:.3g}k" if size >= 1024 else f"{size:.0f}"
