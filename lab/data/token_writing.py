"""Writes documents as files of tokens, and opens such files."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from lab.data.cache import Damaged, in_cache
from lab.data.splitting import Part
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from settings.errors import TokenizerError


class HasText(Protocol):
    """What is tokenised: a text, and what belongs to it."""

    text: str


Document = TypeVar("Document", bound=HasText)


def chunks(parts: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    """The parts in lists of at least so many characters, but for the last list."""
    chunk, size = [], 0
    for part in parts:
        chunk.append(part)
        size += len(part.text)
        if size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def token_type(tokenizer: Tokenizer) -> type[np.unsignedinteger]:
    """The type in which the tokenizer's ids are stored."""
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def as_bytes(ids: list[int], tokenizer: Tokenizer) -> bytes:
    """The ids as a file holds them. Raises TokenizerError for one outside of the vocabulary."""
    array = np.array(ids, dtype=np.int64)
    if array.size and not 0 <= array.min() <= array.max() < tokenizer.vocab_size:
        raise TokenizerError(
            f"{tokenizer.name} gives ids from {array.min()} to {array.max()}, but its vocab_size is "
            f"{tokenizer.vocab_size}: ids must lie below it"
        )
    return array.astype(token_type(tokenizer)).tobytes()


class Side:
    """One side while it is written; as a context it closes its file."""

    def __init__(self, path: Path, tokenizer: Tokenizer, whole: bool):
        self.tokenizer, self.whole = tokenizer, whole  # whole: each part is a document
        self.pending: list[int] = []
        self.n_tokens = self.n_documents = self.n_bytes = self.n_bytes_before = 0  # before: of the documents that ended
        self.log_probability: float | None = None
        self.digest = hashlib.blake2b(digest_size=12)
        with in_cache():
            self.file = open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        with in_cache():
            self.file.close()

    def add(self, part: Part, ids: list[int]) -> None:
        self.pending += ids
        encoded = part.text.encode("utf-8")
        self.n_bytes += len(encoded)
        self.digest.update(len(encoded).to_bytes(8) + encoded if self.whole else encoded)
        if part.log_probability is not None:
            self.log_probability = (self.log_probability or 0.0) + part.log_probability
        if part.ends:
            self.pending.append(self.tokenizer.end_of_text)
            self.n_documents += 1
            if not self.whole:  # the length comes last, because it is known last
                self.digest.update((self.n_bytes - self.n_bytes_before).to_bytes(8))
            self.n_bytes_before = self.n_bytes

    def write(self) -> None:
        written = as_bytes(self.pending, self.tokenizer)
        with in_cache():
            self.file.write(written)
        self.n_tokens += len(self.pending)
        self.pending.clear()

    def meta(self) -> dict:
        names = ("n_tokens", "n_documents", "n_bytes", "log_probability")
        counts = {name: getattr(self, name) for name in names}
        dtype = np.dtype(token_type(self.tokenizer)).name
        return {"dtype": dtype, "fingerprint": self.digest.hexdigest()} | counts


def open_tokens(path: Path, meta: dict, mapped: int) -> TokenFile:
    """Opens one side as its meta describes it. Raises Damaged, ValueError, TypeError or KeyError for another file.

    mapped: files of so many bytes or more are mapped from disk. A smaller one is read into memory, because reading a
    mapped file that was cut kills the process.
    """
    side = dict(meta)
    dtype, n_tokens = side.pop("dtype"), side.pop("n_tokens")
    counts, floor = (n_tokens, side["n_documents"], side["n_bytes"]), side["log_probability"]
    if dtype not in ("uint16", "uint32") or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"{dtype!r} and {counts} can't be")
    if not isinstance(floor, float | None) or not isinstance(side["fingerprint"], str):
        raise TypeError("log_probability or fingerprint")
    size, wanted = path.stat().st_size, n_tokens * np.dtype(dtype).itemsize
    if size == wanted:
        tokens = np.fromfile(path, dtype) if size < mapped else np.memmap(path, dtype, mode="r")
        size = tokens.nbytes
    if size != wanted:
        raise Damaged(f"{path.name} has {size} bytes instead of {wanted}")
    return TokenFile(path.stem, tokens, **side)
