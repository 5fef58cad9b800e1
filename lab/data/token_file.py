"""A stream of tokens, and the windows that training and evaluation take from it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lab.data.leases import Lease
from settings.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class TokenFile:
    """Documents as one stream of tokens, each document followed by the end of text.

    name: "train" or "validation". tokens: 1-D, uint16 or uint32, in memory, or mapped from disk if they are many.
    n_bytes: UTF-8 bytes of the texts. log_probability: in nats, the sum over the texts; None if it is not known.
    fingerprint: equal for equal documents in equal order, with any tokenizer and settings; "" if it is not known.
    lease: keeps the tokens' entry in the cache.
    """

    name: str
    tokens: np.ndarray
    n_documents: int
    n_bytes: int
    log_probability: float | None = None
    fingerprint: str = ""
    lease: Lease | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return (
            f"{self.name}: {len(self):,} tokens in {self.n_documents:,} documents of {self.n_bytes:,} bytes "
            f"({self.n_bytes / len(self):.2f} bytes per token)"
        )

    def listen(self, *_) -> None:
        """Nothing is made while it is read: see `TokenStream.listen`."""

    def close(self) -> None:
        """Nothing runs in the background: see `TokenStream.close`."""

    @property
    def floor(self) -> float | None:
        """The least mean loss of any model, in nats per token: -sum(log p) / tokens, with the end-of-text tokens."""
        return None if self.log_probability is None else -self.log_probability / len(self)

    def n_windows(self, length: int) -> int:
        """How many windows of `length` targets an epoch has. Raises DataError if there is none."""
        return count_windows(self.name, len(self), length)

    def batch(self, seed: int, step: int, batch_size: int, length: int) -> np.ndarray:
        """Batch number `step`, (batch_size, length + 1) int64: inputs are [:, :-1], targets [:, 1:].

        It holds the next batch_size rows of `rows`. Raises DataError as that does.
        """
        if seed < 0 or step < 0 or batch_size < 1:
            raise DataError(f"a batch needs seed and step >= 0 and batch_size >= 1, not {seed}, {step}, {batch_size}")
        return self.rows(seed, step * batch_size, batch_size, length)

    def rows(self, seed: int, first: int, count: int, length: int) -> np.ndarray:
        """`count` windows from number `first` on, (count, length + 1) int64, of an endless sequence.

        A pure function of its arguments. An epoch divides the stream into windows from a random place on, so that no
        token is a target twice, and takes them in random order. Epochs follow each other without a gap. The stream is
        used as a ring: its last token ends a document, and its first begins one. Raises DataError for a stream shorter
        than a window.
        """
        if seed < 0 or first < 0 or count < 1:
            raise DataError(f"rows need seed and first >= 0 and count >= 1, not {seed}, {first}, {count}")
        n_windows = self.n_windows(length)
        starts, row = np.empty(count, dtype=np.int64), 0
        while row < count:
            epoch, place = divmod(first + row, n_windows)
            rest = window_starts(len(self), length, seed, epoch)[place : place + count - row]
            starts[row : row + len(rest)] = rest
            row += len(rest)
        self._check_whole()
        places = starts[:, None] + np.arange(length + 1)
        return np.asarray(self.tokens).take(places, mode="wrap").astype(np.int64)

    def windows(self, length: int, batch_size: int, max_tokens: int | None = None) -> Iterator[np.ndarray]:
        """The stream from its beginning, (up to batch_size, length + 1) int64, one token shared by neighbours.

        Each of the first max_tokens targets (None: all) comes exactly once. A last window that is not full comes alone
        and is shorter. Raises DataError for a stream shorter than a window.
        """
        self.n_windows(length)
        if batch_size < 1 or (max_tokens is not None and max_tokens < 1):
            raise DataError(f"batch_size and max_tokens must be 1 or more, not {batch_size} and {max_tokens}")
        n_targets = min(len(self) - 1, math.inf if max_tokens is None else max_tokens)
        return self._windows(length, batch_size, n_targets)

    def _check_whole(self) -> None:
        """Raises DataError if the mapped file was cut, because reading past its end would kill the process."""
        if isinstance(self.tokens, np.memmap) and self.tokens.base.size() < self.tokens.nbytes:
            raise DataError(
                f"the file of the {self.name} tokens in the cache was cut while it was in use: prepare the data again, "
                "and the file is made again"
            )

    def _windows(self, length: int, batch_size: int, n_targets: int) -> Iterator[np.ndarray]:
        tokens, full = np.asarray(self.tokens), n_targets // length
        for first in range(0, full, batch_size):
            self._check_whole()
            starts = np.arange(first, min(first + batch_size, full)) * length
            yield tokens.take(starts[:, None] + np.arange(length + 1)).astype(np.int64)
        if n_targets % length:
            self._check_whole()
            yield tokens[None, full * length : n_targets + 1].astype(np.int64)


def count_windows(name: str, n_tokens: int, length: int) -> int:
    """How many windows of `length` targets so many tokens have. Raises DataError if there is none."""
    if length < 1:
        raise DataError(f"a window needs 1 target or more, not {length}")
    if n_tokens <= length:
        raise DataError(
            f"the {name} tokens are {n_tokens:,}, too few for one window of {length} inputs and their "
            "targets: take more text, another validation_fraction, or a shorter context"
        )
    return (n_tokens - 1) // length


@lru_cache(maxsize=4)
def window_starts(n_tokens: int, length: int, seed: int, epoch: int) -> np.ndarray:
    """The first tokens of an epoch's windows, in the order in which they are taken."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
    starts = random.permutation((n_tokens - 1) // length)
    starts *= length
    starts += random.integers(n_tokens)
    return starts
