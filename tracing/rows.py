"""What a trace holds: a row for every value that a pass made."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tracing.axes import Axes, letters

ROOT = __file__.rsplit("tracing", 1)[0]


def file_shown(file: str) -> str:
    """From the library's folder on; of a notebook's cell, which lives in a folder of the kernel's, its number."""
    return re.sub(r".*ipykernel_\d+[/\\](\d+)\.py", r"cell \1", file.removeprefix(ROOT))


class Statistics(NamedTuple):
    """Of a tensor's finite numbers: mean, sd, extremes, share of zeros; and how many are not finite."""

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
    """Measured in float64; all NaN for a tensor without a finite number."""
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
    """One value: of a statement, of a function's argument, or of a whole module's call.

    kind: "module", "input" or "statement". path: the module it happened in, "" for the model itself. owner: the
    function, or a module's class. depth: how deeply nested. number: which pass of the trace, from 1. turn: the loop
    turn it belongs to. claim: the axes that the comment gives; complaint: what is wrong with how it is written.
    seconds and flops, where asked for, are those of the statement with all that it called; nbytes is the tensor's own.
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
        """`(B=3, T=17, C=40)`, or what the value is if it is no tensor."""
        return self.value if self.shape is None else letters(self.claim or (), self.shape)

    def measure(self, x: Tensor, claim: Axes | None) -> None:
        self.shape, self.dtype = tuple(x.shape), str(x.dtype).removeprefix("torch.")
        self.nbytes, self.claim = x.nbytes, claim

    def describe(self, value: object) -> None:
        """A value that is no tensor: itself if it is plain, else its type."""
        self.value = repr(value) if isinstance(value, PLAIN) else type(value).__name__


PLAIN = (type(None), bool, int, float, str)


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The tensors inside tuples, lists, dicts and dataclasses, with the way to each, as in `.xt` or `[0]`."""
    if isinstance(value, (Tensor, *PLAIN)):  # most values: they need no further look
        yield name, value
        return
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = {f".{key}": part for key, part in zip(value._fields, value)}
    elif isinstance(value, (tuple, list)):
        parts = {f"[{index}]": part for index, part in enumerate(value)}
    elif isinstance(value, dict):
        parts = {f"[{key!r}]": part for key, part in value.items()}
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f".{field.name}": getattr(value, field.name) for field in fields(value)}
    else:
        yield name, value
        return
    for key, part in parts.items():
        yield from leaves(part, name + key)


def tensors(value: object) -> list[Tensor]:
    return [leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor)]
