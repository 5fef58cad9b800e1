"""One decoding step as a function of tensors: the same shapes for every token, so that it can be compiled.

On a CPU the compiler joins the step's hundred small operations into a few loops. On CUDA it also records their launches
once and replays them (CUDA graphs).
"""

import types
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from modules.cache import Cache, StepCache
from modules.transformer import Transformer

WINDOW = 16  # slots: attention reads the cache up to the next multiple of it
Layers = list[tuple[Tensor, Tensor]]
STEPS: WeakKeyDictionary[Transformer, dict[int, Callable]] = WeakKeyDictionary()  # by model, then by batch


def next_logits(model: Transformer, tokens: Tensor, positions: Tensor, key_positions: Tensor, layers: Layers) -> Tensor:
    """Logits (B, V) after tokens (B), which are at `positions` (B) of a cache with these layers.

    key_positions: 0 … S − 1, the slots that attention reads; positions lie below S.
    """
    return model(tokens[:, None], StepCache(layers, positions, key_positions))[:, -1]


def compiled_step(model: Transformer, batch: int, backend: str = "inductor") -> Callable:
    """`next_logits`, compiled for one model and batch size when it is first called.

    PyTorch counts compilations for each code object, and gives up after a few; so each gets a code object of its own.
    """
    known = STEPS.setdefault(model, {})
    if batch not in known:
        name = f"next_logits_{id(model)}_{batch}"
        own = types.FunctionType(next_logits.__code__.replace(co_name=name), globals(), name)
        on_cuda = model.embedding.weight.is_cuda and backend == "inductor"
        how = {"mode": "reduce-overhead"} if on_cuda else {}
        known[batch] = torch.compile(own, fullgraph=True, backend=backend, **how)
    return known[batch]


def capacity_for(length: int, limit: int) -> int:
    """Slots of a cache whose compiled steps reach `length` tokens: one more than the widest window, because a window of
    the whole cache would be another shape to the compiler."""
    return window_for(length, limit) + 1


def window_for(length: int, limit: int) -> int:
    """The slots that attention reads when the cache holds `length` tokens; the model accepts `limit`."""
    return min(-(-length // WINDOW) * WINDOW, limit)


class CompiledSteps:
    """Compiled steps that continue a cache, which must have `capacity_for` its last length."""

    def __init__(self, model: Transformer, cache: Cache, backend: str = "inductor"):
        self.model, self.cache = model, cache
        self.limit, self.window = model.config.position_limit, 0
        self.step = compiled_step(model, len(cache.lengths), backend)
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]
        for part in (part for layer in self.layers for part in layer):
            torch._dynamo.mark_dynamic(part, 2)
            if part.is_cuda:
                torch._dynamo.mark_static_address(part)  # CUDA graphs write into the cache itself
        self.positions = torch.tensor(cache.lengths, device=cache.device)  # (B)

    def __call__(self, newest: Tensor) -> Tensor:
        """The logits (B, V) after the newest tokens (B); the cache holds them afterwards."""
        window = window_for(max(self.cache.lengths) + 1, self.limit)
        if window != self.window:
            self.window, self.key_positions = window, torch.arange(window, device=self.cache.device)  # (S)
            torch._dynamo.mark_dynamic(self.key_positions, 0)
        if newest.is_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        logits = self.step(self.model, newest.contiguous(), self.positions, self.key_positions, self.layers)
        self.positions += 1
        self.cache.advance(1)
        return logits
