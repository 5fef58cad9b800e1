"""Finds the files that a source names: a path, a folder or a glob."""

import difflib
import functools
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from settings.errors import DataError

TEXTS = (".txt", ".md")
PAGES = (".html", ".htm")
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
READABLE = (*TEXTS, *PAGES, ".py", ".ipynb", *TABLES)
KINDS = f"{', '.join(READABLE)}, any of them packed as .gz, and .zip"
PACKED = {".xz": "xz", ".zst": "zstd", ".bz2": "bzip2", ".7z": "7-Zip", ".tar": "tar", ".tgz": "tar", ".rar": "RAR"}

LONGEST_SHOWN = 200  # characters of a path in a message
MOST_COMPARED = 10_000  # names of a folder that are compared with a mistyped one


def find_files(source: str) -> list[Path] | None:
    """The files that a path, a folder or a glob names, sorted; None if nothing has that name.

    A folder stands for all readable files in it and in its folders, except hidden ones. A link to a folder is followed
    once, unless it leads to a folder above it. Raises DataError for a file of another kind, for a pipe, a device or a
    broken link, for a folder that can't be read, and for a folder or glob without files.
    """
    if "\0" in source:
        raise DataError(f"the source '{printable(source)}' holds NUL, which no path can hold: remove it")
    name = os.path.expanduser(source)
    if os.path.isdir(name):
        files = list(_below(name))
        if not files:
            raise DataError(
                f"the folder {printable(os.path.abspath(name))} holds no file of the kinds {KINDS}"
            )
    elif os.path.lexists(name):
        files = [Path(name)]
    elif glob.has_magic(name):
        files = [Path(match) for match in _matches(name)]
        if not files:
            raise DataError(f"no file matches '{printable(source)}', searched in {printable(Path.cwd())}")
    else:
        return None
    for file in files:
        _check_kind(file)
    return sorted(files, key=lambda file: file.as_posix())


def kind_of(name: str | Path) -> str:
    """A file's suffix in small letters, without .gz: ".txt" for "a.TXT.gz"."""
    path = PurePosixPath(name)
    return PurePosixPath(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def is_readable(name: str | Path) -> bool:
    """Whether a file of that name can hold documents."""
    return kind_of(name) in READABLE or PurePosixPath(name).suffix.lower() == ".zip"


def absolute(source: str, here: str | Path | None = None) -> str:
    """The absolute path or glob of what a source names in the folder `here` (None: the working folder)."""
    name, here = os.path.expanduser(source), os.getcwd() if here is None else str(here)
    # Not os.path.abspath: it removes folder/.., which is wrong if folder is a link.
    path = Path(here, name)
    return str(path) if os.path.lexists(path) else os.path.join(glob.escape(here), name)


def relative(path: str, folder: str | Path) -> str | None:
    """The same absolute path or glob as seen from a folder, with slashes; None from another drive of Windows."""
    start = os.path.abspath(folder)
    try:
        return Path(os.path.relpath(path, start if os.path.lexists(path) else glob.escape(start))).as_posix()
    except ValueError:
        return None


def nearest(source: str) -> str | None:
    """The existing path most similar to a mistyped one, in the last folder of it that exists."""
    path = Path(os.path.expanduser(source.replace("\0", "")))
    for part in (path, *path.parents):
        if os.path.isdir(part.parent):
            names = [entry.name for _, entry in zip(range(MOST_COMPARED), _entries(part.parent))]
            near = difflib.get_close_matches(part.name, names, n=1)
            return printable(part.parent / near[0]) if near else None
    return None


def printable(path: str | Path) -> str:
    """A path for a message: unprintable characters are escaped, and a long path is shortened."""
    text = str(path)
    if len(text) > LONGEST_SHOWN:
        text = text[:LONGEST_SHOWN] + "..."
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def unreadable(path: str | Path, error: OSError) -> DataError:
    """The error for a file or folder that can't be read."""
    reason = error.strerror or error
    return DataError(f"can't read {printable(path)}: {reason}. Give access to it, or move it elsewhere")


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        yield from os.scandir(folder)
    except OSError:
        return  # a folder that can't be listed offers no names


def _refuse(error: OSError) -> None:
    raise unreadable(error.filename, error) from error


def _below(folder: str) -> Iterator[Path]:
    root = Path(os.path.realpath(folder))
    seen = set(map(str, root.parents))  # links to folders above would lead back here
    waiting = [folder]
    while waiting:
        links = []
        for parent, folders, names in os.walk(waiting.pop(0), onerror=_refuse):
            real = os.path.realpath(parent)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not name.startswith(".")]  # .git, .venv: not entered
            links += [path for name in folders if os.path.islink(path := os.path.join(parent, name))]
            for name in names:
                if not name.startswith(".") and is_readable(name):
                    yield Path(parent, name)
        waiting += sorted(links)  # at the end, so that files are found without links first


def _matches(pattern: str) -> Iterator[str]:
    leads_back = functools.cache(_leads_back)
    for match in glob.iglob(pattern, recursive=True):
        for folder in Path(match).parents if "**" in pattern else ():
            if leads_back(folder):
                raise DataError(
                    f"{printable(folder)} is a link to a folder above it, so '{printable(pattern)}' matches the same "
                    "files again and again: remove the link, or name the folder in place of the pattern"
                )
        if not os.path.isdir(match):
            yield match


def _leads_back(folder: Path) -> bool:
    """Whether a folder is a link to a folder that holds it."""
    return folder.is_symlink() and Path(os.path.realpath(folder.parent)).is_relative_to(os.path.realpath(folder))


def _check_kind(file: Path) -> None:
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        if os.path.islink(file):
            target = printable(os.readlink(file))
            name = printable(file)
            raise DataError(f"{name} is a link that leads nowhere ({target}): mend it or remove it") from error
        raise unreadable(file, error) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{printable(file)} is a pipe, a socket or a device, not a regular file: name files with text")
    if not is_readable(file.name):
        packer = PACKED.get(kind_of(file.name))
        if packer:
            raise DataError(f"can't read {printable(file)}: it is packed by {packer}; unpack it first")
        raise DataError(f"can't read {printable(file)}: its kind is none of {KINDS}. Convert it to one of them")
