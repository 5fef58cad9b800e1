"""Documents from a user's own files: txt, md, html, py, ipynb, jsonl, csv, tsv and parquet; also as gzip or in a zip.

A Python file and a notebook are each one document, and so is each row of a table (jsonl, csv, tsv, parquet). A text
(txt, md, html) of up to 4,000 characters is one document; a longer one, such as a book, is cut into pieces, so that a
part of it can be held out. With `split="tail"` it is one document, whatever its length. Texts that are only white space
are left out.

In texts every line end (LF, CRLF, CR) becomes a newline, and a byte order mark is left out: the same text with other
line ends has the same tokens, and a run may go on with it. The cells of tables stay as they are.
"""

import codecs
import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.data.encodings import encoding_of, guess_remedy, nul_remedy, plain_name
from lab.data.markup import html_text, notebook_text
from lab.data.paths import PAGES, TABLES, TEXTS, printable, unreadable
from lab.data.stored_files import StoredFile, in_archives
from lab.data.tables import read_column
from settings.errors import DataError

LONGEST_TEXT = 4000  # characters; a longer text is cut
LONGEST_PIECE = 1 << 14  # characters of a text that is read in pieces, but is one document
BOUNDARIES = ("\n\n", "\n", " ", "。", "，", "")
BLOCK = 1 << 20  # bytes read at once
PACKED = {
    b"\x1f\x8b": "gzip twice", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR",
}

Stamp = tuple[int, int, int]  # a file's size, its time in nanoseconds, its inode
Piece = tuple[str | None, bool]  # of a document, and whether it is the document's last


@dataclass(frozen=True)
class Content:
    """What a file was found to hold. size: in bytes, unpacked. encoding: None for parquet."""

    size: int
    encoding: str | None
    longest_line: int  # characters; only of lines that are longer than a block is it sure to be told


@dataclass(frozen=True)
class CheckedFiles:
    """Files that were read once: a fingerprint of their contents, and stamps that show whether they changed since."""

    files: list[StoredFile]
    text_field: str | None
    fingerprint: str
    stamps: dict[Path, Stamp]
    contents: list[Content]

    @property
    def size(self) -> int:
        """Bytes of all files together, unpacked."""
        return sum(content.size for content in self.contents)

    @property
    def about(self) -> str:
        """How many files, and of how many bytes, unpacked."""
        return f"{len(self.files):,} file{'s' if len(self.files) > 1 else ''}, {self.size:,} bytes"

    def refuse_changed(self) -> None:
        """Raises DataError if a file is not as it was when it was read."""
        for path, stamp in self.stamps.items():
            try:
                changed = _stamp(path) != stamp
            except OSError:
                changed = True  # it is gone
            if changed:
                name = printable(path)
                raise DataError(
                    f"{name} changed while it was read: prepare the data again when no program writes to it"
                )


def check_files(files: list[StoredFile], text_field: str | None) -> CheckedFiles:
    """Reads all files once. Raises DataError for files that can't be text, and for a file that changes meanwhile."""
    if text_field is not None and not any(file.kind in TABLES for file in files):
        raise DataError(
            f"text_field={text_field!r} names a column, but {files[0]} has no columns: leave text_field out"
        )
    digest, stamps, contents = hashlib.blake2b(repr(text_field).encode("utf-8"), digest_size=16), {}, []
    for file in in_archives(files):
        try:
            stamps.setdefault(file.path, _stamp(file.path))
            contents.append(_check(file, digest))
        except OSError as error:
            raise unreadable(file.path, error) from error
        digest.update(f"{file.kind} {file.encoding} {contents[-1].size} ".encode())
    if len(files) == 1 and contents[0].size == 0:
        raise DataError(f"{files[0]} is empty: give a file that holds text")
    given = files[0].encoding
    if given is not None and not any(content.encoding == given for content in contents):
        raise DataError(f"encoding={given!r} is not used: the files say their encoding themselves; leave it out")
    checked = CheckedFiles(files, text_field, digest.hexdigest(), stamps, contents)
    checked.refuse_changed()
    return checked


def _stamp(path: Path) -> Stamp:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _check(file: StoredFile, digest) -> Content:
    text = None if file.kind == ".parquet" else _TextCheck(file)
    size = 0
    with file.open() as stream:
        while True:
            block = stream.read(BLOCK)
            if not size:
                _refuse_packed(file, block)
            digest.update(block)
            if text:
                text.add(block)
            if not block:
                break
            size += len(block)
            file.refuse_bomb(size)
    return Content(size, text and text.encoding, text.longest_line if text else 0)


def _refuse_packed(file: StoredFile, head: bytes) -> None:
    packer = next((name for sign, name in PACKED.items() if head.startswith(sign)), None)
    if packer:
        remedy = "name it .zip" if packer == "zip" and not file.member else "unpack it first"
        raise DataError(f"{file} is not text but packed by {packer}: {remedy}")


