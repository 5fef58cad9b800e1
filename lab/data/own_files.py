"""Documents from a user's own files: txt, md, py, jsonl, csv, tsv and parquet.

A Python file is one document, and so is each row of a table (jsonl, csv, tsv, parquet). A text (txt, md) of up to 4,000
characters is one document; a longer one, such as a book, is cut into pieces, so that a part of it can be held out.
Texts that are only white space are left out.
"""

import codecs
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.data.paths import TABLES, TEXTS, printable, unreadable
from lab.data.tables import read_column
from settings.errors import DataError

LONGEST_TEXT = 4000  # characters; a longer text is cut
SHORTEST_PIECE = 2000
BOUNDARIES = ("\n\n", "\n", " ", "")
BLOCK = 1 << 20  # bytes read at once
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

Stamp = tuple[int, int, int]  # a file's size, its time in nanoseconds, its inode


@dataclass(frozen=True)
class CheckedFiles:
    """Files that were read once: a fingerprint of their contents, and stamps that show whether they changed since."""

    files: list[Path]
    text_field: str | None
    fingerprint: str
    stamps: list[Stamp]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(size for size, _, _ in self.stamps)


def check_files(files: list[Path], text_field: str | None) -> CheckedFiles:
    """Reads all files once. Raises DataError for files that can't be text, and for a file that changes meanwhile."""
    if text_field is not None and not any(file.suffix.lower() in TABLES for file in files):
        raise DataError(
            f"text_field={text_field!r} names a column, but {printable(files[0])} has no columns: leave text_field out"
        )
    digest = hashlib.blake2b(repr(text_field).encode("utf-8"), digest_size=16)
    stamps = []
    for file in files:
        try:
            stamps.append(_stamp(file))
            digest.update(f"{file.suffix.lower()} {stamps[-1][0]} ".encode())
            _check(file, digest)
        except OSError as error:
            raise unreadable(file, error) from error
    if len(files) == 1 and stamps[0][0] == 0:
        raise DataError(f"{printable(files[0])} is empty: give a file that holds text")
    _refuse_changed(files, stamps)
    return CheckedFiles(files, text_field, digest.hexdigest(), stamps)


def _stamp(file: Path) -> Stamp:
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _refuse_changed(files: list[Path], stamps: list[Stamp]) -> None:
    for file, stamp in zip(files, stamps):
        try:
            changed = _stamp(file) != stamp
        except OSError:
            changed = True  # it is gone
        if changed:
            name = printable(file)
            raise DataError(f"{name} changed while it was read: prepare the data again when no program writes to it")


def _check(file: Path, digest) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    remedy, offset = "Give a text file, or save it as UTF-8", 0
    with open(file, "rb") as stream:
        while True:
            block = stream.read(BLOCK)
            digest.update(block)
            packer = next((name for sign, name in PACKED.items() if not offset and block.startswith(sign)), None)
            if packer:
                raise DataError(f"{printable(file)} is not text but packed by {packer}: unpack it first")
            if file.suffix.lower() != ".parquet":
                if b"\0" in block:
                    raise DataError(f"{printable(file)} is not text: byte {offset + block.index(0)} is NUL. {remedy}")
                pending = len(decoder.getstate()[0])
                try:
                    decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    where = f"{error.reason} at byte {offset - pending + error.start}"
                    raise DataError(f"{printable(file)} is not UTF-8 text: {where}. {remedy}") from error
            if not block:
                return
            offset += len(block)


def read_files(checked: CheckedFiles, limit: int | None = None) -> Iterator[str]:
    """The documents of the files in order, at most `limit`.

    Raises DataError for a damaged table, a missing column, no text at all, or files that changed since the check.
    """
    files, found = checked.files, False
    texts = (
        text for file, stamp in zip(files, checked.stamps) if stamp[0] for text in _documents(file, checked.text_field)
    )
    try:
        for text in itertools.islice((text for text in texts if text and not text.isspace()), limit):
            found = True
            yield text
    except (DataError, UnicodeDecodeError):
        _refuse_changed(files, checked.stamps)
        raise
    _refuse_changed(files, checked.stamps)
    if not found:
        raise DataError(f"no text in {printable(files[0])}" + (f" and {len(files) - 1} more" if files[1:] else ""))


def cut(text: str) -> Iterator[str]:
    """Cuts a long text into pieces of up to 4,000 characters. Joined, they give the text again.

    A piece ends at the first blank line after 2,000 characters; if there is none, at the end of a line, or at a space.
    """
    start = 0
    while len(text) - start > LONGEST_TEXT:
        for boundary in BOUNDARIES:
            end = text.find(boundary, start + SHORTEST_PIECE, start + LONGEST_TEXT)
            if end >= 0:
                break
        end += len(boundary)
        yield text[start:end]
        start = end
    yield text[start:]


def _documents(file: Path, text_field: str | None) -> Iterator[str | None]:
    kind = file.suffix.lower()
    if kind in TABLES:
        yield from read_column(file, text_field)
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(file, error) from error
    yield from cut(text) if kind in TEXTS else [text]
