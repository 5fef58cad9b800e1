"""Where and in which precision to compute: looked up and measured, never assumed."""

import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import torch

from config import TrainConfig
from settings.errors import ConfigError, RunError

COMPILING_PAYS = 6  # minutes; compiling takes about half a minute and makes a step a fifth faster
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED")


def pick_device(wanted: str) -> torch.device:
    """"auto" is CUDA before MPS before CPU; a named one that is absent raises ConfigError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[wanted]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise ConfigError(f"device {wanted!r} is not available here; available: {there}, or leave it at 'auto'")
    return torch.device(wanted)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which a training step's forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class Choice(NamedTuple):
    """How a training computes: precision "fp32" or "bf16", compiled or not; and why, and how long it may take, in
    words."""

    precision: str
    compiled: bool
    why: str


def choose(model: torch.nn.Module, windows: torch.Tensor, config: TrainConfig) -> Choice:
    """What "auto" means here: forward and backward are timed in both precisions, in turn, and compiling pays if the
    training takes longer than COMPILING_PAYS. A quarter of `windows` is enough, and keeps the peak memory low."""
    device, part = windows.device, windows[: max(1, len(windows) // 4)]
    settled = "fp32" if device.type == "mps" and config.precision == "auto" else config.precision
    seconds = time_passes(model, part, ["fp32", "bf16"] if settled == "auto" else [settled])
    precision, why = settled, f"{settled}, as {'set' if config.precision != 'auto' else 'ever on MPS'}"
    if settled == "auto":
        gain = seconds["fp32"] / seconds["bf16"]
        precision = "bf16" if gain > 1.05 else "fp32"
        why = f"{precision}: bf16 measured at {gain:.2f} times the speed of fp32"
    minutes = seconds[precision] * len(windows) / len(part) * config.accumulation * config.steps / 60
    time = "less than a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s' * (round(minutes) != 1)}"
    why = f"{why}; {time} for {config.steps:,} steps"
    if config.compile != "auto":
        return Choice(precision, config.compile == "on", f"{why}; compile {config.compile} as set")
    if config.dropout_final != 1 or device.type == "mps":
        return Choice(precision, False, f"{why}; not compiled")
    if minutes <= COMPILING_PAYS:
        return Choice(precision, False, f"{why}, too few for compiling to pay")
    problem = compiler_problem(device.type)
    if problem:
        return Choice(precision, False, f"{why}; not compiled, for the compiler does not work: {problem}")
    return Choice(precision, True, f"{why}, fewer when compiled")


def time_passes(model: torch.nn.Module, windows: torch.Tensor, precisions: list[str]) -> dict[str, float]:
    """Median seconds of a forward and backward pass in each precision; the gradients are dropped."""
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


@lru_cache(maxsize=4)
def compiler_problem(device_type: str) -> str | None:
    """Why torch.compile does not work on this kind of device, in one line; None where it does.

    It is tried on a small function, once per process. The function is another one each time, for what the cache on
    disk holds would hide a compiler that has broken since.
    """
    length = 1 + time.time_ns() % 2**16
    try:
        with torch.no_grad():
            torch.compile(lambda x: x.sin() + 1)(torch.ones(length, device=device_type))
    except Exception as error:  # whatever dynamo, inductor and the compiler behind them raise: it is the answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return next((line.strip() for line in lines if re.search(r"\berror: ", line)), lines[0].strip())
    return None


def check_compiler(device: torch.device) -> None:
    """Raises ConfigError where torch.compile does not work, with the reason."""
    problem = compiler_problem(device.type)
    if problem:
        raise ConfigError(
            f"compile 'on' needs a compiler that works, and this one does not: {problem}. On a CPU install g++ or "
            "clang++ and Python's headers, in a path without blanks; or set compile to 'off'"
        )


@contextmanager
def explaining_memory(config: TrainConfig) -> Iterator[None]:
    """Raises RunError where memory runs out within, and says which setting to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        size, remedies = config.micro_batch_size or config.batch_size, []
        if size > 1:
            smaller = max(n for n in range(1, size // 2 + 1) if config.batch_size % n == 0)
            remedies.append(f"set micro_batch_size={smaller} (now {size} sequences pass the model at once)")
        if not config.gradient_checkpointing:
            remedies.append("set gradient_checkpointing=True")
        remedies.append("train a smaller model, or one of shorter context_length")
        raise RunError(f"out of memory ({str(error).splitlines()[0]:.200}): {'; or '.join(remedies)}") from error


def cuda_in_use() -> list[int]:
    """The CUDA devices whose generators a seed changes: all of them, once this process uses CUDA."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def memory_in_use(device: torch.device) -> int:
    """Bytes: the device's peak allocation on CUDA, what the driver holds on MPS, the process's resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    import psutil

    return psutil.Process().memory_info().rss
