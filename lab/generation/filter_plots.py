"""The picture of `filter_steps`: for each step, bars before and after it, and the cumulative curve with its cut."""

from matplotlib.axes import Axes

from lab.display.palette import BLUE, GREY, INK, ORANGE, VERMILLION
from lab.display.plots import percent
from lab.display.style import Picture, PlotError, drawable, panels
from lab.generation.filter_steps import SHOWN, FilterStep, FilterSteps

COLUMNS = 3  # steps side by side
NEARLY_ALL = 0.99  # curves are drawn up to the rank where they get here,
MOST_RANKS = 60  # or up to this one, and always beyond the cut
MOST_MARKERS = 30  # on one curve: more would touch


def filter_picture(found: FilterSteps, k: int = SHOWN) -> Picture:
    """A column for each step. Above: the k likeliest tokens before it (outlines) and after it (bars). Below: the sum of
    the probabilities of the likeliest tokens, before and after, and where a step cuts tokens off.

    Raises PlotError where no setting changes anything.
    """
    steps = found.steps
    if not steps:
        raise PlotError("these settings change nothing, so there is no step to draw; lower the temperature, say")
    columns = min(COLUMNS, len(steps))
    rows = -(-len(steps) // columns)
    labels = [drawable(label, most=16) for label in found.labels[:k]]
    with panels(rows * (1.2 + 0.21 * len(labels) + 2.2), columns, rows=2 * rows) as plots:
        for plot in plots:
            plot.set_visible(False)
        for number, step in enumerate(steps):
            row, column = divmod(number, columns)
            above, below = (plots[(2 * row + part) * columns + column] for part in (0, 1))
            draw_bars(above, step, labels, is_first=column == 0)
            draw_curves(below, step, is_first=column == 0)
        figure = plots[0].figure
        figure.suptitle(f"After “{drawable(found.prompt[-60:])}”", fontsize=11, x=0.01, ha="left")
        handles = [*plots[0].get_legend_handles_labels()[0], *plots[columns].get_legend_handles_labels()[0]]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
        facts = "; ".join(f"{step.name} keeps {step.kept:,} of {step.possible:,} tokens" for step in steps)
        return Picture(figure, f"The next token after “{found.prompt}”, step by step: {facts}")


def draw_bars(plot: Axes, step: FilterStep, labels: list[str], is_first: bool) -> None:
    before, after = (100 * share[: len(labels)].double().numpy() for share in (step.before, step.after))
    rows = range(len(labels))
    plot.set_visible(True)
    plot.barh(rows, after, height=0.7, color=BLUE, label="after the step")
    plot.barh(rows, before, height=0.7, fill=False, edgecolor=ORANGE, linewidth=1.3, label="before the step")
    longest = max(before.max(), after.max())
    gone = [row for row in rows if before[row] > 0 and after[row] == 0]
    style = dict(linestyle="", marker="X", markersize=6, color=VERMILLION, label="excluded by the step")
    plot.plot(before[gone] + 0.05 * longest, gone, **style)
    plot.set_yticks(rows, labels if is_first else [""] * len(labels))
    plot.set(xlabel="probability (%)", xlim=(0, 1.12 * longest), ylim=(len(labels) - 0.4, -0.6))
    plot.set_title(step.name)
    plot.grid(axis="y", visible=False)
    plot.tick_params(axis="y", length=0)


def draw_curves(plot: Axes, step: FilterStep, is_first: bool) -> None:
    last, cuts = ranks_shown(step), step.kept < step.possible
    plot.set_visible(True)
    for name, share, style in (
        ("sum before", step.before, dict(color=ORANGE, linewidth=2.4)),
        ("sum after", step.after, dict(color=BLUE, linewidth=1.6, marker=".")),
    ):
        falling = share.double().sort(descending=True).values[: min(last, int((share > 0).sum()))]
        every = -(-last // MOST_MARKERS)
        plot.plot(range(1, len(falling) + 1), 100 * falling.cumsum(0).numpy(), label=name, markevery=every, **style)
    if cuts:
        plot.axvspan(step.kept + 0.5, last + 0.5, color=GREY, alpha=0.25, linewidth=0)
    cut_at = step.kept + 0.5 if cuts else float("nan")
    plot.axvline(cut_at, color=INK, linewidth=1.3, linestyle="--", label="cut: no token from here on")
    if step.setting == "top_p":
        plot.axhline(100 * step.value, color=INK, linewidth=0.9, linestyle=":")
        at = dict(xycoords=plot.get_yaxis_transform(), xytext=(-3, -3), textcoords="offset points")
        plot.annotate(f"p = {step.value:g}", (1, 100 * step.value), ha="right", va="top", fontsize=8, **at)
    kept = f"keeps {step.kept:,} of {step.possible:,}: {percent(step.kept_share)}" if cuts else "cuts nothing off"
    plot.set_title(kept, fontsize=9, fontweight="normal")
    plot.set(xlabel="tokens, the likeliest first", xlim=(0.5, last + 0.5), ylim=(0, 104))
    if is_first:
        plot.set_ylabel("cumulative probability (%)")
    plot.xaxis.get_major_locator().set_params(integer=True)


def ranks_shown(step: FilterStep) -> int:
    """How many of the likeliest tokens the curves show: nearly all of the probability, and what lies behind the cut."""
    sums = step.before.double().sort(descending=True).values.cumsum(0)
    needed = int((sums < NEARLY_ALL * sums[-1]).sum()) + 1
    behind_cut = step.kept + max(5, step.kept // 4) if step.kept < step.possible else 5
    return min(len(sums), max(min(needed, MOST_RANKS), behind_cut))
