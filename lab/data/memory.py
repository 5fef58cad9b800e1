"""Texts that a notebook cell holds, as a source like any other: `DataConfig(source=register_texts(texts))`.

They are kept in this process alone. A run stores their fingerprint, not the texts; to go on with it in another process,
the same texts are registered there under the same name.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from settings.errors import DataError
from settings.json_text import is_unicode
from settings.messages import short

PREFIX = "memory:"
LONGEST_NAME = 80  # characters

_REGISTERED: dict[str, "TextsInMemory"] = {}


@dataclass(frozen=True, repr=False)
class TextsInMemory:
    """Texts, and their fingerprint."""

    texts: tuple[str, ...]
    fingerprint: str

    def __repr__(self) -> str:
        return f"{len(self.texts):,} texts in memory, {sum(map(len, self.texts)):,} characters"


def register_texts(texts: Iterable, name: str = "mine") -> str:
    """Makes texts a source in this process, and returns what to give as `source`: "memory:mine".

    texts: a list, an iterator (which is read once), a column of pandas; later texts of the same name replace them.
    Texts that are only white space are left out of a training. Raises DataError, with the number of the row, for what
    is not text, for no text at all, and for a name with other signs than letters, digits, '.', '-' and '_'.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name) or len(name) > LONGEST_NAME:
        raise DataError(
            f"{short(name)} can't be the name of texts: use up to {LONGEST_NAME} letters, digits, '.', '-' and '_'"
        )
    kept = tuple(_checked(number, text) for number, text in enumerate(_rows(texts), 1))
    if not any(text.strip() for text in kept):
        raise DataError(f"there is no text among these {len(kept):,} rows: give at least one")
    digest = hashlib.blake2b(digest_size=16)
    for text in kept:
        encoded = text.encode("utf-8")
        digest.update(len(encoded).to_bytes(8) + encoded)
    _REGISTERED[PREFIX + name] = TextsInMemory(kept, digest.hexdigest())
    return PREFIX + name


def _rows(texts: Iterable[str]) -> Iterable:
    if isinstance(texts, str | bytes):
        raise DataError("register_texts takes many texts: put a single one into a list")
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "column_names"):
        raise DataError(f"a {type(texts).__name__} has columns: give the one with the texts, as in table['text']")
    if not isinstance(texts, Iterable):
        raise DataError(f"register_texts takes a list of texts, not {short(texts)}, a {type(texts).__name__}")
    return texts


def _checked(number: int, text: object) -> str:
    if not isinstance(text, str):
        raise DataError(
            f"row {number} is no text, but {short(text)} ({type(text).__name__}): leave such rows out, as "
            "column.dropna() does it, or make them text by str()"
        )
    if not is_unicode(text):
        raise DataError(f"row {number} holds half of a surrogate pair: read the text again with its true encoding")
    return str(text)


def registered_texts(source: str) -> TextsInMemory:
    """The texts that `source` names. Raises DataError, with the remedy, if this process has none."""
    if source not in _REGISTERED:
        name, there = source.removeprefix(PREFIX), f"; there are: {', '.join(_REGISTERED)}" if _REGISTERED else ""
        raise DataError(
            f"this process has no texts named {short(source)}{there}. They are in the memory of the process that "
            f"registered them, and a run keeps only their fingerprint: give the same texts again by "
            f"register_texts(texts, name={short(name)}), then go on"
        )
    return _REGISTERED[source]


def is_in_memory(source: str) -> bool:
    """Whether a source names texts in memory, of this process or another."""
    return source.startswith(PREFIX)


def list_registered() -> dict[str, str]:
    """The sources in this process's memory, each with a description."""
    return {source: repr(texts) for source, texts in _REGISTERED.items()}
