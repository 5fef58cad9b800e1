"""One call of one function, followed statement by statement."""

import ast
import itertools
import time
from types import FrameType

from torch import Tensor

from tracing.axes import Axes, claims, fitting
from tracing.rows import leaves, tensors
from tracing.statements import Statement, statements_of

COUNT = itertools.count()


class Visit:
    """One call of a function. path: the module that it works for."""

    def __init__(self, frame: FrameType, path: str, depth: int, backward: bool):
        self.frame, self.path, self.depth, self.backward = frame, path, depth, backward
        self.id = next(COUNT)
        self.function, self.file = frame.f_code.co_qualname, frame.f_code.co_filename
        self.statements = statements_of(frame.f_code)
        self.current: Statement | None = None
        self.turn = 0

    def begin(self, statement: Statement | None, slot: int, flops: int) -> None:
        """Starts a statement. slot: where its rows will go, in front of the rows of what it calls."""
        self.current, self.slot, self.flops, self.time = statement, slot, flops, time.perf_counter()
        self.stored: list[Tensor] = []  # the values that it stored into parts of tensors
        self.result: object = None  # of its last operation
        self.turn += statement is not None and statement.loop

    def values(self, returned: object) -> list[tuple[str, object]]:
        """The values, by name, that the finished statement assigned or returned."""
        statement = self.current
        if statement.assigns:
            return [(ast.unparse(target), self._assigned(target)) for target in statement.targets]
        if statement.returns:
            parts = list(returned) if statement.tuple_valued else [returned]
            named = [(_return_name(target), part) for target, part in zip(statement.targets, parts)]
            return named if tensors(returned) else []
        if statement.comment and self.result is not None:  # a call without a target whose comment gives axes
            return [(statement.text.partition("(")[0], self.result)]
        return []

    def _assigned(self, target: ast.expr) -> object:
        """The value of a variable or attribute, or the part of a tensor that was stored."""
        if isinstance(target, ast.Name):
            return self.frame.f_locals.get(target.id)
        if isinstance(target, ast.Attribute):
            return getattr(self._assigned(target.value), target.attr, None)
        return self.stored.pop(0) if self.stored else None

    def arguments(self) -> list[tuple[str, object]]:
        """The function's arguments by name, in the order of its definition, without self."""
        code, local = self.frame.f_code, self.frame.f_locals
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return [(name, local[name]) for name in names if name not in ("self", "ctx", "cls")]


Claimed = tuple[str, object, Axes | None]


def _return_name(target: ast.expr) -> str:
    return f"return {target.id}" if isinstance(target, ast.Name) else "return"


def claimed_values(statement: Statement, values: list[tuple[str, object]]) -> tuple[list[Claimed], str]:
    """Each tensor or plain value inside `values` with its name and axes; and a complaint if the counts do not match.

    One shape in the comment is for all tensors, several shapes are for one each. None may take a tensor's place.
    """
    found = [(name + suffix, leaf) for name, value in values for suffix, leaf in leaves(value)]
    said = claims(statement.comment)
    n_tensors = sum(isinstance(leaf, Tensor) for _, leaf in found)
    if not said:
        complaint = "" if said is None else f"its comment ({statement.comment}) can't be read as axes"
        return [(name, leaf, None) for name, leaf in found], complaint
    if not n_tensors:
        nothing = any(leaf is None for _, leaf in found)
        complaint = "" if nothing else f"its comment says ({', '.join(said[0][0])}), but no tensor is assigned"
        return [(name, leaf, None) for name, leaf in found], complaint
    places = [index for index, (_, leaf) in enumerate(found) if isinstance(leaf, Tensor)]
    if len(said) not in (1, n_tensors):
        places = [index for index, (_, leaf) in enumerate(found) if leaf is None or isinstance(leaf, Tensor)]
    if len(said) not in (1, len(places)):
        complaint = f"its comment gives {len(said)} shapes for {n_tensors} tensors"
        return [(name, leaf, None) for name, leaf in found], complaint
    each = dict(zip(places, said if len(said) > 1 else said * len(places)))
    parts = enumerate(found)
    return [(name, x, fitting(each[i], x.dim()) if isinstance(x, Tensor) else None) for i, (name, x) in parts], ""