class _TextCheck:
    """Decodes a file block by block. Raises DataError for what is not text."""

    def __init__(self, file: StoredFile):
        self.file, self.encoding, self.decoder = file, "", None
        self.offset = self.line = self.longest_line = 0

    def add(self, block: bytes) -> None:
        """The next block; an empty one is the end."""
        if self.decoder is None:
            self.encoding = encoding_of(block, self.file.kind, self.file.encoding)
            self.decoder = codecs.getincrementaldecoder(self.encoding)()
        name, pending = plain_name(self.encoding), len(self.decoder.getstate()[0])
        if self.encoding.startswith("utf-8") and b"\0" in block:
            place = self.offset + block.index(0)
            raise DataError(f"{self.file} is not text: byte {place} is NUL. {nul_remedy(block)}")
        try:
            text = self.decoder.decode(block, final=not block)
        except UnicodeError as error:
            place = getattr(error, "start", 0) - pending
            reason = getattr(error, "reason", error)
            remedy = f"Leave encoding={self.encoding!r} out, or give the right one"
            if self.file.encoding is None:
                remedy = guess_remedy(block, max(0, place))
            raise DataError(
                f"{self.file} is not {name} text: {reason} at byte {self.offset + place}. {remedy}"
            ) from error
        if "\0" in text:
            raise DataError(f"{self.file} is not {name} text: it holds NUL characters. Give the right encoding")
        self.count_line(text)
        self.offset += len(block)

    def count_line(self, text: str) -> None:
        sign = "\n" if "\n" in text else "\r"
        first, last = text.find(sign), text.rfind(sign)
        self.longest_line = max(self.longest_line, self.line + (first if first >= 0 else len(text)))
        self.line = len(text) - last - 1 if last >= 0 else self.line + len(text)


def read_files(checked: CheckedFiles, limit: int | None = None) -> Iterator[str]:
    """The documents of the files in order, at most `limit`.

    Raises DataError for a damaged table, a missing column, no text at all, or files that changed since the check.
    """
    return (text for text, _ in read_pieces(checked, limit))


def read_pieces(checked: CheckedFiles, limit: int | None = None, uncut: bool = False) -> Iterator[tuple[str, bool]]:
    """As `read_files`, each document in pieces, with whether a piece is its last. uncut: long texts are one document.

    Only long texts that are uncut have several pieces; joined, they are the text.
    """
    found = 0
    try:
        for text, ends in _without_blank(all_pieces(checked, uncut)):
            yield text, ends
            found += ends
            if found == limit:
                break
    except (DataError, UnicodeError):
        checked.refuse_changed()
        raise
    checked.refuse_changed()
    if not found:
        files = checked.files
        raise DataError(f"no text in {files[0]}" + (f" and {len(files) - 1} more" if files[1:] else ""))


def joined(pieces: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """The documents whose pieces these are."""
    text = []
    for piece, ends in pieces:
        text.append(piece)
        if ends:
            yield "".join(text)
            text.clear()


def all_pieces(checked: CheckedFiles, uncut: bool = False) -> Iterator[Piece]:
    """The pieces of all documents, those without text among them: a row without one is None."""
    files = [file for file, content in zip(checked.files, checked.contents) if content.size]
    for file in in_archives(files):
        try:
            yield from _pieces(file, checked.text_field, uncut)
        except OSError as error:
            raise unreadable(file.path, error) from error


def _pieces(file: StoredFile, text_field: str | None, uncut: bool) -> Iterator[Piece]:
    if file.kind in TABLES:
        yield from ((text, True) for text in read_column(file, text_field))
        return
    blocks = html_text(file.blocks(), str(file)) if file.kind in PAGES else file.blocks()
    if file.kind not in (*TEXTS, *PAGES):
        text = "".join(blocks)
        yield (notebook_text(text, str(file)) if file.kind == ".ipynb" else text), True
    elif not uncut:
        yield from ((text, True) for text in cut(blocks))
    else:
        text = None
        for following in filter(None, cut(blocks, LONGEST_PIECE)):
            if text is not None:
                yield text, False
            text = following
        yield text, True


def _without_blank(pieces: Iterable[Piece]) -> Iterator[tuple[str, bool]]:
    """The pieces without documents of white space alone."""
    waiting, begun = [], False
    for text, ends in pieces:
        if begun or (text and not text.isspace()):
            yield from waiting
            yield text, ends
            waiting, begun = [], not ends
        else:
            waiting = [] if ends else [*waiting, (text, ends)]


def cut(blocks: Iterable[str], longest: int = LONGEST_TEXT) -> Iterator[str]:
    """Cuts a long text, which comes in blocks, into pieces of up to `longest` characters. Joined, they are the text.

    A piece ends at the first blank line of its second half; if there is none, at the end of a line, at a space, after
    a Chinese or Japanese full stop or comma, or else in the middle, but not before an accent that combines.
    """
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > longest:
            end = _end_of_piece(rest, start, longest)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    yield rest


def _end_of_piece(text: str, start: int, longest: int) -> int:
    for boundary in BOUNDARIES:
        end = text.find(boundary, start + longest // 2, start + longest)
        if end >= 0:
            break
    end += len(boundary)
    while not boundary and end < start + longest and unicodedata.combining(text[end]):
        end += 1
    return end
