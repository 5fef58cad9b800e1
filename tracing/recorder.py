"""The recorder follows a model's pass and makes a row for every statement.

It combines three sources. Python's trace function tells which statement runs and what it assigns. Forward hooks tell
which module is called. A `TorchFunctionMode` sees every tensor operation: its operands, its result, and what is stored
into parts of tensors. All three are active only between `start` and `stop`.
"""

import inspect
import itertools
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import cache, partial
from types import FrameType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tracing.axes import Axes
from tracing.checks import axis_sizes
from tracing.failures import Failure, Operand, explain
from tracing.flops import FlopCounter
from tracing.flow import Flow, Named
from tracing.glossary import LOCAL
from tracing.rows import Row, leaves, statistics, tensors
from tracing.tensor_table import TensorTable
from tracing.torch_internals import DisableTorchFunction
from tracing.visits import Claimed, Visit, claimed_values

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
HERE = __file__.removesuffix("recorder.py")
GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


@cache
def is_own(file: str) -> bool:
    """Whether this file may hold code of a model: it is not a library's, and none of the tracer's."""
    return not file.startswith((*LIBRARIES, HERE, "<frozen"))


class Measures(NamedTuple):
    """What a recorder measures besides shapes.

    values, gradients: statistics of each tensor and of its gradient. costs: seconds and FLOPs. keep: copies of the
    tensors.
    """

    values: bool = False
    gradients: bool = False
    costs: bool = False
    keep: bool = False


SHAPES_ALONE = Measures()


