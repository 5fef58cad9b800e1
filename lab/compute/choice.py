"""What "auto" means for precision and compiling on this machine: it is measured."""

import time
from collections.abc import Collection
from statistics import median
from typing import NamedTuple

import torch

from config import TrainConfig
from lab.compute.compiling import compiler_problem
from lab.compute.device import autocast

COMPILING_PAYS = 6  # minutes; compiling takes about half a minute and makes a step a fifth faster


class Choice(NamedTuple):
    """How a training computes. precision: "fp32" or "bf16". why: the reasons and the time it may take, in words."""

    precision: str
    compiled: bool
    why: str


def choose(
    model: torch.nn.Module, windows: torch.Tensor, config: TrainConfig, kept: Collection[str] = ()
) -> Choice:
    """Times forward and backward passes and decides what config leaves at "auto".

    Both precisions are timed in turn. Compiling pays if the training takes longer than COMPILING_PAYS. A quarter of
    `windows` is enough, and keeps the peak memory low. kept: the settings in config that an earlier measurement chose,
    among "precision" and "compile".
    """

    def origin(setting: str) -> str:
        return "as chosen before" if setting in kept else "as set"

    device, part = windows.device, windows[: max(1, len(windows) // 4)]
    settled = "fp32" if device.type == "mps" and config.precision == "auto" else config.precision
    seconds = time_passes(model, part, ["fp32", "bf16"] if settled == "auto" else [settled])
    precision, why = settled, f"{settled}, {origin('precision') if config.precision != 'auto' else 'as always on MPS'}"
    if settled == "auto":
        gain = seconds["fp32"] / seconds["bf16"]
        precision = "bf16" if gain > 1.05 else "fp32"
        why = f"{precision}: bf16 measured at {gain:.2f} times the speed of fp32"
    minutes = seconds[precision] * len(windows) / len(part) * config.accumulation * config.steps / 60
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s' * (round(minutes) != 1)}"
    why = f"{why}; {time} for {config.steps:,} steps"
    if config.compile != "auto":
        return Choice(precision, config.compile == "on", f"{why}; compile {config.compile} {origin('compile')}")
    if config.dropout_final != 1 or device.type == "mps":
        return Choice(precision, False, f"{why}; not compiled")
    if minutes <= COMPILING_PAYS:
        return Choice(precision, False, f"{why}, too few for compiling to pay")
    problem = compiler_problem(device.type)
    if problem:
        return Choice(precision, False, f"{why}; not compiled, because the compiler does not work: {problem}")
    return Choice(precision, True, f"{why}, fewer when compiled")


def time_passes(model: torch.nn.Module, windows: torch.Tensor, precisions: list[str]) -> dict[str, float]:
    """Median seconds of a forward and backward pass in each precision; no gradient is left behind."""
    seconds: dict[str, list[float]] = {precision: [] for precision in precisions}
    for _ in range(4):
        for precision, times in seconds.items():
            start = time.perf_counter()
            with autocast(windows.device, precision):
                loss = model.objective(model.losses(windows))
            loss.backward()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
    return {precision: median(times[1:]) for precision, times in seconds.items()}
