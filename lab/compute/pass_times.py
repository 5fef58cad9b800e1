"""The seconds of a forward and backward pass, for each way to compute it. They are remembered for this machine."""

import time
from statistics import median

import torch
from torch import Tensor, nn

from lab.compute.compiling import compile_losses
from lab.compute.device import autocast, device_name, is_out_of_memory, matmul_precision
from lab.files.remembered import lasting_path, read_entry, write_entry
from modules.distillation import Distillation

COMPILED = " compiled"  # ends the name of a way that is compiled, as in "bf16 compiled"
ROUNDS, ENOUGH = 6, 10.0  # after the one that warms up: how many at most, and the seconds after which no more begin
FEW, CLEARLY = 2, 1.2  # after so many rounds it is enough that one way is so many times as fast as any other in each
IN_A_ROW = {"cuda": 4}  # passes without a wait between them, as a training sends them; elsewhere 1


class PassTimes:
    """The seconds of a pass of this model over windows (B, T+1) by way: "fp32", "tf32", "bf16", or these compiled.

    What an earlier training measured on this machine, for a model and windows of the same shapes, by the same code and
    the same PyTorch, is not measured again. at_once: whether the windows are the whole batch of a step. remembered:
    whether all that was asked for so far was known.
    """

    def __init__(self, model: nn.Module, windows: Tensor, at_once: bool = True):
        self.model, self.windows, self.at_once, self.remembered = model, windows, at_once, True
        self.path = lasting_path("passes", (*times_key(model, windows), at_once))
        self.timed: list[dict[str, float]] = (read_entry(self.path) if self.path else None) or []

    def of(self, ways: list[str]) -> dict[str, float]:
        """The seconds of these ways, timed in turn, so that they can be compared. Infinite: it runs out of memory."""
        known = next((seconds for seconds in self.timed if seconds.keys() >= set(ways)), None)
        if known is None:
            known, self.remembered = time_passes(self.model, self.windows, ways, self.at_once), False
            self.timed.append(known)
            if self.path and torch.inf not in known.values():  # what ran out of memory may fit another time
                write_entry(self.path, self.timed)
        return {way: known[way] for way in ways}


def times_key(model: nn.Module, windows: Tensor) -> tuple:
    """What the time of a pass depends on, beside the code and PyTorch's version."""
    distils = isinstance(model, Distillation)
    models = [model.student, model.teacher] if distils else [model]
    settings = [*(one.config for one in models), *([model.settings] if distils else [])]
    machine = device_name(windows.device), torch.__version__, torch.get_num_threads()
    return *settings, models[0].gradient_checkpointing, list(windows.shape), *machine


def time_passes(model: nn.Module, windows: Tensor, ways: list[str], at_once: bool = True) -> dict[str, float]:
    """Median seconds of a forward and backward pass in each way, taken in turn; no gradient is left behind.

    Infinite for a way that runs out of memory; where all do, that error is raised.
    """
    losses_of = dict.fromkeys(ways, model.losses)
    for way in ways:
        if way.endswith(COMPILED):  # only then: asking for a compiled model takes a while before anything is compiled
            losses_of[way] = compile_losses(model.losses, windows.device, at_once)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(1 + ROUNDS):
        if i == 1:
            begin = time.perf_counter()  # the first round warms up, and compiles
        if i > 1 and (time.perf_counter() - begin > ENOUGH or is_clear([times[1:] for times in seconds.values()])):
            break
        for way, times in seconds.items():
            if torch.inf in times:
                continue
            try:
                times.append(time_pass(model, losses_of[way], windows, way.removesuffix(COMPILED)))
            except Exception as error:
                others = any(other != way and torch.inf not in found for other, found in seconds.items())
                if not is_out_of_memory(error) or not others:
                    raise
                times.append(torch.inf)
            finally:
                model.zero_grad(set_to_none=True)
    return {way: torch.inf if torch.inf in times else median(times[1:]) for way, times in seconds.items()}


def is_clear(times: list[list[float]]) -> bool:
    """Whether one way was CLEARLY faster than all others in every round, and there were FEW or more. times: by way."""
    rounds = list(zip(*times))

    def is_ahead(way: int) -> bool:
        return all(CLEARLY * found[way] <= slower for found in rounds for slower in (*found[:way], *found[way + 1 :]))

    return len(rounds) >= FEW and any(map(is_ahead, range(len(times))))


def time_pass(model: nn.Module, losses_of, windows: Tensor, precision: str) -> float:
    """Seconds of one pass, the mean of those that are sent in a row."""
    passes, start = IN_A_ROW.get(windows.device.type, 1), time.perf_counter()
    for _ in range(passes):
        model.zero_grad(set_to_none=True)
        with matmul_precision(windows.device, precision):
            with autocast(windows.device, precision):
                objective = model.objective(losses_of(windows))
            objective.backward()
    objective.item()  # waits for the device
    return (time.perf_counter() - start) / passes
