"""The text files that a source names, as they are stored: plain, packed by gzip, or members of a zip.

All are read as streams, so that memory does not grow with them, and nothing is unpacked to disk.
"""

import fnmatch
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO

from lab.data.encodings import HEAD, encoding_of
from lab.data.paths import KINDS, find_files, is_readable, kind_of, printable
from settings.errors import DataError

BLOCK = 1 << 16  # characters read at once
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
# A packed text is rarely a fiftieth of its size. What is far smaller is made to fill memory or disk.
MOST_TIMES, HARMLESS = 200, 1 << 26


class Archive:
    """A zip, open while it is used as a context; it may be entered again and again."""

    def __init__(self, path: Path):
        self.path, self.users, self.zip = path, 0, None

    def __enter__(self) -> zipfile.ZipFile:
        if not self.users:
            self.zip = zipfile.ZipFile(self.path)
        self.users += 1
        return self.zip

    def __exit__(self, *_) -> None:
        self.users -= 1
        if not self.users:
            self.zip.close()


@dataclass(frozen=True)
class StoredFile:
    """A file with text. place: its path below the folder that was named. encoding: the one given, if any."""

    path: Path
    place: str
    encoding: str | None = None
    archive: Archive | None = field(default=None, repr=False)
    member: zipfile.ZipInfo | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return printable(self.path if self.member is None else f"{self.path}/{self.member.filename}")

    @property
    def kind(self) -> str:
        """Its suffix without .gz, such as ".txt"."""
        return kind_of(self.place)

    @property
    def stored_size(self) -> int:
        """Its bytes on disk."""
        return self.path.stat().st_size if self.member is None else self.member.compress_size

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its content as a stream of bytes. Raises DataError where what is packed is damaged."""
        with (
            told_damage(str(self)),
            self.archive or nullcontext() as archive,
            io.BufferedReader(archive.open(self.member)) if archive else open(self.path, "rb") as stream,
            gzip.open(stream) if stream.peek(2)[:2] == GZIP else nullcontext(stream) as unpacked,
        ):
            yield unpacked

    @contextmanager
    def open_text(self, newline: str | None = None) -> Iterator[TextIO]:
        """Its text, without a byte order mark. newline: as for `open`; None makes every line end a newline."""
        with self.open() as stream:
            encoding = encoding_of(stream.peek(HEAD)[:HEAD], self.kind, self.encoding)
            with io.TextIOWrapper(stream, encoding, newline=newline) as text:
                yield text

    def blocks(self) -> Iterator[str]:
        """Its text in blocks, every line end a newline."""
        with self.open_text() as stream:
            yield from iter(lambda: stream.read(BLOCK), "")

    def refuse_bomb(self, size: int) -> None:
        """Raises DataError if so many bytes have come out of a file that is far smaller."""
        if size > HARMLESS and size > MOST_TIMES * self.stored_size:
            raise _bomb(str(self), size, self.stored_size)


@contextmanager
def told_damage(name: str) -> Iterator[None]:
    """Turns what is raised for damaged packed files into a DataError."""
    try:
        yield
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} is damaged: {reason}. Copy or download it again, or leave it out") from error
    except NotImplementedError as error:
        raise DataError(f"{name} is packed in a way that Python can't read ({error}): unpack it first") from error


def stored_files(
    source: str, encoding: str | None = None, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[StoredFile] | None:
    """The files that a path, a folder, a zip or a glob names, sorted; None if nothing has that name.

    A zip stands for all readable files in it, as a folder does. include, exclude: glob patterns of paths below the
    folder or the zip, where ** stands for any folders; a file that an exclude names is left out. Raises DataError as
    `find_files` does, for a zip that can't be read, and for a pattern that no file matches.
    """
    paths = find_files(source)
    if paths is None:
        return None
    top = Path(os.path.expanduser(source))
    single = len(paths) == 1 and paths[0] == top
    if (include or exclude) and not (top.is_dir() or (single and is_zip(top))):
        raise DataError(f"include and exclude choose files of a folder or a zip, not of '{printable(source)}'")
    found = []
    for path in paths:
        place = "" if single else path.relative_to(top).as_posix() if top.is_dir() else path.as_posix()
        if not is_zip(path):
            found.append(StoredFile(path, place or path.name, encoding))
        elif not matching(place, exclude):
            found += members_of(path, place, encoding)
    chosen = [file for file in found if not include or matching(file.place, include)]
    chosen = [file for file in chosen if not matching(file.place, exclude)]
    if include or exclude:
        zips = [path.relative_to(top).as_posix() for path in paths if path != top]  # those left out whole among them
        check_patterns(source, [*(file.place for file in found), *zips], include, exclude)
    for file in chosen:
        if file.member and file.member.flag_bits & 1:
            raise DataError(f"{file} is encrypted: unpack the zip with its password, or leave this file out (exclude)")
    if not chosen:
        raise DataError(
            f"{printable(source)} holds no file of the kinds {KINDS}" + (", that is chosen" if found else "")
        )
    return chosen


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def members_of(path: Path, place: str, encoding: str | None) -> list[StoredFile]:
    """The readable files in a zip, sorted, without hidden ones. Raises DataError for a damaged zip, and for one that
    unpacks to far more than it is."""
    archive = Archive(path)
    with told_damage(printable(path)), archive as opened:
        infos = [info for info in opened.infolist() if not info.is_dir() and _is_wanted(info.filename)]
    size, stored = sum(info.file_size for info in infos), path.stat().st_size
    if size > HARMLESS and size > MOST_TIMES * stored:
        raise _bomb(printable(path), size, stored)
    infos.sort(key=lambda info: info.filename)
    below = f"{place}/" if place else ""
    return [StoredFile(path, below + info.filename, encoding, archive, info) for info in infos]


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return is_readable(name) and not name.lower().endswith(".zip") and not any(
        part.startswith((".", "__MACOSX")) for part in parts
    )


def _bomb(name: str, size: int, stored: int) -> DataError:
    return DataError(
        f"{name} has {stored:,} bytes and unpacks to {size:,} or more, over {MOST_TIMES} times as many: no text is so "
        "dense. If you trust it, unpack it first"
    )


def in_archives(files: Sequence[StoredFile]) -> Iterator[StoredFile]:
    """The files in order; the zip of those that follow each other stays open meanwhile."""
    for archive, group in groupby(files, key=lambda file: file.archive):
        with told_damage(printable(archive.path) if archive else ""), archive or nullcontext():
            yield from group


# --- patterns -----------------------------------------------------------------------------------------------------


def matching(place: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names a path: `*` stays within a folder, `**` is any number of folders."""
    parts = place.split("/")
    return any(_matches(parts, pattern.split("/")) for pattern in patterns)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return parts == pattern or pattern == ["**"]
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def check_patterns(source: str, places: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> None:
    """Raises DataError for a pattern that names none of these paths."""
    for setting, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if any(matching(place, [pattern]) for place in places):
                continue
            deeper = [f"{pattern.rstrip('/')}/**", f"**/{pattern}", f"**/{pattern.rstrip('/')}/**"]
            near = [one for one in deeper if any(matching(place, [one]) for place in places)]
            raise DataError(
                f"{setting} {pattern!r} names no readable file in {printable(source)}; "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"patterns are of paths below it, such as {printable(places[0])!r}, and ** stands for any folders"
            )
