"""The learning rate of every step as a picture."""

from collections.abc import Sequence

import numpy as np

from config import Preset, TrainConfig
from lab.compute.schedule import learning_rates
from lab.display.palette import BLUE, SKY, VERMILLION
from lab.display.plots import extremes, numbers, steps_axis
from lab.display.style import Picture, axes
from settings.checked import Config
from settings.errors import ConfigError
from settings.messages import short


def schedule_preview(rates: Sequence[float] | TrainConfig) -> Picture:
    """A picture of the learning rate of every step, given as a list or as a TrainConfig.

    Raises PlotError for no rates or negative ones, ConfigError for other settings."""
    if isinstance(rates, Config | Preset | str):
        if not isinstance(rates, TrainConfig):
            raise ConfigError(f"a schedule belongs to a TrainConfig, as preset('llama-tiny').train, not {short(rates)}")
        rates = learning_rates(rates)
    values = numbers(rates, "learning rates")
    count, peak = len(values), int(np.argmax(values >= values.max() * (1 - 1e-9))) + 1  # the first, rounding aside
    facts = [f"peak: {values[peak - 1]:.2g} at step {peak:,}", f"final: {values[-1]:.2g} at step {count:,}"]
    with axes(3.0, "") as plot:
        steps, shown = np.arange(1, count + 1), extremes(values)
        if peak > 1:
            facts.insert(0, f"warm-up: {peak:,} steps")
            plot.axvspan(0, peak, color=SKY, alpha=0.3, linewidth=0, label=facts[0])
        plot.plot(steps[shown], values[shown], color=BLUE, linewidth=2)
        marks = dict(linestyle="", color=VERMILLION, markersize=7, clip_on=False)
        plot.plot(peak, values[peak - 1], "^", label=facts[-2], **marks)
        plot.plot(count, values[-1], "o", label=facts[-1], **marks)
        plot.set(ylabel="learning rate", ylim=(0, 1.1 * values.max() or 1))
        plot.figure.legend(loc="outside upper center", ncols=3)
        steps_axis(plot, count)
        return Picture(plot.figure, f"Learning rate over {count:,} steps; " + ", ".join(facts))
