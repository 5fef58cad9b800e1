"""Stories by number, their exact probability and what can be asked about them."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum, log
from pathlib import Path

from lab.data.tales.choices import Sampler, Teller
from lab.data.tales.plots import PLOTS
from lab.data.tales.scenes import ending, opening
from settings.errors import DataError

INDEX_BITS = 64


@dataclass(frozen=True)
class Probe:
    """A question about a story: after `prompt`, the story goes on with `right`; `wrong` contradicts it.

    The skill is "holder" (who has the thing now), "place" (where it was left), "pronoun", or "name"
    (which of the two friends).
    """

    skill: str
    prompt: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Story:
    """A text with its exact log-probability in nats, and its probes."""

    text: str
    log_probability: float
    marks: tuple[tuple[int, str, str, str], ...] = field(repr=False)  # (offset of a sentence, skill, right, wrong)

    @cached_property
    def probes(self) -> tuple[Probe, ...]:
        """The questions that the story answers, in order."""
        probes = []
        for offset, skill, right, wrong in self.marks:
            position = re.compile(rf" {re.escape(right)}\b").search(self.text, offset).start()
            probes.append(Probe(skill, self.text[:position], f" {right}", f" {wrong}"))
        return tuple(probes)


def tell_story(tell: Teller, plots: tuple = PLOTS):
    """The whole grammar: an opening, one of the plots, an ending."""
    a, b = opening(tell)
    morals = tell.pick(plots)(tell, a, b)
    ending(tell, a, b, morals)


def story(index: int, seed: int = 0) -> Story:
    """Story number `index` of a seed: the same on every machine. Raises DataError if either is out of range."""
    for name, value in (("index", index), ("seed", seed)):
        if not 0 <= value < 1 << INDEX_BITS:
            raise DataError(f"The {name} of a story is {value}; give a whole number from 0 to 2**{INDEX_BITS} - 1.")
    tell = Sampler(seed << INDEX_BITS | index)
    tell_story(tell)
    return Story(tell.text, tell.log_probability, tuple(tell.marks))


def stories(n: int, seed: int = 0, start: int = 0) -> Iterator[Story]:
    """The n stories from number `start` on."""
    return (story(index, seed) for index in range(start, start + n))


def entropy(sample: Iterable[Story]) -> float:
    """Bits per byte of a sample of stories, -sum(log2 p) / sum(UTF-8 bytes): the floor of any model's loss.

    Raises DataError for an empty sample.
    """
    sample = list(sample)
    if not sample:
        raise DataError("The entropy of no stories is undefined; give at least one story.")
    bits = -fsum(tale.log_probability for tale in sample) / log(2)
    return bits / sum(len(tale.text.encode("utf-8")) for tale in sample)


def fingerprint(folder: Path) -> str:
    """A hash of the grammar's own source, the same whatever line ends a checkout uses."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(path.relative_to(folder).as_posix().encode("utf-8"))
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


VERSION = fingerprint(Path(__file__).parent)
