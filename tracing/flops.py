"""FLOPs of the operations as they run, by PyTorch's own formulas.

PyTorch's `FlopCounterMode` does not serve here: it adds hooks to every module, and a trace promises to leave none.
"""

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from tracing.torch_internals import TorchDispatchMode


class FlopCounter(TorchDispatchMode):
    """Adds up FLOPs in `total`: two for each multiply-add."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:  # not in the registry
            self.total += sdpa_flop_count(*(x.shape for x in args[:3]))
        return out
