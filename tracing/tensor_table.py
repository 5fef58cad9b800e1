"""A table by tensors, which keeps none of them alive."""

import weakref
from typing import Generic, TypeVar

from torch import Tensor

Entry = TypeVar("Entry")


class TensorTable(Generic[Entry]):
    """An entry for each tensor, found by the object that it is, whatever its numbers are.

    torch.utils.weak.WeakTensorKeyDictionary does the same in five calls of Python functions. Python's trace function
    sees each of them, which takes longer than the lookup itself.
    """

    def __init__(self):
        self.entries: dict[int, tuple[weakref.ref, Entry]] = {}

    def get(self, tensor: Tensor) -> Entry | None:
        found = self.entries.get(id(tensor))
        return found[1] if found and found[0]() is tensor else None  # else the tensor that had this id is gone

    def set(self, tensor: Tensor, entry: Entry) -> None:
        self.entries[id(tensor)] = weakref.ref(tensor), entry
