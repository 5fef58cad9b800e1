"""The base of all components: a module that can show every statement of its pass."""

import sys
from collections.abc import Callable, Iterable

from torch import nn

from tracing.recorder import Measures, Recorder
from tracing.rows import Row
from tracing.text import line
from tracing.traces import Trace


class LoggingModule(nn.Module):
    """nn.Module with two ways to look inside. While both are off, a call runs nn.Module's own code.

    `enable_logging()` writes every statement as it runs; `logging()` records a pass to look at later.
    """

    def enable_logging(
        self, *, methods: Iterable[str] | None = None, recursive: bool = True, values: bool = False,
        full: bool = False, write: Callable[[str], object] | None = None,
    ) -> None:
        """From now on every call writes each statement with its shapes, line by line, to `write` (the terminal).

        methods: only statements of these, as in ("project", "weights"). recursive: those of the modules inside, too.
        values: adds mean, sd, extremes. full: adds the tensors. Raises ValueError for a method that no part has.
        """
        self.disable_logging()
        wanted = None if methods is None else set(methods)
        parts = list(self.modules()) if recursive else [self]
        unknown = {name for name in wanted or () if not any(callable(getattr(part, name, None)) for part in parts)}
        if unknown:
            raise ValueError(f"no part of {type(self).__name__} has a method {', '.join(sorted(unknown))}")

        def finished(row: Row) -> None:
            own = recursive or (row.path == "" and row.kind != "module")
            if own and (wanted is None or row.owner.rpartition(".")[2] in wanted):
                out = sys.stdout.write if write is None else write
                out(line(row) + "\n" + (f"{row.tensor}\n" if row.tensor is not None else ""))

        recorder = Recorder(self, Measures(values=values, keep=full), finished)

        def start(*_) -> None:
            recorder.rows.clear()
            recorder.start(inside=True)

        def stop(*_) -> None:
            recorder.stop(sys.exc_info()[1])

        handles = self.register_forward_pre_hook(start), self.register_forward_hook(stop, always_call=True)
        self._logging_handles = handles

    def disable_logging(self) -> None:
        """Stops the writing and removes all hooks."""
        for handle in self.__dict__.pop("_logging_handles", ()):
            handle.remove()

    def logging(self, **options: bool) -> Trace:
        """A `Trace` with these options, as in `with part.logging() as shapes: part(x)`."""
        return Trace(self, **options)
