"""A look at a text before a training: how much there is, how it is stored, and what is odd about it."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from config import DataConfig
from config import preset as named_preset
from lab.data.encodings import plain_name
from lab.data.hub_sets import is_hub_source
from lab.data.own_files import CheckedFiles, Piece, all_pieces
from lab.data.paths import TABLES, printable
from lab.data.sources import check_config, check_settings, check_source, is_named, load_documents
from lab.data.tables import text_column
from lab.data.tokenizers import Tokenizer, load_tokenizer
from settings.errors import DataError

TOKENISED = 1 << 23  # bytes that are tokenised whole; of a longer text a sample is
LONG_LINE = 1 << 20  # characters
N_SHOWN, SHOWN = 3, 90  # documents whose first lines are shown, and characters of each
BATCH = 1 << 20  # characters tokenised together
REPLACEMENT = "\ufffd"  # what decoders put in place of what they can't read


@dataclass(frozen=True, kw_only=True, repr=False)
class DataPreview:
    """What a source holds. Sizes are in bytes of UTF-8; those of documents are the smallest, the median, the largest.

    n_empty: rows and files without text, which are left out. n_copies: documents that are equal to an earlier one.
    n_tokens: with an end of text for each document; measured on a sample unless `is_exact`. encodings, text_fields: how
    many files have each. epochs: how often the preset's training reads each token. oddities: sentences.
    """

    config: DataConfig
    about: str
    n_documents: int
    n_empty: int
    n_copies: int
    n_bytes: int
    sizes: tuple[int, float, int]
    encodings: dict[str, int]
    text_fields: dict[str, int]
    n_tokens: int
    is_exact: bool
    preset: str
    epochs: float
    first_lines: tuple[str, ...]
    oddities: tuple[str, ...]

    def rows(self) -> Iterator[tuple[str, str]]:
        """What there is to tell, by name."""
        smallest, median, largest = self.sizes
        train, model = named_preset(self.preset).train, named_preset(self.preset).model
        yield "source", f"{printable(self.config.source)}: {self.about}"
        yield "documents", f"{self.n_documents:,} of {self.n_bytes:,} bytes in all"
        yield "sizes", f"{smallest:,} to {largest:,} bytes, median {median:,.0f}"
        for name, counts in (("encodings", self.encodings), ("text fields", self.text_fields)):
            if counts:
                yield name, ", ".join(f"{value} ({count:,} file{'s'[: count > 1]})" for value, count in counts.items())
        per_token = self.n_bytes / self.n_tokens
        about = "" if self.is_exact else "about "
        yield "tokens", f"{about}{self.n_tokens:,} by {self.config.tokenizer} ({per_token:.2f} bytes per token)"
        steps = f"{train.steps:,} steps of {train.batch_size} × {model.context_length} tokens"
        held_out = f"{self.config.validation_fraction:.3g} of the text held out"
        yield "epochs", f"{self.epochs:,.1f} with {self.preset} ({steps}; {held_out})"
        for number, line in enumerate(self.first_lines, 1):
            yield f"document {number}", line
        for number, oddity in enumerate(self.oddities or ("none",)):
            yield "" if number else "oddities", oddity

    def __repr__(self) -> str:
        return "\n".join(f"{name + ':' if name else '':<13} {value}" for name, value in self.rows())

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.rows())
        return f'<table class="dataframe" style="text-align: left">{"".join(rows)}</table>'


def preview_data(config: DataConfig, preset: str = "llama-tiny") -> DataPreview:
    """Reads the documents of `config` once and tells what they are like; memory stays small.

    preset: whose training the epochs are of. Raises DataError as `load_documents` does, and TokenizerError or
    ConfigError for an unknown tokenizer or preset. Nothing is stored.
    """
    check_config(config, "preview_data")
    check_settings(config)
    if is_hub_source(config.source) and config.max_documents is None:
        raise DataError(f"{config.source!r} is on the hub: preview its first documents, as by max_documents=1000")
    train, model = named_preset(preset).train, named_preset(preset).model
    checked = None if is_named(config.source) else check_source(config)
    documents = None if checked else load_documents(config)
    tally = _Tally(load_tokenizer(config.tokenizer))
    for text, ends in _limited(config, checked) if checked else documents.pieces():
        tally.add(text, ends)
    tally.finish()
    if not tally.sizes:
        raise DataError(f"no text in {printable(config.source)}: {n_of(tally.n_empty, 'document')}, all empty")
    fields = Counter(text_column(file, config.text_field) for file in _tables(checked)) if checked else {}
    n_train = tally.n_tokens * (1 - config.validation_fraction)
    return DataPreview(
        config=config, about=checked.about if checked else documents.about, n_documents=len(tally.sizes),
        n_empty=tally.n_empty, n_copies=tally.n_copies, n_bytes=tally.n_bytes, sizes=tally.spread(),
        encodings=_encodings(checked) if checked else {}, text_fields=dict(fields), n_tokens=tally.n_tokens,
        is_exact=tally.is_exact, preset=preset, epochs=train.steps * train.batch_size * model.context_length / n_train,
        first_lines=tuple(tally.first_lines), oddities=tuple(_oddities(config, checked, tally, model.context_length)),
    )


def _limited(config: DataConfig, checked: CheckedFiles) -> Iterator[Piece]:
    """The pieces of the files, those without text among them, up to max_documents that have text."""
    found, begun = 0, False
    for text, ends in all_pieces(checked, uncut=config.split == "tail"):
        begun = begun or bool(text and not text.isspace())
        yield text, ends
        if ends:
            found, begun = found + begun, False
            if found == config.max_documents:
                break
    checked.refuse_changed()


def _tables(checked: CheckedFiles) -> list:
    return [file for file, content in zip(checked.files, checked.contents) if file.kind in TABLES and content.size]


def _encodings(checked: CheckedFiles) -> dict[str, int]:
    contents = (content for content in checked.contents if content.size and content.encoding)
    return dict(Counter(plain_name(content.encoding) for content in contents))


class _Tally:
    """Counts documents that come in pieces. Of each it keeps a size and a hash, 16 bytes."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.sizes, self.hashes = array("Q"), array("Q")
        self.n_empty = self.n_replaced = self.n_bytes = self.longest_line = 0
        self.first_lines: list[str] = []
        self.pending: list[tuple[str, float]] = []  # texts to tokenise, and how many each stands for
        self.pending_size = 0
        self.sampled_tokens = self.sampled_bytes = 0.0
        self.is_exact = True
        self._begin()

    def _begin(self) -> None:
        self.digest, self.size, self.text, self.replaced = hashlib.blake2b(digest_size=8), 0, "", False

    def add(self, text: str | None, ends: bool) -> None:
        """The next piece of a document. What is white space alone counts as empty."""
        if text and (self.text or not text.isspace()):
            encoded = text.encode("utf-8")
            self.digest.update(encoded)
            self.size += len(encoded)
            self.replaced |= REPLACEMENT in text
            self.text = self.text or text
            if len(text) > LONG_LINE:
                self.longest_line = max(self.longest_line, *map(len, text.split("\n")))
            self._sample(text, encoded)
        if not ends:
            return
        if self.text:
            self.sizes.append(self.size)
            self.hashes.append(int.from_bytes(self.digest.digest()))
            self.n_replaced += self.replaced
            if len(self.first_lines) < N_SHOWN:
                self.first_lines.append(_first_line(self.text))
        else:
            self.n_empty += 1
        self._begin()

    def _sample(self, text: str, encoded: bytes) -> None:
        """Takes each piece at first, later ever fewer, chosen by their hash."""
        self.n_bytes += len(encoded)
        share = min(1.0, TOKENISED / self.n_bytes)
        self.is_exact &= share == 1
        if share == 1 or int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest()) < share * 2**32:
            self.pending.append((text, 1 / share))
            self.pending_size += len(text)
            if self.pending_size > BATCH:
                self.finish()

    def finish(self) -> None:
        """Tokenises what waits for it."""
        ids = self.tokenizer.encode_batch([text for text, _ in self.pending])
        for (text, stands_for), tokens in zip(self.pending, ids):
            self.sampled_tokens += stands_for * len(tokens)
            self.sampled_bytes += stands_for * len(text.encode("utf-8"))
        self.pending.clear()
        self.pending_size = 0

    @property
    def n_tokens(self) -> int:
        return round(self.n_bytes * self.sampled_tokens / max(1.0, self.sampled_bytes)) + len(self.sizes)

    @property
    def n_copies(self) -> int:
        return len(self.hashes) - len(np.unique(np.frombuffer(self.hashes, dtype=np.uint64)))

    def spread(self) -> tuple[int, float, int]:
        sizes = np.frombuffer(self.sizes, dtype=np.uint64)
        return int(sizes.min()), float(np.median(sizes)), int(sizes.max())


