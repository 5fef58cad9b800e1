"""Looking inside: what it costs while one looks, and while one does not, beside torchinfo and a decorator."""

import functools
import io
import sys
from statistics import median

import torch
import torchinfo
from torch import nn

from bench.timing import alternate, table
from config import preset
from lab.shapes.views import Shapes
from modules.transformer import Transformer
from tests.helpers.plain_modules import make_plain

BATCH, LENGTH, ROUNDS = 4, 128, 7


class Switch:
    on = False
    out = io.StringIO()


def reported(method):
    """As shape-printing sandboxes do it: every method wrapped, and a switch asked at each call."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        if Switch.on:
            shapes = [tuple(x.shape) for x in (*args, result) if isinstance(x, torch.Tensor)]
            Switch.out.write(f"{type(self).__name__}.{method.__name__}: {shapes}\n")
        return result

    return wrapper


def decorated(model: nn.Module) -> nn.Module:
    """`model` with every method of its own classes wrapped."""
    made = {}
    for module in model.modules():
        cls = type(module)
        if cls.__module__.startswith("modules."):
            methods = {
                name: reported(function)
                for name, function in vars(cls).items()
                if callable(function) and not name.startswith("_")
            }
            module.__class__ = made.setdefault(cls, type(cls.__name__, (cls,), methods))
    return model


def calls(run) -> int:
    """Python functions called."""
    count = 0

    def profiler(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profiler)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


@torch.no_grad()
def main() -> None:
    config = preset("llama-small").model
    ours, theirs, plain = (Transformer(config).eval() for _ in range(3))
    theirs, plain = decorated(theirs), make_plain(plain)
    ids = torch.randint(0, config.vocab_size, (BATCH, LENGTH))

    def traced():
        with Shapes(ours) as shapes:
            ours(ids)
        return shapes

    def summed_up():
        return torchinfo.summary(plain, input_data=ids, depth=9, verbose=0)

    def told():
        Switch.on, Switch.out = True, io.StringIO()
        theirs(ids)
        Switch.on = False
        return Switch.out.getvalue()

    off = {"plain nn.Module": lambda: plain(ids), "ours": lambda: ours(ids), "decorator": lambda: theirs(ids)}
    on = {"ours": traced, "torchinfo": summed_up, "decorator": told}
    off_seconds, on_seconds = alternate(off, ROUNDS), alternate(on, ROUNDS)
    seen = {"ours": len(traced()), "torchinfo": len(summed_up().summary_list), "decorator": told().count("\n")}
    base = median(off_seconds["plain nn.Module"])
    rows = []
    for name in ("plain nn.Module", "ours", "decorator", "torchinfo"):
        is_on = name in on_seconds
        rows.append([
            name, f"{calls(off[name]):,}" if name in off else "as plain",
            f"{median(on_seconds[name]):.3f} s" if is_on else "—",
            f"{median(on_seconds[name]) / base:.1f} ×" if is_on else "1 ×", str(seen.get(name, "—")),
        ])
    title = f"Looking inside: {config.n_layers} layers × {config.width}, batch {BATCH}, T {LENGTH}"
    print(table(title, ["", "Python calls when off", "one look", "of a plain pass", "lines seen"], rows))
