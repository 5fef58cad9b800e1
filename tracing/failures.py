"""Explains a failed pass: its statement, and the operands with their axes."""

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType

from tracing.axes import letters
from tracing.rows import file_shown
from tracing.statements import source_lines, statements_of


@dataclass(frozen=True)
class Operand:
    """An operation's argument. name: its variable or parameter, "" for an intermediate value."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name or '(no name)'}  {letters(self.axes, self.shape)}  {self.dtype}"


@dataclass(frozen=True)
class Failure:
    """An operation that raised an error. equation: that of einsum."""

    operation: str
    operands: tuple[Operand, ...]
    equation: str = ""

    def reason(self) -> str:
        """Which axes do not match; "" if that is not known."""
        if len({operand.dtype for operand in self.operands}) > 1 and self.operation in PRODUCTS:
            return "their types differ: " + " and ".join(operand.dtype for operand in self.operands)
        if len(self.operands) < 2:
            return ""
        if self.equation:
            return self._einsum_reason()
        a, b = self.operands[:2]
        if self.operation in PRODUCTS and a.shape and b.shape:
            return _unequal(a, -1, b, -1 if self.operation == "linear" or len(b.shape) == 1 else -2)
        if self.operation not in BROADCASTING:
            return ""
        for back in range(-1, -1 - min(len(a.shape), len(b.shape)), -1):
            if a.shape[back] != b.shape[back] and 1 not in (a.shape[back], b.shape[back]):
                return _unequal(a, back, b, back)
        return ""

    def _einsum_reason(self) -> str:
        """The first index with two sizes, or with no axis."""
        inputs = self.equation.replace(" ", "").partition("->")[0].split(",")
        seen: dict[str, tuple[Operand, int]] = {}
        for indices, operand in zip(inputs, self.operands):
            if "." in indices:
                return ""
            if len(indices) != len(operand.shape):
                return f"{indices!r} names {len(indices)} axes of {operand}"
            for i, index in enumerate(indices):
                other, j = seen.setdefault(index, (operand, i))
                if other.shape[j] != operand.shape[i]:
                    return f"index {index!r}: " + _unequal(other, j - len(other.shape), operand, i - len(indices))
        return ""


PRODUCTS = ("matmul", "linear", "bmm", "mm", "__matmul__")
BROADCASTING = (
    "add", "sub", "mul", "div", "true_divide", "where", "masked_fill", "add_", "sub_", "mul_", "div_", "__radd__",
    "__rsub__", "__rmul__", "__rdiv__",
)


def _unequal(a: Operand, i: int, b: Operand, j: int) -> str:
    if a.shape[i] == b.shape[j]:
        return ""
    return f"{_axis(a, i)}, meets {_axis(b, j)}"


def _axis(operand: Operand, index: int) -> str:
    place = {-1: "the last axis", -2: "the last axis but one"}.get(index, f"axis {len(operand.shape) + index}")
    named = len(operand.axes) == len(operand.shape) and operand.axes[index]
    return f"{place} of {operand.name or 'an unnamed value'}, {f'{named}=' if named else ''}{operand.shape[index]}"


def explain(
    error: Exception, failure: Failure | None, followed: Callable[[FrameType], bool],
    path_of: Callable[[FrameType], str | None],
) -> None:
    """Adds a note to `error`: the model's statements that led to it, and the shapes of the failed operation."""
    way, path, step = [], None, error.__traceback__
    while step is not None:
        found = path_of(step.tb_frame)
        path = found if found is not None else path
        if path is not None and followed(step.tb_frame):
            way.append(_place(path, step.tb_frame.f_code, step.tb_lineno))
        step = step.tb_next
    if not way:
        return
    note = ["In the model, from the outside in:", *way]
    if failure and failure.operands:
        note += [f"{failure.operation} was given:", *(f"    {operand}" for operand in failure.operands)]
        note += [f"{reason}; make them equal" for reason in [failure.reason()] if reason]
    error.add_note("\n".join(note))


def _place(path: str, code: CodeType, line: int) -> str:
    statement = statements_of(code).get(line)
    text = statement.text if statement else "".join(source_lines(code.co_filename)[line - 1 : line]).strip()
    comment = f"  # {statement.comment}" if statement and statement.comment else ""
    return f"    {path or 'model'}  {file_shown(code.co_filename)}:{line}  {text}{comment}"
