"""The machinery of a probabilistic grammar written as ordinary Python.

A story is a function that takes a teller. The teller answers `pick` (one of these options) and collects
what the function lets it `say`; its subclasses differ only in how they choose:

    Sampler   chooses at random and adds up the log-probability of what it chose
    Replay    follows a script of option numbers; `walk` uses it to visit every derivation

The probability of a text is that of its derivation, as long as every choice can be read off the text.
So a plot must never pick what it does not say, and two ways to choose must never say the same.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import log
from random import Random

LOGS = [0.0, *(log(n) for n in range(1, 1025))]


class Weighted:
    """Options with whole-number weights: Weighted({"said": 3, "replied": 1})."""

    def __init__(self, weights: dict):
        self.options = tuple(weights)
        self.cumulative = tuple(accumulate(weights.values()))
        self.logs = tuple(log(weight / self.cumulative[-1]) for weight in weights.values())


class Teller:
    """Collects the sentences of one story, the log-probability of its choices and its probes."""

    def __init__(self):
        self.sentences: list[str] = []
        self.marks: list[tuple[int, str, str, str]] = []
        self.log_probability = 0.0
        self.separator = ""
        self.length = 0

    def choose(self, options: Sequence | Weighted):
        raise NotImplementedError(f"{type(self).__name__} must say how it chooses")

    def pick(self, options: Sequence | Weighted, *used):
        """One of the options, none of those already used."""
        if used:
            options = [option for option in options if option not in used]
        return self.choose(options)

    def form(self, *sentences: str) -> str:
        """One of several ways to say the same."""
        return self.choose(sentences)

    def say(self, sentence: str, *probes: tuple[str, str, str]):
        """Add a sentence; a probe (skill, right, wrong) asks for the word `right` of it."""
        for skill, right, wrong in probes:
            self.marks.append((self.length, skill, right, wrong))
        sentence = self.separator + sentence
        self.sentences.append(sentence)
        self.length += len(sentence)
        self.separator = " "

    def paragraph(self):
        """Let the next sentence begin a paragraph."""
        self.separator = "\n\n"

    @property
    def text(self) -> str:
        return "".join(self.sentences)


class Sampler(Teller):
    """Chooses at random.

    Uses nothing of `Random` but seeding with a non-negative integer and `.random()`, both of which
    Python keeps the same across versions and platforms.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.random = Random(seed).random

    def choose(self, options: Sequence | Weighted):
        if type(options) is Weighted:
            number = bisect_right(options.cumulative, self.random() * options.cumulative[-1])
            self.log_probability += options.logs[number]
            return options.options[number]
        count = len(options)
        self.log_probability -= LOGS[count]
        return options[int(self.random() * count)]


class Replay(Teller):
    """Takes the options that a script of numbers names, and the first one after the script has ended."""

    def __init__(self, script: Sequence[int] = ()):
        super().__init__()
        self.script = script
        self.taken: list[int] = []
        self.counts: list[int] = []

    def choose(self, options: Sequence | Weighted):
        if type(options) is Weighted:
            options, logs = options.options, options.logs
        else:
            logs = [-LOGS[len(options)]] * len(options)
        position = len(self.taken)
        number = self.script[position] if position < len(self.script) else 0
        self.taken.append(number)
        self.counts.append(len(options))
        self.log_probability += logs[number]
        return options[number]


def walk(grammar: Callable[[Teller], None], replay: Callable[[Sequence[int]], Replay]) -> Iterator[Replay]:
    """Every derivation of a grammar, depth first; `replay` makes a teller that follows a script."""
    script: list[int] = []
    while True:
        teller = replay(script)
        grammar(teller)
        yield teller
        taken, counts = list(teller.taken), list(teller.counts)
        while taken and taken[-1] + 1 == counts[-1]:
            taken.pop()
            counts.pop()
        if not taken:
            return
        script = [*taken[:-1], taken[-1] + 1]
