"""The rows of a trace: one for each value of a pass."""

import re
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from tracing.axes import Axes, letters

ROOT = __file__.rsplit("tracing", 1)[0]


@cache
def file_shown(file: str) -> str:
    """The path from the repository's folder on; for a cell of a notebook its number.

    The Jupyter kernel gives each cell a file of its own, named ipykernel_1234/5678.py.
    """
    return re.sub(r".*ipykernel_\d+[/\\](\d+)\.py", r"cell \1", file.removeprefix(ROOT))


class Statistics(NamedTuple):
    """Mean, standard deviation, extremes and share of zeros of a tensor's finite numbers; how many are not finite."""

    mean: float
    std: float
    min: float
    max: float
    zeros: float
    nonfinite: int

    def __str__(self) -> str:
        shown = f"mean {self.mean:.3g} sd {self.std:.3g} in [{self.min:.3g}, {self.max:.3g}]"
        shown += f" zeros {self.zeros:.0%}" if self.zeros else ""
        return shown + (f" NOT FINITE: {self.nonfinite}" if self.nonfinite else "")


def statistics(x: Tensor) -> Statistics:
    """The statistics of a tensor, in float64; NaN if no number is finite."""
    x = x.detach()
    finite = x[x.isfinite()].double() if x.is_floating_point() else x.flatten().double()
    nonfinite = x.numel() - finite.numel()
    if not finite.numel():
        return Statistics(*[float("nan")] * 4, 0.0, nonfinite)
    std = finite.std(correction=0)
    numbers = torch.stack((finite.mean(), std, finite.min(), finite.max(), (finite == 0).double().mean()))
    return Statistics(*numbers.tolist(), nonfinite)


@dataclass(eq=False)
class Row:
    """The value of a statement, of a function's argument, or of a module's call.

    kind: "module", "input" or "statement". path: its module, "" for the model itself. owner: the function, or the class
    of the module. depth: how deeply nested. number: the pass of the trace, from 1. turn: the turn of the loop. claim:
    the axes in the comment. complaint: why the comment can't be read. seconds and flops: of the statement with all that
    it called. nbytes: of the tensor alone.
    """

    kind: str
    path: str
    owner: str
    depth: int
    number: int
    variable: str
    file: str = ""
    line: int = 0
    text: str = ""
    backward: bool = False
    turn: object = None
    claim: Axes | None = None
    complaint: str = ""
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    value: str = ""
    nbytes: int = 0
    parameters: int = 0
    seconds: float | None = None
    flops: int | None = None
    statistics: Statistics | None = None
    gradient: Statistics | None = None
    tensor: Tensor | None = None

    @property
    def where(self) -> str:
        return f"{file_shown(self.file)}:{self.line}" if self.line else self.path or self.owner

    @property
    def axes(self) -> str:
        """`(B=3, T=17, C=40)`, or the value if it is not a tensor."""
        return self.value if self.shape is None else letters(self.claim or (), self.shape)

    def measure(self, x: Tensor, claim: Axes | None) -> None:
        self.shape, self.dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
        self.nbytes, self.claim = x.nbytes, claim

    def describe(self, value: object) -> None:
        """Notes a value that is not a tensor: the value if it is a number or a text, else its type."""
        self.value = repr(value) if isinstance(value, PLAIN) else type(value).__name__


PLAIN = (type(None), bool, int, float, str)


def leaves(value: object, name: str = "") -> list[tuple[str, object]]:
    """The values inside tuples, lists, dicts and dataclasses, each with its place, as in `.xt` or `[0]`."""
    if isinstance(value, (Tensor, *PLAIN)):  # most values: they need no further look
        return [(name, value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = {f".{key}": part for key, part in zip(value._fields, value)}
    elif isinstance(value, (tuple, list)):
        parts = {f"[{index}]": part for index, part in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f".{field.name}": getattr(value, field.name) for field in fields(value)}
    else:
        return [(name, value)]
    found = []
    for key, part in parts.items():
        found += leaves(part, name + key)
    return found


def tensors(value: object) -> list[Tensor]:
    """The tensors inside, in the order of `leaves`."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PLAIN):
        return []
    if type(value) not in (tuple, list):
        return [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
    found = []
    for part in value:  # the arguments of every operation: most parts need no call
        if isinstance(part, Tensor):
            found.append(part)
        elif not isinstance(part, PLAIN):
            found += tensors(part)
    return found
