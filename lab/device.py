"""Where and in which precision to compute: looked up and measured, never assumed."""

import time
from contextlib import AbstractContextManager
from statistics import median

import torch

from config import ConfigError, TrainConfig


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


def pick_precision(model: torch.nn.Module, windows: torch.Tensor, config: TrainConfig) -> tuple[str, str]:
    """"fp32" or "bf16", and the reason in words. "auto" times forward and backward of `windows` in both, in turn."""
    device = windows.device
    if config.precision != "auto":
        return config.precision, "as set"
    if device.type == "mps":
        return "fp32", "bf16 autocast is not used on MPS"
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(4):
        for precision, times in seconds.items():
            start = time.perf_counter()
            with autocast(device, precision):
                loss = sum(model.losses(windows).values())
            loss.backward()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
            model.zero_grad(set_to_none=True)
    gain = median(seconds["fp32"][1:]) / median(seconds["bf16"][1:])
    return ("bf16" if gain > 1.05 else "fp32"), f"measured: bf16 runs at {gain:.2f} times the speed of fp32"


def memory_in_use(device: torch.device) -> int:
    """Bytes: the device's peak allocation on CUDA, what the driver holds on MPS, the process's resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    import psutil

    return psutil.Process().memory_info().rss
