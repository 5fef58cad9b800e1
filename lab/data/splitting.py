"""Which text a training does not see: documents chosen by a hash, or the last part of the text.

hash: a document is held out if the BLAKE2b hash of its text, as a fraction, is below `validation_fraction`. So a
document stays on its side when others are added, and equal texts are always on the same side.

tail: of the n characters of all documents together, the first int(n · (1 − validation_fraction)) are for training, and
the rest is held out, as nanoGPT does it. The document in which the border lies is cut there into two. A text file is
one document, whatever its length, with no end of text inside; tokenizers read it in pieces of up to 16,384 characters,
which end at the end of a line if there is one.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from config import DataConfig
from lab.data.sources import Documents
from settings.errors import DataError

SIDES = ("train", "validation")


class Part(NamedTuple):
    """A document, or a piece of one. log_probability: in nats, None if it is not known. ends: whether the document, or
    what this side has of it, ends here."""

    side: str
    text: str
    log_probability: float | None
    ends: bool


def held_out_place(text: str) -> float:
    """A text's hash as a fraction in [0, 1). Below `validation_fraction` the text is held out."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=6).digest()) / 2**48


def split(documents: Documents, config: DataConfig) -> Iterator[Part]:
    """All of the documents in order, each part with its side. Raises DataError for a tail without a character."""
    by = {"hash": _by_hash, "tail": _by_place}[config.split]
    return by(documents, config.validation_fraction)


def _by_hash(documents: Documents, fraction: float) -> Iterator[Part]:
    for text, log_probability in documents.scored():
        yield Part(SIDES[held_out_place(text) < fraction], text, log_probability, True)


def _by_place(documents: Documents, fraction: float) -> Iterator[Part]:
    n_characters = sum(len(text) for text, _ in documents.pieces())
    border = int(n_characters * (1 - fraction))
    if not 0 < border < n_characters:
        raise DataError(
            f"{documents.name}: validation_fraction={fraction} leaves {border} characters for train and "
            f"{n_characters - border} for validation. Give more text, or another fraction"
        )
    left = border  # characters for training
    for text, ends in documents.pieces():
        if left > 0:
            yield Part("train", text[:left], None, ends or left <= len(text))
        if left < len(text):
            yield Part("validation", text[max(0, left) :], None, ends)
        left -= len(text)
