"""Where a run's weights come from (origin.json): another run, bound by the checksum of its weights."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab.files.reading import checksum
from settings.errors import ConfigError, RunError
from settings.json_text import parse_json
from settings.messages import short

# What was done with the other run's weights, by the word that origin.json has for it
HOW = {
    "fine_tuned": "fine-tuned from", "continued": "continued from", "adapter": "an adapter for",
    "merged": "merged from", "quantised": "quantised from", "distilled": "distilled from",
    "classifier": "a classifier on",
}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """how: one of HOW. run: the other run's name. path: its folder when this run was made; None in a shared run.

    weights: the SHA-256 of the file of its weights. step: the step of these weights.
    """

    how: str
    run: str
    path: str | None
    weights: str
    step: int

    @classmethod
    def from_json(cls, text: str) -> "Origin":
        """The inverse of `to_json`. Raises RunError for anything that `to_json` would not write."""
        try:
            origin = cls(**parse_json(text))
        except (ConfigError, TypeError) as error:
            raise RunError(f"origin.json does not say where a run's weights come from: {error}") from error
        texts = (origin.how, origin.run, origin.path or "", origin.weights)
        if not all(isinstance(value, str) for value in texts) or type(origin.step) is not int or origin.how not in HOW:
            raise RunError(f"origin.json must hold texts, a step, and how as one of {', '.join(HOW)}")
        return origin

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def __str__(self) -> str:
        return f"{HOW[self.how]} {self.run} (step {self.step:,})"

    def without_path(self) -> "Origin":
        """The record for sharing, without a path of this machine."""
        return replace(self, path=None)

    def find(self, folder: Path, weights: str = "model.safetensors") -> Path:
        """The folder of that run: of its name in `folder`, or where it was. Raises RunError unless it is there with
        the same weights."""
        places = [folder / self.run, *([Path(self.path)] if self.path else [])]
        there = [place for place in places if os.path.lexists(place / weights)]
        if not there:
            raise RunError(
                f"it is {self}, and that run is not there: neither as {self.run!r} in {folder} nor where it was. Put "
                "its folder back, or import it under that name"
            )
        for place in there:
            if checksum(place / weights) == self.weights:
                return place
        raise RunError(
            f"it is {self}, but the weights in {there[0]} are others now: their SHA-256 is not {short(self.weights)}. "
            "Restore them from a copy"
        )
