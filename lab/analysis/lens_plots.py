"""Pictures of lenses: how near each layer is to the final prediction, beside the baselines."""

import pandas as pd

from lab.analysis.lenses import BASELINES, LayerReadings
from lab.display.heat_maps import Labels, Scale, heat_maps
from lab.display.palette import BLUE, INK, SKY, VERMILLION
from lab.display.style import Picture, PlotError, panels

LENS_COLOURS = {"logit": VERMILLION, "logit (no norm)": SKY, "tuned": BLUE}
STYLES = dict(zip(BASELINES, (dict(linestyle="-", marker="o"), dict(linestyle=":", marker="s"), dict(linestyle="--"))))


def lens_heatmap(readings: LayerReadings) -> Picture:
    """KL to the final distribution by layer and token: dark where a layer already predicts the same."""
    return heat_maps(
        {readings.title(): readings.kl.numpy()}, Labels("layer", [str(layer) for layer in range(len(readings.kl))]),
        Labels("after the token", readings.labels), Scale("KL (nats)"),
    )


def lens_curves(frame: pd.DataFrame) -> Picture:
    """The KL of `lens_quality` by layer, a panel for each stream; baselines are dotted and dashed."""
    if frame.empty:
        raise PlotError("there are no lenses to draw; give what lens_quality returns")
    streams, facts = list(frame["stream"].unique()), []
    with panels(3.6, len(streams)) as plots:
        for plot, stream in zip(plots, streams):
            for (lens, baseline), rows in frame[frame["stream"] == stream].groupby(["lens", "baseline"]):
                name = lens if baseline == "model" else f"{lens}, {baseline}"
                style = dict(color=LENS_COLOURS[lens], linewidth=1.8 if baseline == "model" else 1.1, markersize=4)
                plot.plot(rows["layer"], rows["kl"], label=name, **style, **STYLES[baseline])
                facts.append(f"{stream}, {name} " + " ".join(f"{value:.2f}" for value in rows["kl"]))
            plot.axhline(0, color=INK, linewidth=0.8)
            plot.set(title=stream, xlabel="layer", ylabel="KL to the final (nats)" if plot is plots[0] else "")
            plot.set_xticks(range(0, frame["layer"].max() + 1, 1 + frame["layer"].max() // 8))
            plot.set_ylim(bottom=-0.03 * frame["kl"].max(), top=1.05 * frame["kl"].max())
        handles, names = plots[0].get_legend_handles_labels()
        plot.figure.legend(handles, names, loc="outside lower center", ncols=3)
        return Picture(plot.figure, "KL to the final distribution by layer: " + "; ".join(facts))
