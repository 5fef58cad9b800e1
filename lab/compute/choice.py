"""What "auto" means for precision and compiling on this machine: it is measured."""

from collections.abc import Collection
from typing import NamedTuple

import torch

from config import TrainConfig
from lab.compute.compiling import compiler_problem, failure_in
from lab.compute.device import precisions
from lab.compute.pass_times import COMPILED, PassTimes
from lab.compute.ranks import current_ranks

# Seconds that a training must still take, not compiled, before compiling is tried. On CUDA compiling takes 20 to 60
# seconds and makes steps 1.3 to 2 times as fast; on two CPU cores half a minute to one, and 1.4 to 1.6 times as fast.
COMPILING_PAYS = {"cuda": 40, "cpu": 240}


class Choice(NamedTuple):
    """How a training computes. precision: "fp32", "tf32" or "bf16". why: the reasons and the time it may take, in
    words."""

    precision: str
    compiled: bool
    why: str


def choose(
    model: torch.nn.Module, windows: torch.Tensor, config: TrainConfig, kept: Collection[str] = (),
    steps: int | None = None,
) -> Choice:
    """Times forward and backward passes and decides what config leaves at "auto".

    windows (B, T+1): as many as pass the model at once in a step. Precisions are timed in turn. If the rest of the
    training takes longer than COMPILING_PAYS, a compiled pass is timed, too, and the faster one is kept. kept: the
    settings in config that an earlier measurement chose, among "precision" and "compile". steps: how many are still to
    be taken (None: all). Raises what PyTorch raises where memory runs out in every way.
    """
    at_once = config.accumulation == 1 and not current_ranks().launched
    times, device = PassTimes(model, windows, at_once), windows.device.type
    steps = steps or config.steps
    precision, why = choose_precision(times, config, origin("precision", kept))
    seconds = times.of([precision])[precision] * config.accumulation * steps
    minutes = seconds / 60
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s' * (round(minutes) != 1)}"
    why = f"{why}; {time} for {steps:,} steps"
    if config.compile != "auto":
        return Choice(precision, config.compile == "on", f"{why}; compile {config.compile} {origin('compile', kept)}")
    if config.dropout_final != 1 or device not in COMPILING_PAYS:
        return Choice(precision, False, f"{why}; not compiled")
    if seconds <= COMPILING_PAYS[device]:
        return Choice(precision, False, f"{why}, too few for compiling to pay")
    problem = compiler_problem(device)
    if problem:
        return Choice(precision, False, f"{why}; not compiled, because the compiler does not work: {problem}")
    return choose_compiled(times, config, precision, why)


def choose_precision(times: PassTimes, config: TrainConfig, origin: str) -> tuple[str, str]:
    """The precision, and why. origin: of a precision that is not "auto", in words."""
    device = times.windows.device
    if config.precision != "auto":
        return config.precision, f"{config.precision}, {origin}"
    choices = candidates(device)
    if len(choices) == 1:
        return choices[0], f"{choices[0]}, as always on {'a GPU without bf16' if device.type == 'cuda' else 'MPS'}"
    if config.compile == "on" and device.type == "cuda":
        return "bf16", "bf16, in which compiled steps are fastest on CUDA"
    full = choices[0]
    seconds = times.of(choices)
    gain = seconds[full] / seconds["bf16"]
    chosen = "bf16" if gain > 1.05 else full
    if torch.inf in seconds.values():
        return chosen, f"{chosen}: {'bf16' if chosen == full else full} runs out of memory"
    return chosen, f"{chosen}: bf16 measured at {gain:.2f} times the speed of {full}{as_remembered(times)}"


def choose_compiled(times: PassTimes, config: TrainConfig, precision: str, why: str) -> Choice:
    """Compiled or not, whichever is faster. On CUDA bf16 is compiled unless a precision is set: what costs an eager
    step its gain there, launching more kernels, is no cost of a compiled one."""
    device = times.windows.device
    to_compile = candidates(device)[-1] if config.precision == "auto" and device.type == "cuda" else precision
    way = f"{to_compile}{COMPILED}"
    try:
        seconds = times.of([precision, way])
    except Exception as error:
        failure = failure_in(error)
        if failure is None:
            raise
        return Choice(precision, False, f"{why}; not compiled, because this model can't be: {failure}")
    if seconds[way] == torch.inf:
        return Choice(precision, False, f"{why}; not compiled, because then it runs out of memory")
    measured = f"{1e3 * seconds[way]:.3g} ms in {way}, {1e3 * seconds[precision]:.3g} in {precision} not compiled"
    said = f"a forward and backward pass takes {measured}{as_remembered(times)}"
    if seconds[way] >= seconds[precision]:
        return Choice(precision, False, f"{why}; not compiled: {said}")
    return Choice(to_compile, True, f"{why}, fewer when compiled: {said}")


def candidates(device: torch.device) -> list[str]:
    """What "auto" chooses from: the fastest precision of float32 tensors, and bf16."""
    there = ["fp32"] if device.type == "mps" else precisions(device)
    return [precision for precision in there if precision != "fp32" or "tf32" not in there]


def origin(setting: str, kept: Collection[str]) -> str:
    return "as chosen before" if setting in kept else "as set"


def as_remembered(times: PassTimes) -> str:
    return " (remembered from an earlier training)" if times.remembered else ""
