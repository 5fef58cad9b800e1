"""What a piece of work takes: the bytes alive at its fullest moment, and its largest tensor."""

import gc
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode


def peak_bytes(work: Callable[[], None]) -> int:
    """The most bytes that `work` had allocated for tensors at one time, temporaries inside operations included."""
    gc.disable()  # else an earlier test's memory may be released in the middle, and counted
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            work()
    finally:
        gc.enable()
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result has had."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def contrast(first: tuple, second: tuple) -> float:
    """The ratio that WCAG 2.1 defines for two colours of 0..255."""

    def luminance(colour):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
