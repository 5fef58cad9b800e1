"""Where to compute, with which random numbers, and what to do when memory runs out."""

import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import torch

from settings.errors import ConfigError, RunError

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED")
# How cuBLAS must be set up for products that are the same each time; it is read at the first product of a process
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
CONTAINER = Path("/sys/fs/cgroup")  # what Linux tells of the container that this process runs in


def pick_device(wanted: str) -> torch.device:
    """"auto" prefers CUDA, then MPS, then the CPU. Raises ConfigError for a named device that is absent."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[wanted]:
        there = ", ".join(name for name, is_there in present.items() if is_there)
        raise ConfigError(f"device {wanted!r} is not available here; available: {there}, or leave it at 'auto'")
    return torch.device(wanted)


def precisions(device: torch.device) -> list[str]:
    """The precisions in which this device can train. TF32 needs a GPU of compute capability 8 (Ampere) or more."""
    if device.type != "cuda":
        return ["fp32", "bf16"]
    tf32 = torch.cuda.get_device_capability(device) >= (8, 0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ["fp32", *["tf32"] * tf32, *["bf16"] * bf16]


def check_precision(wanted: str, device: torch.device) -> None:
    """Raises ConfigError for a precision in which this device can't train."""
    there = precisions(device)
    if wanted not in ("auto", *there):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"device {device.type!r}"
        choices = ", ".join(map(repr, there))
        raise ConfigError(f"precision {wanted!r} is not available on {name}; choose {choices}, or leave it at 'auto'")


def unmeasured_precision(device: torch.device) -> str:
    """The precision of a training that left the choice open, where nothing was measured: fp32, or TF32 on CUDA."""
    return "tf32" if "tf32" in precisions(device) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context for the forward pass of a training step."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def device_name(device: torch.device) -> str:
    """The name of the GPU or the CPU, as in "NVIDIA H100 80GB HBM3"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {cpu_name()}"


@cache
def cpu_name() -> str:
    """The CPU's model as its maker calls it; where the system does not tell, its architecture."""
    facts = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", facts.read_text(errors="replace"), re.M) if facts.exists() else None
    return named[1].strip() if named else platform.processor() or platform.machine()


@contextmanager
def matmul_precision(device: torch.device, precision: str) -> Iterator[None]:
    """The context for both passes of a step: inside, CUDA multiplies float32 matrices in TF32, unless `precision` is
    "fp32"; afterwards as before."""
    if device.type != "cuda":
        yield
        return
    # the older of two interfaces: it sets the newer one too, and the compiler of torch 2.11 reads both
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_repeatable(device: torch.device, precision: str) -> bool:
    """Whether a training step gives the same numbers each time, bit for bit.

    On CUDA it does not in bf16: the backward passes of the attention kernels that are fast there add up in any order.
    """
    return device.type != "cuda" or precision != "bf16"


@contextmanager
def repeatable(device: torch.device, precision: str) -> Iterator[None]:
    """The context for both passes of a step: inside, CUDA uses algorithms that give the same numbers each time, where
    `is_repeatable` says so; afterwards those that it used before. Raises RunError for an operation without one."""
    if device.type != "cuda" or not is_repeatable(device, precision):
        yield
        return
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it is for finding mistakes, and takes time
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise RunError(
            f"on CUDA in {precision} a step must give the same numbers each time, and this model's does not "
            f"({str(error).splitlines()[0]:.200}); set precision to 'bf16', or device to 'cpu'"
        ) from error
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Inside, random numbers depend on (seed, step) alone; afterwards the generators are as they were before."""
    with seeded_by(seed * 1_000_003 + step, device):
        yield


@contextmanager
def seeded_by(seed: int, device: torch.device) -> Iterator[None]:
    """The same for a seed as torch.manual_seed takes it. Only the generators of the CPU and of this device change.

    torch.manual_seed itself asks every backend, and takes two milliseconds where one of them is not there.
    """
    generators = generators_of(device)
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states):
            generator.set_state(state)


def generators_of(device: torch.device) -> list[torch.Generator]:
    """The generators that computing on this device draws from."""
    if device.type == "cuda":
        torch.cuda.init()  # they exist from then on
        index = torch.cuda.current_device() if device.index is None else device.index
        return [torch.default_generator, torch.cuda.default_generators[index]]
    if device.type == "mps":
        from torch.mps import _get_default_mps_generator  # private, and torch has no public name for it

        return [torch.default_generator, _get_default_mps_generator()]
    return [torch.default_generator]


def memory_in_use(device: torch.device) -> int:
    """Bytes: the peak allocation on CUDA, the driver's allocation on MPS, the process's resident set on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    import psutil

    return psutil.Process().memory_info().rss


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the device or of the machine."""
    return isinstance(error, MemoryError) or bool(isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)))


def training_memory_limit(device: torch.device) -> int:
    """Bytes that one training can use on "cpu" or "cuda": what is free, and what this process holds there already.

    On the CPU a limit of the container counts, too (Linux, cgroup version 2).
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    import psutil

    free, limit = psutil.virtual_memory().available, CONTAINER / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()).isdigit():
        used = int((CONTAINER / "memory.current").read_text())
        pages = re.search(r"^inactive_file (\d+)$", (CONTAINER / "memory.stat").read_text(), re.M)  # can be let go
        free = min(free, int(most) - used + int(pages[1] if pages else 0))
    return max(0, free) + memory_in_use(device)


@contextmanager
def remedy_for_memory(remedy: str | Callable[[], str]) -> Iterator[None]:
    """Raises RunError with this remedy, a text or a function that gives it, when memory runs out inside the `with`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = remedy() if callable(remedy) else remedy
        raise RunError(f"out of memory ({str(error).splitlines()[0]:.200}): {said}") from error
