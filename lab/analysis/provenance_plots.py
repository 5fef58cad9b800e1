"""Pictures of provenance: where the token stream comes from, and the parts of a logit."""

import numpy as np

from lab.analysis.provenance import LogitSplit, Provenance
from lab.display.heat_maps import Labels, Scale, heat_maps
from lab.display.palette import BLUE, INK, VERMILLION
from lab.display.style import Picture, axes, drawable


def provenance_heatmap(
    found: Provenance, layer: int = -1, head: int = 0, source_head: int | None = None
) -> Picture:
    """M[layer][t, head, s, source_head] for all tokens t and s of the prompt.

    layer: 0 to L, 0 is the start; heads from 0. source_head None: the same head.
    """
    (layer,) = found.places("layer", [layer], found.n_layers + 1)
    return provenance_picture(found, [layer], head, source_head)


def provenance_heatmaps(found: Provenance, head: int = 0, source_head: int | None = None) -> Picture:
    """The same after each of layers 1 to L, in one picture with the same colours."""
    return provenance_picture(found, list(range(1, found.n_layers + 1)), head, source_head)


def provenance_picture(found: Provenance, layers: list[int], head: int, source_head: int | None) -> Picture:
    (head,) = found.places("head", [head], found.n_heads)
    (source_head,) = found.places("head", [head if source_head is None else source_head], found.n_heads)
    tables = {}
    for layer in layers:
        table = found.matrix(layer, heads=[head])[:, 0, :, source_head].float().cpu().numpy()
        tables[f"layer {layer}"] = np.where(np.tri(len(table), dtype=bool), table, np.nan)  # nothing comes from later
    # the colours end at the largest value off the diagonal; what stayed in its place may be beyond
    elsewhere = max(np.nanmax(np.abs(table[~np.eye(len(table), dtype=bool)]), initial=0) for table in tables.values())
    whose = f"head {head}" if head == source_head else f"head {head} from head {source_head}"
    return heat_maps(
        tables, Labels("token stream at …", found.labels), Labels("… came from", found.labels),
        Scale("weight M", signed=True, most=elsewhere or None), f"Where the token stream comes from: {whose}",
    )


def logit_bars(split: LogitSplit, most: int = 12) -> Picture:
    """The largest parts of a logit, the largest on top, and the sum of all others."""
    parts = split.largest(most)
    values = np.array([value for _, value in parts])
    with axes(1.15 + 0.29 * len(parts), split.title()) as plot:
        drawn = plot.barh(range(len(parts)), values, height=0.68, color=np.where(values < 0, VERMILLION, BLUE))
        plot.bar_label(drawn, [f"{value:+.2f}" for value in values], padding=4)
        plot.axvline(0, color=INK, linewidth=0.8)
        plot.set_yticks(range(len(parts)), [drawable(words, most=40) for words, _ in parts])
        room = 0.16 * (max(values.max(), 0) - min(values.min(), 0) or 1)
        plot.set(xlabel="part of the logit", ylim=(len(parts) - 0.4, -0.6))
        plot.set_xlim(min(values.min() - room, 0), max(values.max() + room, 0))
        plot.grid(axis="y", visible=False)
        plot.tick_params(axis="y", length=0)
        facts = ", ".join(f"{words} {value:+.2f}" for words, value in parts)
        return Picture(plot.figure, f"{split.title()} is the sum of: {facts}")
