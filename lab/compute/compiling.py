"""torch.compile: whether it works here, and what to do when it does not."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from settings.errors import ConfigError, RunError

LossesOf = Callable[[Tensor], dict[str, Tensor]]  # from windows (B, T+1) to the named losses


@lru_cache(maxsize=4)
def compiler_problem(device_type: str) -> str | None:
    """Why torch.compile does not work on this kind of device, in one line; None if it works.

    A small function is compiled once per process. Its input has another length each time, because torch's cache on
    disk would hide that the compiler has broken since.
    """
    length = 1 + time.time_ns() % 2**16
    try:
        with torch.no_grad():
            torch.compile(lambda x: x.sin() + 1)(torch.ones(length, device=device_type))
    except Exception as error:  # dynamo, inductor and the compiler raise many types; the message is the answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return next((line.strip() for line in lines if re.search(r"\berror: ", line)), lines[0].strip())
    return None


def compile_losses(losses: LossesOf, device: torch.device, at_once: bool) -> LossesOf:
    """The same losses, compiled. at_once: whether the whole batch of a step passes the model at once.

    Then a GPU gets all kernels of a pass as one recorded CUDA graph, because sending them one by one takes longer than
    a small model computes. Where gradients add up over micro-batches they must not lie in a graph's memory, which the
    next pass writes anew.
    """
    if device.type != "cuda" or not at_once:
        return torch.compile(losses)
    compute = torch.compile(losses, mode="reduce-overhead")

    def replay(windows: Tensor) -> dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # what the pass before has made is not read any more
        return compute(windows)

    return replay


def check_compiler(device: torch.device) -> None:
    """Raises ConfigError with the reason if torch.compile does not work."""
    problem = compiler_problem(device.type)
    if problem:
        raise ConfigError(
            f"compile 'on' needs a compiler that works, and this one does not: {problem}. On a CPU install g++ or "
            "clang++ and Python's headers, in a path without blanks; or set compile to 'off'"
        )


def failure_in(error: Exception) -> str | None:
    """Why the compiler failed on a model, in one line; None if `error` is no failure of the compiler."""
    from torch._dynamo.exc import TorchDynamoException  # private, and torch has no public name for it; takes 1.6 s

    if not isinstance(error, TorchDynamoException):
        return None
    lines = [line for line in str(error).strip().splitlines() if not line.endswith(" raised:")]  # by which backend
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def explain_compiler_failure(step: int) -> Iterator[None]:
    """Raises RunError if the compiler fails on this model inside the `with`, and says how to go on. step: from 1."""
    try:
        yield
    except Exception as error:
        reason = failure_in(error)
        if reason is None:
            raise
        raise RunError(
            f"step {step}: this model can't be compiled here: {reason}. Set compile to 'off' in the run's "
            "train_config.json and resume"
        ) from error
