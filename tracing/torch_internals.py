"""The private names of PyTorch that tracing needs. No other file of tracing uses one.

`DisableTorchFunction`: inside it operations do not call the recorder. The public way, a flag that the recorder's
`__torch_function__` reads, costs a Python call for each operation and each look at a shape.
`TorchDispatchMode`: sees every operation as it runs, to count its FLOPs. It has no public module.
`_orig_mod` and `_compiled_call_impl`: where `torch.compile(model)` and `model.compile()` keep what they compiled.
"""

from torch import nn
from torch._C import DisableTorchFunction
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DisableTorchFunction", "TorchDispatchMode", "is_compiled", "original"]


def original(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given; the module itself if it is not compiled."""
    return getattr(module, "_orig_mod", module)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module or one of its parts runs compiled."""
    return any(hasattr(part, "_orig_mod") or part._compiled_call_impl for part in module.modules())
