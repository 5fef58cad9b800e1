"""The recorder: runs beside a model's pass and writes a row for every statement.

Three views of the same pass come together. Python's trace function says which statement of which function runs and
what it assigned, so that no value is guessed. Forward hooks say which module is called. A `TorchFunctionMode` sees
every tensor operation: what was stored where, who computed from whom, and the operands of one that fails. All three
are there between `start` and `stop` alone.
"""

import inspect
import itertools
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from torch.utils.weak import WeakTensorKeyDictionary

from tracing.axes import Axes
from tracing.checking import pairs
from tracing.flow import Flow, Named
from tracing.glossary import LOCAL
from tracing.mismatch import Failure, Operand, explain
from tracing.rows import Row, leaves, statistics, tensors
from tracing.visits import Visit, claimed

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
HERE = __file__.removesuffix("recorder.py")
GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class FlopCounter(TorchDispatchMode):
    """Adds up multiplications and additions, two to a multiply-add, by PyTorch's own formulas."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:  # not in the registry
            self.total += sdpa_flop_count(*(x.shape for x in args[:3]))
        return out


class Recorder(TorchFunctionMode):
    """Fills `rows` with what happens in `model` between `start` and `stop`, and `flows` with who computed from whom.

    values, gradients: with statistics of each. costs: with seconds and FLOPs. keep: with the tensors themselves.
    finished is called with each row as soon as it is known, with a module's when its call begins.
    """

    def __init__(
        self, model: nn.Module, *, values: bool = False, gradients: bool = False, costs: bool = False,
        keep: bool = False, finished: Callable[[Row], None] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.finished = model, finished
        self.values, self.gradients, self.costs, self.keep = values, gradients, costs, keep
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.rows: list[Row] = []
        self.flows: dict[str, Flow] = {}
        self.ran: set[tuple[str, str, int]] = set()  # path, file, line: of a function, and of a statement's start
        self.number = 0

    # --- on and off -------------------------------------------------------------------------------------------

    def start(self, inside: bool = False) -> None:
        """inside: the model's own call is under way already, only its parts' are still to come."""
        self.visits: list[Visit] = []
        self.calls: list[tuple[Row, float, int]] = []  # the modules that are running
        self.scopes: list[Flow] = []
        self.contexts: dict[int, str] = {}  # a hand-written function's context -> where it was applied
        self.names: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # tensor -> its variable and axes
        for name, tensor in itertools.chain(self.model.named_parameters(), self.model.named_buffers()):
            self.names[tensor] = (name, ())
        self.failure: Failure | None = None
        self.muted = False
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
        if self.costs:
            self.counter.__enter__()
        self.tracer_before = sys.gettrace()
        sys.settrace(self._entered)

    def stop(self, error: BaseException | None = None) -> None:
        """Takes everything off again; adds to `error` where in the model it happened, and which shapes met there."""
        sys.settrace(self.tracer_before)
        if self.costs:
            self.counter.__exit__(None, None, None)
        self.__exit__(None, None, None)
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        if isinstance(error, Exception):
            explain(error, self.failure, self._is_followed, self._path_of)

    # --- statements, by Python's trace function ---------------------------------------------------------------

    def _is_followed(self, frame: FrameType) -> bool:
        """Whether this is code of the model's: no library's, no part of a statement such as a comprehension."""
        code = frame.f_code
        if code.co_name.startswith("<") or code.co_flags & GENERATORS:
            return False
        return not code.co_filename.startswith((*LIBRARIES, HERE, "<frozen"))

    def _path_of(self, frame: FrameType) -> str | None:
        """The path of the module whose method this is; None for other functions."""
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        return self.paths.get(id(owner)) if isinstance(owner, nn.Module) else None

    def _entered(self, frame: FrameType, event: str, argument: object):
        earlier = self.tracer_before(frame, event, argument) if self.tracer_before else None
        visit = self._visit(frame) if self._is_followed(frame) and not self.muted else None
        if visit is None:
            return earlier
        # a debugger or a coverage tool that was there before goes on seeing everything
        return partial(self._traced, visit, [earlier] if earlier else [])

    def _visit(self, frame: FrameType) -> Visit | None:
        """The visit that this call starts, if it works for the model."""
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
                    self.names.setdefault(leaf, (name + suffix, ()))
                    self.scopes[-1].enter(name + suffix, leaf, self._known_axes(leaf))
                    self._add(visit, "input", name + suffix, leaf, self._known_axes(leaf), line=line)
        return visit

    def _traced(self, visit: Visit, earlier: list, frame: FrameType, event: str, argument: object):
        earlier[:] = [local for local in (function(frame, event, argument) for function in earlier) if local]
        if event == "line":
            statement = visit.statements.get(frame.f_lineno)
            if statement is None or statement is not visit.current:
                self._finish(visit, None)
                visit.begin(statement, len(self.rows), self.counter.total)
                self.ran.add((visit.path, visit.file, statement.first if statement else frame.f_lineno))
        elif event == "exception":
            visit.current = None  # what it was about to assign does not exist
        elif event == "return":
            self._finish(visit, argument)
            scope = self._close(argument)
            if self.scopes and self.scopes[-1] is not scope:  # a part's method was called, not the part itself
                inputs = tensors([value for _, value in visit.arguments()])
                self.scopes[-1].call(visit.path, visit.function, inputs, self._named(argument))
            self.visits.remove(visit)
        return partial(self._traced, visit, earlier)

    def _finish(self, visit: Visit, returned: object) -> None:
        """Adds the rows of the statement that has just ended."""
        statement = visit.current
        if statement is None:
            return
        parts, complaint = claimed(statement, visit.values(returned))
        visit.current = None
        seconds = time.perf_counter() - visit.time
        for index, (name, value, claim) in enumerate(parts):
            row = self._add(
                visit, "statement", name, value, claim, slot=visit.slot + index, line=statement.first,
                text=statement.text, turn=(visit.id, visit.turn), complaint="" if index else complaint,
            )  # fmt: skip
            if self.costs:
                row.seconds, row.flops = seconds, self.counter.total - visit.flops

    # --- modules, by forward hooks ----------------------------------------------------------------------------

    def _called(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self.visits and not self.calls:
            self.number += 1
        path = self.paths[id(module)]
        row = Row(
            "module", path, type(module).__name__, len(self.visits) + len(self.calls), self.number,
            variable=type(module).__name__, parameters=sum(p.numel() for p in module.parameters()),
        )  # fmt: skip
        self.rows.append(row)
        self._emit(row)
        self.calls.append((row, time.perf_counter(), self.counter.total))
        self._open(path, called=True)

    def _returned(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        row, start, flops = self.calls.pop()
        self._close(output)
        if self.scopes:
            self.scopes[-1].call(row.path, row.owner, tensors((*args, *kwargs.values())), self._named(output))
        first = next(iter(tensors(output)), None)
        if self.costs:
            row.seconds, row.flops = time.perf_counter() - start, self.counter.total - flops
        if first is not None:
            self._measure(row, first, self._known_axes(first))

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
            inputs, outputs = tensors((*args, *kwargs.values())), tensors(result)
            self.scopes[-1].operate(func.__name__, inputs, outputs)
        return result

    def _operand(self, x: Tensor) -> Operand:
        name, axes = self.names.get(x, ("", ()))
        if len(axes) != x.dim():  # its letters by its sizes, all that a size may be
            said: dict[int, set[str]] = {}
            for row in self.rows[-200:]:
                for axis, n in pairs(row):
                    said.setdefault(n, set()).update({axis} if axis.isalpha() else ())
            axes = tuple("|".join(sorted(said.get(n, ()))) for n in x.shape)
        return Operand(name, axes, tuple(x.shape), str(x.dtype).removeprefix("torch."))

    # --- rows -------------------------------------------------------------------------------------------------

    def _open(self, path: str, called: bool = False) -> None:
        """Operations belong to `path` from here on. A module's methods go on with the graph of its call."""
        same = bool(self.scopes) and self.scopes[-1].path == path
        self.scopes.append(self.scopes[-1] if same else Flow(path))
        if called or path not in self.flows:  # a method called on its own does not hide the module's call
            self.flows[path] = self.scopes[-1]

    def _close(self, returned: object) -> Flow:
        scope = self.scopes.pop()
        scope.leave([(name, x) for name, x, _ in self._named(returned)])
        return scope

    def _named(self, value: object) -> Named:
        """The tensors inside a value, with the way to each and its axes; a part's own letters say nothing outside."""
        known = [(name, x, self._known_axes(x)) for name, x in leaves(value) if isinstance(x, Tensor)]
        return [(name, x, None if LOCAL & set("".join(axes or ())) else axes) for name, x, axes in known]

    def _known_axes(self, x: Tensor) -> Axes | None:
        """What the tensor's last comment called its axes."""
        _, axes = self.names.get(x, ("", ()))
        return axes if axes and len(axes) == x.dim() else None

    def _add(self, visit: Visit, kind: str, name: str, value: object, claim: Axes | None, slot=None, **known) -> Row:
        """A row for one value of a visit, at `slot` among the rows or at their end."""
        row = Row(
            kind, visit.path, visit.function, visit.depth, self.number, file=visit.file, variable=name,
            backward=visit.backward, **known,
        )  # fmt: skip
        self.rows.insert(len(self.rows) if slot is None else slot, row)
        if isinstance(value, Tensor):
            self._measure(row, value, claim)
            if kind == "statement":
                self.names[value] = (name, claim or self._known_axes(value) or ())
                self.scopes[-1].name(value, claim, name)
        else:
            row.describe(value)
        self._emit(row)
        return row

    def _emit(self, row: Row) -> None:
        """Hands a row on; what the receiver does with it is no part of the model."""
        if self.finished:
            self.muted = True
            self.finished(row)
            self.muted = False

    def _measure(self, row: Row, x: Tensor, claim: Axes | None) -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            row.measure(x, claim)
            if self.values:
                row.statistics = statistics(x)
            if self.keep:
                row.tensor = x.detach().clone()
        if self.gradients and x.requires_grad and row.kind == "statement":
            self.handles.append(x.register_hook(partial(self._gradient, row)))

    def _gradient(self, row: Row, gradient: Tensor) -> None:
        with torch._C.DisableTorchFunction(), torch.no_grad():
            row.gradient = statistics(gradient)
