"""A set that is read while the training goes on: an epoch is its next shard."""

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np

from lab.data.shards import Shards, Stopped
from lab.data.token_file import TokenFile, count_windows
from settings.errors import DataError, GlassboxError

NEXT_FROM = 0.5  # of an epoch's windows: from here on the next shard is made in the background


class TokenStream:
    """Training tokens of which one shard at a time is there. It offers what a `TokenFile` offers.

    Epoch k takes its windows from shard k, so two epochs read different text until the set begins again. A set with
    fewer tokens than a shard is one shard, and then an epoch is the whole set. What it says of itself (n_documents,
    tokens, windows) is said of shard 0. fingerprint: of the set, its commit, and the documents of shard 0.
    """

    name = "train"
    log_probability = floor = None

    def __init__(self, shards: Shards):
        self.shards, first = shards, shards.count_first()
        self.n_documents, self.n_bytes, self._n_tokens = first.n_documents, first.n_bytes, first.n_tokens
        identity = f"{shards.source.fingerprint} {first.fingerprint}"
        self.fingerprint = hashlib.blake2b(identity.encode("utf-8"), digest_size=12).hexdigest()
        self._current: tuple[int, TokenFile] | None = None
        self._background: Background | None = None

    def __len__(self) -> int:
        return self._n_tokens

    def __repr__(self) -> str:
        what = "the whole set" if self.shards.index.whole else f"each epoch reads the next {len(self):,} tokens"
        return f"train: {len(self):,} tokens in {self.n_documents:,} documents of {self.n_bytes:,} bytes; {what}"

    @property
    def tokens(self) -> np.ndarray:
        return self._shard(0).tokens

    def n_windows(self, length: int) -> int:
        """How many windows of `length` targets an epoch has. Raises DataError if there is none."""
        return count_windows(self.name, len(self), length)

    def windows(self, length: int, batch_size: int, max_tokens: int | None = None) -> Iterator[np.ndarray]:
        """Those of shard 0, as `TokenFile.windows`."""
        return self._shard(0).windows(length, batch_size, max_tokens)

    def batch(self, seed: int, step: int, batch_size: int, length: int) -> np.ndarray:
        """Batch number `step`, (batch_size, length + 1) int64, as `TokenFile.batch`."""
        if seed < 0 or step < 0 or batch_size < 1:
            raise DataError(f"a batch needs seed and step >= 0 and batch_size >= 1, not {seed}, {step}, {batch_size}")
        return self.rows(seed, step * batch_size, batch_size, length)

    def rows(self, seed: int, first: int, count: int, length: int) -> np.ndarray:
        """`count` windows from number `first` on, (count, length + 1) int64, as `TokenFile.rows`.

        A pure function of its arguments: a shard that is not there is made, and this can take minutes. Once half of an
        epoch is used, the next shard is made in the background. Raises DataError for a shard that can't be made.
        """
        if seed < 0 or first < 0 or count < 1:
            raise DataError(f"rows need seed and first >= 0 and count >= 1, not {seed}, {first}, {count}")
        n_windows, parts, row = self.n_windows(length), [], first
        while row < first + count:
            epoch, place = divmod(row, n_windows)
            taken = min(n_windows - place, first + count - row)
            parts.append(self._shard(epoch).rows(seed, row, taken, length))
            row += taken
        if not self.shards.index.whole and row % n_windows >= NEXT_FROM * n_windows:
            self._prepare(row // n_windows + 1)
        return np.concatenate(parts)

    def listen(self, tell: Callable[[str], None] | None, stopping: threading.Event) -> None:
        """While `rows` makes a shard, `tell` hears how far it is, and it raises Stopped once `stopping` is set."""
        self.shards.tell, self.shards.also_stopping = tell, stopping

    def close(self) -> None:
        """Stops what is made in the background, and waits for its end. What was made so far is kept."""
        if self._background:
            self._background.stop()
            self._background = None
        self.listen(None, threading.Event())

    def _shard(self, epoch: int) -> TokenFile:
        number = 0 if self.shards.index.whole else epoch
        if self._current is None or number != self._current[0]:
            self._current = number, self._wait_for(number)
        return self._current[1]

    def _wait_for(self, number: int) -> TokenFile:
        """The shard that the background makes, or made here. Here is the second try if the background failed."""
        background, self._background = self._background, None
        if background and background.number == number:
            shard, error = background.take()
            if shard is not None:
                return shard
            try:
                return self.shards.open(number)
            except GlassboxError as again:
                raise again from error
        if background:
            background.stop()
        return self.shards.open(number)

    def _prepare(self, number: int) -> None:
        if self._background is None:
            self._background = Background(self.shards, number)
            self._background.ends_with = weakref.finalize(self, self._background.stop)  # where nobody calls close


class Background:
    """A thread that opens one shard. ends_with: stops it when its stream is gone."""

    ends_with: weakref.finalize

    def __init__(self, shards: Shards, number: int):
        self.shards, self.number = shards, number
        self._shard: TokenFile | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name=f"shard {number}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._shard = self.shards.open(self.number)
        except Stopped:
            pass
        except Exception as error:  # given to whom needs the shard
            self._error = error

    def result(self) -> tuple[TokenFile | None, Exception | None]:
        """Waits for the shard, or for the error that kept it from being made."""
        while self._thread.is_alive():
            self._thread.join(0.2)  # in short waits, so that Ctrl-C is heard
        return self._shard, self._error

    def take(self) -> tuple[TokenFile | None, Exception | None]:
        """The result, which is given away: nothing here keeps the shard in the cache any more."""
        found = self.result()
        self.ends_with.detach()
        self._shard = None
        return found

    def stop(self) -> None:
        """Ends the thread and waits for its end."""
        self.shards.stopping.set()
        try:
            self._thread.join()
        finally:
            self.shards.stopping.clear()