def _first_line(text: str) -> str:
    line = printable(text.strip().partition("\n")[0].rstrip())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}..."


def _oddities(config: DataConfig, checked: CheckedFiles | None, tally: _Tally, context: int) -> Iterable[str]:
    n, found = len(tally.sizes), n_of(len(tally.sizes), "document")
    if tally.n_empty:
        yield f"{tally.n_empty / (n + tally.n_empty):.0%} of {n + tally.n_empty:,} are empty and left out"
    if tally.n_copies:
        yield f"{tally.n_copies / n:.0%} of {found} are copies of an earlier one ({tally.n_copies:,})"
    if tally.n_replaced:
        yield f"{n_of(tally.n_replaced, 'document')} with U+FFFD, which is the mark of a wrong encoding"
    lines = [content.longest_line for content in checked.contents] if checked else []
    longest = max(tally.longest_line, *lines, 0)
    if longest > LONG_LINE:
        yield f"one line of {longest / 1e6:.1f} million characters"
    if n == 1 and config.split == "hash":
        yield "one document alone, which can't be split by its hash: give more, or split='tail'"
    if n > 1 and max(tally.sizes) > tally.n_bytes / 2:
        yield f"one document is {max(tally.sizes) / tally.n_bytes:.0%} of the text"
    if checked and len(_encodings(checked)) > 1:
        yield f"files in {len(_encodings(checked))} encodings"
    if tally.n_tokens * config.validation_fraction <= context:
        yield f"the part held out is too short for one window of {context} tokens"


def n_of(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"
