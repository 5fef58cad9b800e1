"""The settings of a curriculum: several sources in one training, mixed by weights that move. config.py takes them into
the settings of the data."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Literal

from annotated_types import MaxLen

from settings.checked import Config, settings
from settings.types import Count, Numbers, Real, Text


@settings
class MixtureConfig(Config):
    """Several sources, mixed by weights that lead from `start` to `end`; without sources there is no mixture.

    The weights are `start` until the share `begin` of all steps is done, and `end` from the share `finish` on. Between
    them, with p from 0 to 1: (1 − p)·start + p·end (linear); start^(1−p) · end^p (exponential); or linear in `jumps`
    equal jumps (step). Weights count relative to their sum: 4 and 1 are 0.8 and 0.2.
    """

    sources: Annotated[tuple[Text, ...], MaxLen(64)] = ()  # Each as `source` has it: a set, a file, a folder.
    start: Numbers = ()  # One weight for each source. Empty: all alike.
    end: Numbers = ()  # Empty: as at the start.
    transition: Literal["linear", "step", "exponential"] = "linear"
    begin: Real[0, 1] = 0.0  # Shares of all steps.
    finish: Real[0, 1] = 1.0
    jumps: Count = 1  # Of "step", evenly spread between begin and finish.

    @property
    def first_weights(self) -> tuple[float, ...]:
        """The weights at the start; their sum is 1."""
        return shares(self.start or (1.0,) * len(self.sources))

    @property
    def last_weights(self) -> tuple[float, ...]:
        """The weights at the end; their sum is 1."""
        return shares(self.end) if self.end else self.first_weights

    def problems(self) -> Iterator[str]:
        if not self.sources:
            if any(getattr(self, field.name) != field.default for field in fields(self)):
                yield "a mixture needs sources, two or more, as in sources=('pycode', 'pydocs')"
            return
        if len(self.sources) < 2 or len(set(self.sources)) < len(self.sources):
            yield f"a mixture needs two or more different sources, not {', '.join(self.sources)}"
        for name, weights in (("start", self.start), ("end", self.end)):
            if weights and len(weights) != len(self.sources):
                yield f"{name} has {len(weights)} weights for {len(self.sources)} sources; give one for each"
            if any(weight < 0 for weight in weights):
                yield f"{name}={weights} has a weight below 0; a source that is to be left out for a while has 0"
            if weights and not any(weight > 0 for weight in weights):
                yield f"{name}={weights}: one weight at least must be above 0"
            if self.transition == "exponential" and 0 in weights:
                yield f"{name}={weights}: an exponential transition can't reach 0; give a small weight, or 'linear'"
        if self.begin > self.finish:
            yield f"the transition ends (finish={self.finish:g}) before it begins (begin={self.begin:g})"
        if self.jumps > 1 and self.transition != "step":
            yield f"jumps={self.jumps} belong to the transition 'step', not to {self.transition!r}; leave them out"


def shares(weights: tuple[float, ...]) -> tuple[float, ...]:
    """The weights divided by their sum."""
    return tuple(weight / sum(weights) for weight in weights)
