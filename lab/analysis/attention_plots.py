"""Pictures of `attention_maps`: one head token by token, all heads side by side, and numbers about each head."""

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from lab.analysis.attention_maps import AttentionMaps
from lab.display.heat_maps import PLAIN, SHADES, Labels, Scale, heat_maps
from lab.display.palette import BLUE, FAINT, INK
from lab.display.style import WIDTH, Picture, panels

GAP = 0.06  # between two maps of the overview, as a share of their width
MOST_NAMED = 8  # heads of a layer: up to so many have numbers in the summary, more are dots


def attention_map(maps: AttentionMaps, layer: int, head: int, applied: bool = False) -> Picture:
    """The weights of one head: rows are queries, columns are keys. What a query can't see is grey: the future, and what
    is before the model's window.

    layer: from 1; head: from 0. applied: the factors of the values, which differ from the weights in shaped attention
    alone. Raises AnalysisError if there is no such head.
    """
    table = hide_unseen(maps.head(layer, head, applied), maps.window)
    return heat_maps(
        {f"Layer {layer}, head {head}": table}, Labels("query token", maps.labels), Labels("key token", maps.labels),
        Scale("applied weight", bool(np.nanmin(table) < 0)) if applied else Scale("attention weight", most=1.0),
    )


def attention_overview(maps: AttentionMaps) -> Picture:
    """Small maps of all heads: a row for each layer, a column for each head. The first token is at the top left."""
    n_layers, n_heads, n_tokens, _ = maps.weights.shape
    colours = matplotlib.colormaps[PLAIN].resampled(SHADES).with_extremes(bad=FAINT)
    side = min(1.7, (WIDTH - 1.6) / n_heads)  # inches
    with panels(1.3 + side * n_layers, 1) as (plot,):
        for layer, heads in enumerate(maps.weights, start=1):
            for head, weights in enumerate(heads):
                left, top = head, layer
                image = plot.imshow(
                    hide_unseen(weights, maps.window), norm=Normalize(0, 1), cmap=colours, interpolation="nearest",
                    extent=(left, left + 1 - GAP, top + 1 - GAP, top),
                )
        middle = (1 - GAP) / 2
        plot.set(xlim=(-GAP, n_heads), ylim=(n_layers + 1, 1 - GAP), xlabel="head", ylabel="layer")
        plot.set_title(f"Attention over {n_tokens} tokens")
        plot.set_xticks([head + middle for head in range(n_heads)], range(n_heads))
        plot.set_yticks([layer + middle for layer in range(1, n_layers + 1)], range(1, n_layers + 1))
        plot.tick_params(length=0, labelsize=9)
        plot.grid(visible=False)
        plot.spines[:].set_visible(False)
        bar = plot.figure.colorbar(image, ax=plot, location="right", fraction=0.05, pad=0.02)
        bar.set_label("attention weight", fontsize=9)
        bar.ax.tick_params(labelsize=9)
        about = f"{n_layers} layers × {n_heads} heads over {n_tokens} tokens: attention weights, a small map for each"
        return Picture(plot.figure, about)


def attention_summary(maps: AttentionMaps) -> Picture:
    """Entropy and distance of every head by layer. Dashed: a head that gives all visible tokens the same weight."""
    frame, n_tokens = maps.summary(), len(maps.labels)
    n_heads = frame["head"].max() + 1
    # how many tokens the second, third, ... token can see
    readable = np.arange(2, n_tokens + 1).clip(max=maps.window or n_tokens)
    even = {"entropy": np.log(readable).mean(), "distance": ((readable - 1) / 2).mean()}
    units = {"entropy": "entropy (nats)", "distance": "mean distance (tokens back)"}
    step = 0.8 / max(n_heads, 2)
    across = frame["layer"] + (frame["head"] - (n_heads - 1) / 2) * step
    with panels(3.4, 2) as plots:
        for plot, (name, unit) in zip(plots, units.items()):
            plot.axhline(even[name], color=INK, linewidth=1.2, linestyle="--", label="equal weights")
            plot.plot(across, frame[name], linestyle="", marker="o", markersize=4, color=BLUE, label="a head")
            if n_heads <= MOST_NAMED:
                for x, y, head in zip(across, frame[name], frame["head"]):
                    plot.annotate(str(head), (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=8)
            top = 1.12 * max(frame[name].max(), even[name])
            plot.set(title=unit.split(" (")[0].capitalize(), xlabel="layer", ylabel=unit, ylim=(0, top))
            plot.set_xlim(0.4, frame["layer"].max() + 0.6)
            plot.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
            plot.grid(axis="x", visible=False)
        handles, labels = plots[0].get_legend_handles_labels()
        plots[0].figure.legend(handles, labels, loc="outside lower center", ncols=2)
        facts = "; ".join(f"{unit} {frame[name].min():.2f} to {frame[name].max():.2f}" for name, unit in units.items())
        return Picture(plots[0].figure, f"{len(frame)} heads over {n_tokens} tokens: {facts}")


def hide_unseen(weights, window: int | None) -> np.ndarray:
    """The weights, with NaN above the diagonal and before the window."""
    table = weights.numpy().astype(float)
    table[np.triu_indices(len(table), 1)] = np.nan
    if window is not None:
        table[np.tril_indices(len(table), -window)] = np.nan
    return table
