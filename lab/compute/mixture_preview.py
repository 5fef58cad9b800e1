"""The weights of a mixture's sources over the steps as a picture, and the shares that a training took."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from config import TrainConfig
from lab.data.mixture import mixture_weights, rows_before
from lab.display.palette import LINES
from lab.display.plots import extremes, steps_axis
from lab.display.style import DASHES, Picture, axes
from settings.errors import ConfigError
from settings.messages import short

WINDOWS = 40  # shares are averaged over a fortieth of the steps, which a batch of few rows needs


def mixture_preview(config: TrainConfig, log: pd.DataFrame | None = None) -> Picture:
    """A picture of the weight of each source at every step (lines), and of its share in the batches (dots).

    log: what a run with these settings has logged; None: the shares that its batches will have. Raises ConfigError for
    settings without a mixture, and for a log that has no shares.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"a mixture belongs to a TrainConfig, as in run.train_config, not {short(config)}")
    mixture, steps = config.data.mixture, config.steps
    if not mixture.sources:
        raise ConfigError("these settings have no mixture: train.data.mixture.sources is empty")
    weights, taken = 100 * mixture_weights(mixture, steps), realised(config, log)
    with axes(3.2, "") as plot:
        for source, name in enumerate(mixture.sources):
            shown = extremes(weights[:, source])
            style = dict(color=LINES[source % len(LINES)], linestyle=DASHES[source % len(DASHES)], linewidth=2)
            plot.plot(np.arange(1, steps + 1)[shown], weights[shown, source], label=name, **style)
            draw_shares(plot, taken[:, source], style["color"])
        plot.set(ylabel="share of the rows (%)", ylim=(-3, 103))
        plot.figure.legend(loc="outside upper center", ncols=min(4, len(mixture.sources)))
        steps_axis(plot, steps)
        ends = zip(mixture.sources, weights[0], weights[-1])
        facts = ", ".join(f"{name} from {first:.0f} to {last:.0f} %" for name, first, last in ends)
        did = "planned for" if log is None else f"taken in {len(taken):,} of"
        return Picture(plot.figure, f"Sources mixed, {did} {steps:,} steps, {mixture.transition}: {facts}")


def realised(config: TrainConfig, log: pd.DataFrame | None) -> np.ndarray:
    """The share of each source in the batch of each step so far, (steps, sources)."""
    names = [f"share of {name}" for name in config.data.mixture.sources]
    if log is None:
        rows = rows_before(config.data.mixture, config.steps, config.batch_size)
        return np.diff(rows, axis=0) / config.batch_size
    missing = [name for name in names if name not in log]
    if missing:
        raise ConfigError(f"the log has no column {missing[0]!r}: it is not that of a run with this mixture")
    return log[names].to_numpy()


def draw_shares(plot: Axes, shares: Sequence[float], colour: str) -> None:
    """A dot for the mean of every fortieth of the steps."""
    parts = np.array_split(np.arange(len(shares)), min(WINDOWS, len(shares)))
    centres = [1 + part.mean() for part in parts if len(part)]
    means = [100 * np.mean(np.asarray(shares)[part]) for part in parts if len(part)]
    plot.plot(centres, means, linestyle="", marker="o", markersize=3.5, color=colour)
