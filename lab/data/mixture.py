"""A curriculum: rows of several streams of tokens, mixed by weights that move over the training.

    data = prepare(DataConfig(mixture=MixtureConfig(sources=("pycode", "pydocs"), start=(0.8, 0.2), end=(0.3, 0.7))))
    data.train.batch(seed=0, step=10, batch_size=32, length=128, steps=1000)
"""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lab.data.token_file import TokenFile
from lab.data.token_stream import TokenStream
from settings.errors import DataError
from settings.mixture import MixtureConfig


def mixture_weights(mixture: MixtureConfig, steps: int) -> np.ndarray:
    """The weight of each source at each step, (steps, sources) float64; each row's sum is 1."""
    first, last = np.array(mixture.first_weights), np.array(mixture.last_weights)
    done = np.arange(steps)[:, None] / max(1, steps - 1)
    length = mixture.finish - mixture.begin
    p = (done - mixture.begin) / length if length else np.where(done < mixture.begin, 0.0, 1.0)
    p = p.clip(0, 1)
    if mixture.transition == "step":
        p = np.floor(p * mixture.jumps + 0.5) / mixture.jumps
    weights = first ** (1 - p) * last**p if mixture.transition == "exponential" else (1 - p) * first + p * last
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=4)
def rows_before(mixture: MixtureConfig, steps: int, batch_size: int) -> np.ndarray:
    """How many rows of each source come before each step, (steps + 1, sources) int64.

    The first source's count is its share so far, rounded; the second's is its share of the rest, rounded; and so on. So
    the counts never fall, they add up to all rows so far, and each is within a few rows of its share.
    """
    weights = mixture_weights(mixture, steps)
    counts = np.zeros((steps + 1, weights.shape[1]), dtype=np.int64)
    free = np.full(steps, batch_size, dtype=np.int64)  # rows of each step that no source before has taken
    for source in range(weights.shape[1]):
        left = weights[:, source:].sum(axis=1)
        share = np.divide(weights[:, source], left, out=np.zeros(steps), where=left > 0)
        share[weights[:, source + 1 :].sum(axis=1) == 0] = 1  # no source behind it has a weight
        planned = np.floor(np.cumsum(free * share) + 0.5).astype(np.int64)
        taken = np.diff(planned, prepend=0).clip(0, free)  # rounding may be one row off
        taken[share == 1] = free[share == 1]
        taken[share == 0] = 0
        counts[1:, source] = np.cumsum(taken)
        free = free - taken
    return counts


@dataclass(frozen=True, eq=False, repr=False)
class TokenMixture:
    """The training tokens of several sources. parts: the tokens of each, in the order of the mixture's sources."""

    parts: Mapping[str, TokenFile | TokenStream]
    mixture: MixtureConfig
    name: str = "train"
    floor: None = None  # That of a mixture is not known.

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __repr__(self) -> str:
        first, last = self.mixture.first_weights, self.mixture.last_weights
        lines = (
            f"{start:.0%} → {end:.0%} {name}: {part!r}"
            for (name, part), start, end in zip(self.parts.items(), first, last)
        )
        return f"{self.name}, mixed {self.mixture.transition}:\n    " + "\n    ".join(lines)

    @property
    def tokens(self) -> np.ndarray:
        """All tokens of all sources, one source after another, 1-D."""
        return np.concatenate([np.asarray(part.tokens) for part in self.parts.values()])

    @property
    def n_documents(self) -> int:
        return sum(part.n_documents for part in self.parts.values())

    @property
    def n_bytes(self) -> int:
        return sum(part.n_bytes for part in self.parts.values())

    @property
    def fingerprint(self) -> str:
        """Equal for equal documents of equal sources in equal order; the weights are settings."""
        return joined_fingerprint([part.fingerprint for part in self.parts.values()])

    def n_windows(self, length: int) -> int:
        """How many windows of `length` targets all sources have together. Raises DataError if one has none."""
        found = 0
        for name, part in self.parts.items():
            try:
                found += part.n_windows(length)
            except DataError as error:
                raise DataError(f"{name}: {error}") from error
        return found

    def batch(self, seed: int, step: int, batch_size: int, length: int, steps: int | None = None) -> np.ndarray:
        """Batch number `step` of `steps`, (batch_size, length + 1) int64, a pure function of its arguments.

        steps: of the whole training, over which the weights move; None: the weights of its end hold for every step.
        Each source gives its own windows one after another, as `TokenFile.rows` does. Their order is random.
        """
        taken = self.rows_taken(step, batch_size, steps).values()
        rows = [part.rows(seed, *some, length) for part, some in zip(self.parts.values(), taken) if some[1]]
        order = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, step)))).permutation(batch_size)
        return np.concatenate(rows)[order]

    def listen(self, tell: Callable[[str], None] | None, stopping: threading.Event) -> None:
        """As `TokenStream.listen`, for the streams among the parts."""
        for part in self.parts.values():
            part.listen(tell, stopping)

    def close(self) -> None:
        """As `TokenStream.close`, for the streams among the parts."""
        for part in self.parts.values():
            part.close()

    def rows_taken(self, step: int, batch_size: int, steps: int | None) -> dict[str, tuple[int, int]]:
        """For each source, how many of its rows come before a step, and how many in it."""
        mixture = self.mixture
        if steps is None:
            mixture, steps = mixture.replace(start=mixture.last_weights, end=()), step + 1
        if not 0 <= step < steps:
            raise DataError(f"step {step} is not one of the {steps} over which the sources are mixed")
        before, after = rows_before(mixture, steps, batch_size)[step : step + 2].tolist()
        return {name: (first, last - first) for name, first, last in zip(self.parts, before, after)}


def interleave(parts: Mapping[str, TokenFile], mixture: MixtureConfig, token_bytes: np.ndarray, end: int) -> TokenFile:
    """One validation stream of several: whole documents in the proportions of the mixture's end, by tokens.

    Each next document is the one with which its source has the least tokens for its weight; where that source has none
    left, the stream ends. So any beginning of the stream has the proportions of the end, up to a document.
    token_bytes: the number of bytes of each token; 0 for `end`, the end of text.
    """
    documents = {name: np.split(np.asarray(part.tokens), np.flatnonzero(part.tokens == end)[:-1] + 1)
                 for name, part in parts.items()}
    weights = dict(zip(parts, mixture.last_weights))
    taken, chosen, size = dict.fromkeys(parts, 0), [], dict.fromkeys(parts, 0.0)
    wanted = [name for name in parts if weights[name] > 0]
    while all(taken[name] < len(documents[name]) for name in wanted):
        with_next = {name: size[name] + len(documents[name][taken[name]]) for name in wanted}
        name = min(wanted, key=lambda name: with_next[name] / weights[name])
        chosen.append(documents[name][taken[name]])
        size[name] = with_next[name]
        taken[name] += 1
    tokens = np.concatenate(chosen)
    identity = [parts[name].fingerprint for name in wanted] + [f"{weights[name]:.12g}" for name in wanted]
    return TokenFile(
        "validation", tokens, n_documents=len(chosen), n_bytes=int(token_bytes[tokens].sum()),
        fingerprint=joined_fingerprint(identity),
    )


def joined_fingerprint(fingerprints: list[str]) -> str:
    """One fingerprint of several."""
    return hashlib.blake2b("\n".join(fingerprints).encode(), digest_size=12).hexdigest()
