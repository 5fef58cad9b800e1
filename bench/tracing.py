"""Looking inside: what it costs while one looks, and while one does not, beside torchinfo and a decorator."""

import functools
import io
import sys
from collections.abc import Callable
from statistics import median

import torch
import torchinfo
from torch import nn

from bench.timing import in_turn, seconds_per_call, table
from config import preset
from lab.shapes.views import Shapes
from modules.transformer import Transformer
from tests.helpers.plain_modules import make_plain

BATCH, LENGTH = 4, 128


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


def look(name: str, ids: torch.Tensor) -> Callable[[], object]:
    """A call that runs a model on ids (B, T) while one looks inside, and gives what is seen."""
    config = preset("llama-small").model
    model = Transformer(config).eval()
    if name == "decorator":
        theirs = decorated(model)

        def told() -> str:
            Switch.on, Switch.out = True, io.StringIO()
            theirs(ids)
            Switch.on = False
            return Switch.out.getvalue()

        return told
    if name == "torchinfo":
        plain = make_plain(model)
        return lambda: torchinfo.summary(plain, input_data=ids, depth=9, verbose=0)

    def traced() -> Shapes:
        with Shapes(model) as shapes:
            model(ids)
        return shapes

    return traced


def pass_of(name: str, ids: torch.Tensor) -> Callable[[], object]:
    """A call that runs a model while nobody looks inside."""
    model = Transformer(preset("llama-small").model).eval()
    if name != "ours":
        model = decorated(model) if name == "decorator" else make_plain(model)
    return lambda: model(ids)


def measure(name: str, looking: bool) -> float:
    """Seconds of a pass."""
    with torch.no_grad():
        return seconds_per_call((look if looking else pass_of)(name, sample()))


def sample() -> torch.Tensor:
    return torch.randint(0, preset("llama-small").model.vocab_size, (BATCH, LENGTH))


@torch.no_grad()
def main(rounds: int = 3) -> None:
    config = preset("llama-small").model
    off = in_turn(measure, {name: (name, False) for name in ("plain nn.Module", "ours", "decorator")}, rounds)
    on = in_turn(measure, {name: (name, True) for name in ("ours", "torchinfo", "decorator")}, rounds)
    seen = {
        "ours": len(look("ours", sample())()), "torchinfo": len(look("torchinfo", sample())().summary_list),
        "decorator": look("decorator", sample())().count("\n"),
    }
    base = median(off["plain nn.Module"])
    rows = []
    for name in ("plain nn.Module", "ours", "decorator", "torchinfo"):
        rows.append([
            name, f"{calls(pass_of(name, sample())):,}" if name in off else "as plain",
            f"{median(on[name]):.3f} s" if name in on else "—",
            f"{median(on[name]) / base:.1f} ×" if name in on else "1 ×", str(seen.get(name, "—")),
        ])
    title = f"Looking inside: {config.n_layers} layers × {config.width}, batch {BATCH}, T {LENGTH}"
    print(table(title, ["", "Python calls when off", "one look", "of a plain pass", "lines seen"], rows), flush=True)
