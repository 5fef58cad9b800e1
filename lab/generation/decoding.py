"""Whether a decoding step runs eagerly or compiled: "auto" compiles where that saves more time than it takes.

What steps and compiling took on this machine is kept for each model shape, batch and type. Before anything is known, a
compiled step is taken to need half the time, and compiling half a minute.
"""

import time
from dataclasses import asdict, dataclass
from statistics import median

import torch
from torch import Tensor

from lab.compute.device import device_name
from lab.files.remembered import lasting_path, read_entry, write_entry
from lab.generation.token_step import STEPS, CompiledSteps
from modules.cache import Cache
from modules.transformer import Transformer
from settings.errors import GenerationError

DECODE = ("auto", "eager", "compiled")
TIMED = 8  # steps, before what they take is believed
ASSUMED_SAVING, ASSUMED_COMPILING = 0.5, 30.0  # the share of an eager step; seconds


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of an eager and of a compiled step, and of compiling when it was last done."""

    eager: float
    compiled: float
    compiling: float


class Decoder:
    """A function from the newest token of each row (B) to the logits (B, V) of the next one, on the CPU in float32.

    decode: "auto", "eager" or "compiled". steps: how many it will make at most. how: which ran last, and why, in words.
    """

    def __init__(self, model: Transformer, cache: Cache, decode: str, steps: int, clock=time.perf_counter):
        self.model, self.cache, self.decode, self.left, self.clock = model, cache, decode, steps, clock
        self.compiled: CompiledSteps | None = None
        self.seconds: dict[str, list[float]] = {"eager": [], "compiled": []}
        self.compiling, self.settled = 0.0, decode == "eager"
        self.path = lasting_path("decoding", times_key(model, len(cache.lengths)))
        found = read_entry(self.path) if self.path else None
        self.times = StepTimes(**found) if found else None
        self.how = "eager, as asked" if self.settled else "eager"
        if decode == "compiled" and (problem := obstacle(model)):
            raise GenerationError(f"this model can't be decoded compiled: {problem}; use decode='eager'")

    def __call__(self, newest: Tensor) -> Tensor:
        newest = newest.to(self.cache.device)
        if self.compiled is None and not self.settled and self.compiling_pays():
            logits = self.start_compiled(newest)
        else:
            logits = self.timed(newest)
        self.left -= 1
        return logits

    def timed(self, newest: Tensor) -> Tensor:
        """One step, timed."""
        start = self.clock()
        if self.compiled is not None:
            logits, kind = self.compiled(newest).float().cpu(), "compiled"
        else:
            logits, kind = self.eager(newest), "eager"
        self.seconds[kind].append(self.clock() - start)
        if kind == "compiled" and len(self.seconds[kind]) == TIMED:
            self.weigh()
        return logits

    def eager(self, newest: Tensor) -> Tensor:
        return self.model(newest[:, None], self.cache)[:, -1].float().cpu()

    def compiling_pays(self) -> bool:
        """Whether to compile now. Settles it, unless more steps must be timed first."""
        if self.decode == "compiled":
            return True
        if self.times is None and len(self.seconds["eager"]) < TIMED:
            return False
        self.settled = True
        if self.times is not None:
            saved, cost = self.times.eager - self.times.compiled, self.times.compiling
        else:
            saved, cost = ASSUMED_SAVING * median(self.seconds["eager"]), ASSUMED_COMPILING
        if len(self.cache.lengths) in STEPS.get(self.model, {}):
            cost = 0.0  # this process has compiled it
        if self.left * saved <= cost:
            saving = f"{self.left} compiled steps would save about {max(0, self.left * saved):.1f} s"
            self.how = f"eager: {saving}" + (f", and compiling takes {cost:.0f} s" if cost else "")
            return False
        problem = obstacle(self.model)
        self.how = f"eager: not compiled, because {problem}"
        return problem is None

    def start_compiled(self, newest: Tensor) -> Tensor:
        """An eager step, and the same step compiled. Where both agree, the compiled ones go on."""
        lengths = list(self.cache.lengths)
        expected = self.timed(newest)
        self.cache.keep(lengths)
        while self.times is None and len(self.seconds["eager"]) < TIMED:
            self.timed(newest)
            self.cache.keep(lengths)
        problem = self.compile(newest, expected)
        if problem is None:
            self.how = "compiled, as asked" if self.decode == "compiled" else "compiled, because that pays"
            return expected
        self.compiled, self.cache.lengths = None, [length + 1 for length in lengths]
        if self.decode == "compiled":
            raise GenerationError(f"this model can't be decoded compiled: {problem}; use decode='eager'")
        self.how = f"eager: not compiled, because {problem}"
        return expected

    def compile(self, newest: Tensor, expected: Tensor) -> str | None:
        """Makes the first compiled step. Returns why its logits can't be used; None if they are the expected ones."""
        from torch._dynamo.exc import TorchDynamoException  # private, and torch has no public name for it; takes 1.6 s

        start = self.clock()
        try:
            self.compiled = CompiledSteps(self.model, self.cache)
            logits = self.compiled(newest).float().cpu()
        except TorchDynamoException as error:
            STEPS.get(self.model, {}).pop(len(newest), None)
            return f"the compiler fails: {next(iter(str(error).strip().splitlines()), type(error).__name__)}"
        self.compiling = self.clock() - start
        return None if agree(logits, expected, self.cache.dtype) else (
            "its compiled step gives other logits, so something changes this model in a way that the compiler misses"
        )

    def weigh(self) -> None:
        """Keeps what the steps took; goes back to eager ones where these are faster and "auto" chose."""
        before = self.times
        if before is None and len(self.seconds["eager"]) < TIMED:
            return
        eager = before.eager if before else median(self.seconds["eager"])
        compiled = median(self.seconds["compiled"])
        self.times = StepTimes(eager=eager, compiled=compiled, compiling=self.compiling)
        if self.path and (before is None or self.compiling > 1):  # less was no compiling, but a known step
            write_entry(self.path, asdict(self.times))
        if compiled >= eager and self.decode == "auto":
            self.compiled, self.how = None, f"eager: {1e3 * eager:.2f} ms a step, compiled {1e3 * compiled:.2f}"


def times_key(model: Transformer, batch: int) -> tuple:
    """What the time of a step depends on."""
    weight = model.embedding.weight
    return model.config, batch, str(weight.dtype), device_name(weight.device), torch.get_num_threads()


def obstacle(model: Transformer) -> str | None:
    """Why a model's steps are not compiled; None if they can be."""
    device = model.embedding.weight.device.type
    if device not in ("cpu", "cuda"):
        return f"steps are compiled on CPU and CUDA, and this model is on {device}"
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return "it has hooks, which a compiled step would skip"
    return None


def agree(logits: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits are equal as far as their type allows: to the root of its precision."""
    tolerance = torch.finfo(dtype).eps ** 0.5
    largest = float(expected.nan_to_num(0, 0, 0).abs().amax())
    return torch.allclose(logits, expected, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
