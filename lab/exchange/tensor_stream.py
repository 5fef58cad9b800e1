"""Writes a safetensors file tensor by tensor, so that only one of them is in memory at a time.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, the header in JSON, then
the numbers of each tensor, in the header's order and without gaps.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lab.files.atomic import atomic_path
from settings.errors import RunError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # the types of weights that are read
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8  # of the header's length, in bytes


class Planned(NamedTuple):
    """A tensor that is to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_stream(
    path: Path, plan: Mapping[str, Planned], make: Callable[[str], Tensor], facts: Mapping[str, str]
) -> None:
    """Writes the planned tensors, each as `make(name)` gives it, with `facts` in the header, by atomic rename.

    Raises RunError for a tensor that is not finite; the file is not there then.
    """
    names = sorted(plan, key=lambda name: (-plan[name].dtype.itemsize, name))  # keeps every tensor aligned
    header, end = {"__metadata__": dict(facts)}, 0
    for name in names:
        start, end = end, end + plan[name].n_bytes
        header[name] = {"dtype": NAMES[plan[name].dtype], "shape": plan[name].shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = make(name).to(plan[name].dtype).contiguous()
            if not tensor.isfinite().all():
                raise RunError(f"the weight {name!r} holds NaN or infinity: it is damaged, or its training diverged")
            file.write(memoryview(tensor.flatten().view(torch.uint8).numpy()))