class Recorder(TorchFunctionMode):
    """Fills `rows` with the values of `model` between `start` and `stop`, and `flows` with the graphs of its modules.

    finished: called with each row as soon as it is complete; with a module's row when its call begins.
    """

    def __init__(
        self, model: nn.Module, measured: Measures = SHAPES_ALONE, finished: Callable[[Row], None] | None = None
    ):
        super().__init__()
        self.model, self.measured, self.finished = model, measured, finished
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.sizes = {path: sum(p.numel() for p in module.parameters()) for path, module in model.named_modules()}
        self.rows: list[Row] = []
        self.flows: dict[str, Flow] = {}
        self.ran: set[tuple[str, str, int]] = set()  # path, file, line: of a function, and of a statement's start
        self.number = 0

    # --- on and off -------------------------------------------------------------------------------------------

    def start(self, inside: bool = False) -> None:
        """Starts recording. inside: the model's own call has begun already; only its parts will be recorded."""
        self.visits: list[Visit] = []
        self.calls: list[tuple[Row, float, int]] = []  # the modules that are running
        self.scopes: list[Flow] = []
        self.contexts: dict[int, str] = {}  # a hand-written function's context -> where it was applied
        self.names: TensorTable[tuple[str, Axes]] = TensorTable()  # a tensor's variable and axes
        for name, tensor in itertools.chain(self.model.named_parameters(), self.model.named_buffers()):
            self.names.set(tensor, (name, ()))
        self.failure: Failure | None = None
        self.paused = False  # while the recorder itself works, calls are not followed
        self.handles = [
            handle
            for module in itertools.islice(self.model.modules(), int(inside), None)
            for handle in (
                module.register_forward_pre_hook(self._called, with_kwargs=True),
                module.register_forward_hook(self._returned, with_kwargs=True, always_call=True),
            )
        ]
        self.counter = FlopCounter()
        self.__enter__()
        if self.measured.costs:
            self.counter.__enter__()
        self.tracer_before = sys.gettrace()
        sys.settrace(self._entered)

    def stop(self, error: BaseException | None = None) -> None:
        """Stops recording. Adds a note to `error`: where in the model it happened, with which shapes."""
        sys.settrace(self.tracer_before)
        if self.measured.costs:
            self.counter.__exit__(None, None, None)
        self.__exit__(None, None, None)
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        if isinstance(error, Exception):
            explain(error, self.failure, self._is_followed, self._path_of)

    # --- statements, by Python's trace function ---------------------------------------------------------------

    def _is_followed(self, frame: FrameType) -> bool:
        """Whether this is code of the model: not of a library, and not part of a statement, such as a comprehension."""
        code = frame.f_code
        return is_own(code.co_filename) and not code.co_name.startswith("<") and not code.co_flags & GENERATORS

    def _path_of(self, frame: FrameType) -> str | None:
        """The path of the module whose method this is; None for other functions."""
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        return self.paths.get(id(owner)) if isinstance(owner, nn.Module) else None

    def _entered(self, frame: FrameType, event: str, argument: object):
        earlier = self.tracer_before(frame, event, argument) if self.tracer_before else None
        if self.paused or not self._is_followed(frame):
            return earlier
        with DisableTorchFunction():
            visit = self._visit(frame)
        if visit is None:
            return earlier
        # a debugger or a coverage tool that was active before still sees everything
        return partial(self._traced, visit, [earlier] if earlier else [])

    def _visit(self, frame: FrameType) -> Visit | None:
        """The visit that this call starts; None if it does not work for the model."""
        running = bool(self.visits or self.calls)
        context = frame.f_locals.get("ctx")
        path, backward = self._path_of(frame), False
        if path is None and self.visits:
            path = self.visits[-1].path
        elif path is None and context is not None:  # the gradient of a hand-written function
            path, backward = self.contexts.get(id(context)), True
        if path is None:
            return None
        if not running and not backward:
            self.number += 1
        if context is not None:
            self.contexts[id(context)] = path
        visit = Visit(frame, path, len(self.visits) + len(self.calls), backward)
        self.visits.append(visit)
        self._open(path)
        line = frame.f_code.co_firstlineno
        self.ran.add((path, visit.file, line))
        for name, value in visit.arguments():
            for suffix, leaf in leaves(value):
                if isinstance(leaf, Tensor):
                    if self.names.get(leaf) is None:
                        self.names.set(leaf, (name + suffix, ()))
                    self.scopes[-1].enter(name + suffix, leaf, self._known_axes(leaf))
                    self._add(visit, "input", (name + suffix, leaf, self._known_axes(leaf)), line=line)
        return visit

    def _traced(self, visit: Visit, earlier: list, frame: FrameType, event: str, argument: object):
        earlier[:] = [local for local in (function(frame, event, argument) for function in earlier) if local]
        with DisableTorchFunction():
            self._follow(visit, frame, event, argument)
        return partial(self._traced, visit, earlier)

    def _follow(self, visit: Visit, frame: FrameType, event: str, argument: object) -> None:
        if event == "line":
            statement = visit.statements.get(frame.f_lineno)
            if statement is None or statement is not visit.current:
                self._finish(visit, None)
                visit.begin(statement, len(self.rows), self.counter.total)
                self.ran.add((visit.path, visit.file, statement.first if statement else frame.f_lineno))
        elif event == "exception":
            visit.current = None  # it has assigned nothing
        elif event == "return":
            self._finish(visit, argument)
            scope = self._close(argument)
            if self.scopes and self.scopes[-1] is not scope:  # a method of the part was called, not the part itself
                inputs = tensors([value for _, value in visit.arguments()])
                self.scopes[-1].call(visit.path, visit.function, inputs, self._named(argument))
            self.visits.remove(visit)

    def _finish(self, visit: Visit, returned: object) -> None:
        """Adds the rows of the finished statement."""
        statement = visit.current
        if statement is None:
            return
        parts, complaint = claimed_values(statement, visit.values(returned))
        visit.current = None
        seconds = time.perf_counter() - visit.time
        for index, part in enumerate(parts):
            row = self._add(
                visit, "statement", part, slot=visit.slot + index, line=statement.first, text=statement.text,
                turn=(visit.id, visit.turn), complaint="" if index else complaint,
            )
            if self.measured.costs:
                row.seconds, row.flops = seconds, self.counter.total - visit.flops

    # --- modules, by forward hooks ----------------------------------------------------------------------------

    def _called(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.paused = True
        if not self.visits and not self.calls:
            self.number += 1
        path = self.paths[id(module)]
        row = Row(
            "module", path, type(module).__name__, len(self.visits) + len(self.calls), self.number,
            variable=type(module).__name__, parameters=self.sizes[path],
        )
        self.rows.append(row)
        self._emit(row)
        self.calls.append((row, time.perf_counter(), self.counter.total))
        self._open(path, called=True)
        self.paused = False

    def _returned(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        row, start, flops = self.calls.pop()
        if self.measured.costs:
            row.seconds, row.flops = time.perf_counter() - start, self.counter.total - flops
        self.paused = True
        with DisableTorchFunction():
            self._close(output)
            if self.scopes:
                self.scopes[-1].call(row.path, row.owner, tensors((*args, *kwargs.values())), self._named(output))
            first = next(iter(tensors(output)), None)
            if first is not None:
                self._measure(row, first, self._known_axes(first))
        self.paused = False

    # --- operations, by the TorchFunctionMode -----------------------------------------------------------------

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        try:
            result = func(*args, **kwargs)
        except Exception:
            if self.failure is None:
                operands = [self._operand(x) for x in tensors((*args, *kwargs.values()))]
                equation = args[0] if func is torch.einsum and isinstance(args[0], str) else ""
                self.failure = Failure(func.__name__, tuple(operands), equation)
            raise
        for visit in self.visits:
            visit.result = result
        if self.visits and func is Tensor.__setitem__:
            self.visits[-1].stored.append(args[2])
        if self.scopes:
            self.paused = True
            inputs, outputs = tensors((*args, *kwargs.values())), tensors(result)
            self.scopes[-1].operate(func.__name__, inputs, outputs)
            self.paused = False
        return result

    def _operand(self, x: Tensor) -> Operand:
        name, axes = self.names.get(x) or ("", ())
        if len(axes) != x.dim():  # names its axes by their sizes, with all letters that have this size
            said: dict[int, set[str]] = {}
            for row in self.rows[-200:]:
                for axis, n in axis_sizes(row):
                    said.setdefault(n, set()).update({axis} if axis.isalpha() else ())
            axes = tuple("|".join(sorted(said.get(n, ()))) for n in x.shape)
        return Operand(name, axes, tuple(x.shape), str(x.dtype).removeprefix("torch."))

    # --- rows -------------------------------------------------------------------------------------------------

    def _open(self, path: str, called: bool = False) -> None:
        """Starts the graph of the module at `path`. A module's methods continue the graph of its call."""
        same = bool(self.scopes) and self.scopes[-1].path == path
        self.scopes.append(self.scopes[-1] if same else Flow(path))
        if called or path not in self.flows:  # a method called alone does not replace the graph of the call
            self.flows[path] = self.scopes[-1]

    def _close(self, returned: object) -> Flow:
        scope = self.scopes.pop()
        scope.leave([(name, x) for name, x, _ in self._named(returned)])
        return scope

    def _named(self, value: object) -> Named:
        """The tensors inside a value, with their places and axes, without axes whose letters are local."""
        known = [(name, x, self._known_axes(x)) for name, x in leaves(value) if isinstance(x, Tensor)]
        return [(name, x, None if LOCAL & set("".join(axes or ())) else axes) for name, x, axes in known]

    def _known_axes(self, x: Tensor) -> Axes | None:
        """The axes that the tensor's last comment gave."""
        _, axes = self.names.get(x) or ("", ())
        return axes if axes and len(axes) == x.dim() else None

    def _add(self, visit: Visit, kind: str, claimed: Claimed, slot: int | None = None, **known) -> Row:
        """Adds a row for one value of a visit, at `slot` among the rows or at their end."""
        name, value, claim = claimed
        row = Row(
            kind, visit.path, visit.function, visit.depth, self.number, file=visit.file, variable=name,
            backward=visit.backward, **known,
        )
        self.rows.insert(len(self.rows) if slot is None else slot, row)
        if isinstance(value, Tensor):
            self._measure(row, value, claim)
            if kind == "statement":
                self.names.set(value, (name, claim or self._known_axes(value) or ()))
                self.scopes[-1].name(value, claim, name)
        else:
            row.describe(value)
        self._emit(row)
        return row

    def _emit(self, row: Row) -> None:
        """Hands a row to `finished`, whose own operations are not recorded."""
        if self.finished:
            paused, self.paused = self.paused, True
            self.finished(row)
            self.paused = paused

    def _measure(self, row: Row, x: Tensor, claim: Axes | None) -> None:
        with DisableTorchFunction(), torch.no_grad():
            row.measure(x, claim)
            if self.measured.values:
                row.statistics = statistics(x)
            if self.measured.keep:
                row.tensor = x.detach().clone()
        if self.measured.gradients and x.requires_grad and row.kind == "statement":
            self.handles.append(x.register_hook(partial(self._gradient, row)))

    def _gradient(self, row: Row, gradient: Tensor) -> None:
        with DisableTorchFunction(), torch.no_grad():
            row.gradient = statistics(gradient)
