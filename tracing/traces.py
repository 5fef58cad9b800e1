"""A traced pass: `with Trace(model) as shapes: model(tokens)`, then shapes["blocks.0.attention"], shapes.check()."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import nn

from settings.errors import GlassboxError
from settings.messages import suggest
from tracing.axes import AxesError
from tracing.checks import mismatches
from tracing.glossary import GLOSSARY
from tracing.recorder import Measures, Recorder
from tracing.rows import Row
from tracing.text import table
from tracing.torch_internals import is_compiled, original


class TraceError(GlassboxError):
    """What can't be traced, or is not in the trace."""


def own_letters(model: nn.Module) -> dict[str, str]:
    """The axis letters that the classes of a model's modules declare, each with its meaning.

    Raises AxesError for a letter that has another meaning already.
    """
    found: dict[str, str] = {}
    for module in model.modules():
        for letter, meaning in getattr(module, "axis_letters", {}).items():
            other = (GLOSSARY | found).setdefault(letter, meaning)
            if other != meaning:
                raise AxesError(
                    f"{type(module).__name__}.axis_letters: {letter!r} already means {other!r}; take another letter"
                )
            found[letter] = meaning
    return found


class Trace:
    """Everything that happens in `model` inside the `with` block: a row per value, in the order of the source.

    values adds statistics of every tensor, gradients those of its gradient if the backward pass runs in the block
    too, costs seconds and FLOPs; keep holds copies of the tensors. letters adds axis letters of your own to the
    glossary, as in {"R": "rank"}; so does the attribute `axis_letters` of a module's class. A compiled model is traced
    as what it was compiled from.

    Raises TraceError for what is no module. An exception in the model passes through, with a note of the statement
    and the shapes that met there.
    """

    def __init__(
        self, model: nn.Module, *, values: bool = False, gradients: bool = False, costs: bool = False,
        keep: bool = False, letters: dict[str, str] | None = None,
    ):
        if not isinstance(model, nn.Module):
            raise TraceError(f"only a torch.nn.Module can be traced, not {type(model).__name__}: give the model itself")
        self.model = original(model)
        self.glossary = GLOSSARY | own_letters(model) | (letters or {})
        self.known: dict[str, int] = getattr(self.model, "axis_sizes", {})
        self._compiled = is_compiled(model)
        self._recorder = Recorder(self.model, Measures(values, gradients, costs, keep))
        self.flows, self.ran = self._recorder.flows, self._recorder.ran
        self.rows = self._recorder.rows

    def __enter__(self) -> "Trace":
        self._eager = contextlib.ExitStack()
        if self._compiled:
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        self._recorder.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._recorder.stop(error)
        self._eager.close()

    # --- what was seen ----------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, path: str) -> "Trace":
        """The rows of one module, as in shapes["blocks.0.attention"], or of one variable, as in
        shapes["blocks.0.attention.q"]. Raises TraceError if there are none."""
        rows = [row for row in self.rows if row.path == path or row.path.startswith(path + ".")]
        if not rows:
            module, _, variable = path.rpartition(".")
            rows = [row for row in self.rows if row.path == module and row.variable == variable]
        if not rows:
            raise TraceError(f"nothing called {path!r} was traced; {suggest(path, {row.path for row in self.rows})}")
        part = copy.copy(self)
        part.rows = rows
        return part

    @property
    def shape(self) -> tuple[int, ...]:
        """The first tensor's shape, as in shapes["blocks.0.attention.q"].shape. Raises TraceError if there is none."""
        found = next((row.shape for row in self.rows if row.shape is not None), None)
        if found is None:
            raise TraceError("no tensor was traced here; name one, as in shapes['blocks.0.mlp.hidden'].shape")
        return found

    def mismatches(self, distinct: bool = False) -> list[str]:
        """A sentence for each wrong axis comment, once per comment even if its line ran several times."""
        passes = {(row.number, row.backward): [] for row in self.rows}
        for row in self.rows:
            passes[row.number, row.backward].append(row)
        found = (text for rows in passes.values() for text in mismatches(rows, self.glossary, self.known, distinct))
        return list(dict.fromkeys(found))

    def uncommented(self) -> list[str]:
        """The statements that make a tensor and lack an axis comment. Storing into part of a tensor needs none."""
        silent = (
            f"{row.where}: {row.text}"
            for row in self.rows
            if row.kind == "statement" and row.shape is not None and row.claim is None and "[" not in row.variable
        )
        return list(dict.fromkeys(silent))

    def check(self, distinct: bool = False) -> str:
        """Compares every axis comment with the sizes of its pass: a letter has one size, ranks agree, and the letters
        are in the glossary. A model's `axis_sizes`, if it has them, overrule the comments. distinct: all sizes were
        chosen different, so two letters of one size are wrong too.

        Returns how many comments were checked. Raises AxesError with every mismatch.
        """
        if found := self.mismatches(distinct):
            raise AxesError(f"axis comments that do not hold: {len(found)}\n  " + "\n  ".join(found))
        checked = {(row.where, row.variable) for row in self.rows if row.kind == "statement" and row.claim is not None}
        return f"{len(checked)} axis comments checked, all true"

    def __str__(self) -> str:
        return table(self.rows)

    __repr__ = __str__
