"""The learning rate range test: a short training whose rate grows at every step, to see at which rate the loss falls
fastest.

    found = find_learning_rate(preset("llama-tiny"))
    found.suggestion
    rate_curve(found)

Smith 2017, arXiv 1506.01186, section 3.3, with rates in geometric steps: lowest · (highest / lowest)^(i / (steps − 1)).
The suggestion is the rate at which the loss falls most steeply. It is on the safe side: at the rate with the lowest
loss, training nearly diverges.
"""

import math
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from config import Preset
from lab.compute.allocator import freed_memory_kept
from lab.compute.device import check_precision, pick_device
from lab.compute.training_state import TrainingState
from lab.costs.fitting import check_micro_batch, explain_out_of_memory
from lab.data.packing import TokenData, prepare
from lab.display.palette import BLUE, SKY, VERMILLION
from lab.display.style import Picture, axes
from lab.runs.checks import check_teacher, check_vocabulary
from lab.runs.run import Run
from lab.runs.text import find_tokenizer
from lab.training.micro_batches import find_micro_batch
from settings.errors import ConfigError

SMOOTHING = 0.8  # the share of the running mean that stays at each step
DIVERGED = 1.5  # times the best smoothed loss: the test ends there
LEAST_STEPS = 10


@dataclass(frozen=True, kw_only=True, repr=False)
class RateTest:
    """For each rate, the loss before its update in nats per token and the running mean of the losses so far.

    suggestion: the rate at which the lowest smoothed loss so far fell fastest by log(rate).
    diverged: whether the loss rose so far that the test ended before its highest rate.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float
    diverged: bool

    def __repr__(self) -> str:
        end = "where the loss diverged" if self.diverged else "the last"
        return (
            f"learning rate {self.suggestion:.1e}: there the loss fell fastest, from {self.smoothed[0]:.3f} at "
            f"{self.rates[0]:.1e} to {min(self.smoothed):.3f} nats per token at best; {self.rates[-1]:.1e} was {end}"
        )


def find_learning_rate(
    settings: Preset, data: TokenData | None = None, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100
) -> RateTest:
    """Trains a new model on the batches that a training with these settings would see, and stores nothing.

    data: the result of `prepare`, if you have it. The same call gives the same numbers, because weights, batches and
    dropout depend on the settings' seed. The precision is fp32, or TF32 on CUDA, unless the settings name one.
    Before the first step, raises ConfigError for rates, a device or a vocabulary that can't be used, and DataError for
    too little text; later, ConfigError if the loss diverges at once or never falls, RunError if memory runs out.
    """
    if not 0 < lowest < highest < math.inf:
        raise ConfigError(f"need 0 < lowest < highest, not lowest={lowest:g} and highest={highest:g}")
    if steps < LEAST_STEPS:
        raise ConfigError(f"steps={steps} are too few to tell a fall from noise; give {LEAST_STEPS} or more, best 100")
    model_config, config = settings
    check_precision(config.precision, pick_device(config.device))  # before any text is read
    teacher = Run.open_teacher(config)
    tokenizer = data.tokenizer if data else find_tokenizer(config.data.tokenizer, teacher)
    model_config = model_config.settled(tokenizer.vocab_size)
    check_vocabulary(model_config, tokenizer)
    data = data or prepare(config.data, tokenizer)
    data.train.n_windows(model_config.context_length)
    check_micro_batch(model_config, config, pick_device(config.device))
    if teacher:
        check_teacher(model_config, config.distil, data.tokenizer, teacher)
    state = TrainingState.start(model_config, config, data, teacher and teacher.load_model())
    rates, losses, smoothed, mean = [], [], [], 0.0
    with closing(data.train), freed_memory_kept():  # a streamed set makes its next shard in the background
        if config.micro_batch_size == "auto":
            state.config = config.replace(micro_batch_size=find_micro_batch(state))
        for step, rate in enumerate(np.geomspace(lowest, highest, steps).tolist()):
            with explain_out_of_memory(model_config, state.config):
                loss = state.backward(state.batch())["loss"].item()
            norm = state.clip().item()
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            running = mean / (1 - SMOOTHING ** (step + 1))  # corrects for the start at 0
            diverged = not math.isfinite(loss + norm) or running > DIVERGED * min(smoothed, default=math.inf)
            if diverged:
                break
            state.update(rate)
            rates.append(rate)
            losses.append(loss)
            smoothed.append(running)
    if len(rates) < LEAST_STEPS:
        raise ConfigError(
            f"the loss diverged at step {len(rates) + 1} of {steps}, at a rate of {rate:.1e}; lower lowest, or take "
            "more steps"
        )
    return RateTest(
        rates=rates, losses=losses, smoothed=smoothed, suggestion=steepest(rates, smoothed), diverged=diverged
    )


def steepest(rates: list[float], smoothed: list[float]) -> float:
    """The rate at which the lowest loss so far falls most, from the step before to the step after.

    The lowest so far is used because a loss that comes down from a spike falls fast without progress.
    """
    lowest = np.minimum.accumulate(smoothed)
    falls = lowest[:-2] - lowest[2:]
    if not falls.max() > 0:
        raise ConfigError(
            f"the loss never fell between rates of {rates[0]:.1e} and {rates[-1]:.1e}; try another range, or more steps"
        )
    return rates[1 + int(falls.argmax())]


def rate_curve(found: RateTest) -> Picture:
    """The loss by learning rate, of each step and smoothed, and the suggestion."""
    with axes(3.6, "Learning rate range test") as plot:
        plot.semilogx(found.rates, found.losses, color=SKY, linewidth=0.8, label="loss of each step")
        plot.semilogx(found.rates, found.smoothed, color=BLUE, linewidth=2, label="smoothed")
        place = found.rates.index(found.suggestion)
        plot.axvline(found.suggestion, color=VERMILLION, linewidth=1.2, linestyle="--")
        plot.plot(
            found.suggestion, found.smoothed[place], color=VERMILLION, marker="o", linestyle="",
            label=f"suggestion: {found.suggestion:.1e}, the steepest fall",
        )
        low, high = min(found.losses), max(found.smoothed)
        plot.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))  # without a last spike
        plot.set(xlabel="learning rate (log scale)", ylabel="loss (nats per token)")
        plot.xaxis.set_major_formatter(StrMethodFormatter("{x:.0e}"))
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.figure.legend(loc="outside lower center", ncols=3)
        return Picture(plot.figure, f"Learning rate range test: {found!r}")
