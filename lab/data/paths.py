"""The files that a source names: a path, a folder or a glob, as people have them."""

import difflib
import functools
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from settings.errors import DataError

TEXTS = (".txt", ".md")
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
READABLE = (*TEXTS, ".py", *TABLES)

LONGEST_SHOWN = 200  # characters of a path in a message
MOST_COMPARED = 10_000  # names of a folder that are compared with a mistyped one


def find_files(source: str) -> list[Path] | None:
    """The files that a path, a folder or a glob names, sorted; None if nothing has that name.

    A folder stands for all readable files in it and below, without hidden ones. A link to a folder is followed once,
    unless it leads to a folder above it. Raises DataError for a file of another kind, for what is no file (a pipe, a
    device, a link that leads nowhere), for a folder that can't be read, and for a folder or glob without files."""
    if "\0" in source:
        raise DataError(f"the source '{shown(source)}' holds NUL, which no path can hold: remove it")
    name = os.path.expanduser(source)
    if os.path.isdir(name):
        files = list(_below(name))
        if not files:
            raise DataError(
                f"the folder {shown(os.path.abspath(name))} holds no file of the kinds {', '.join(READABLE)}"
            )
    elif os.path.lexists(name):
        files = [Path(name)]
    elif glob.has_magic(name):
        files = [Path(match) for match in _matches(name)]
        if not files:
            raise DataError(f"no file matches '{shown(source)}', looked for from {shown(Path.cwd())}")
    else:
        return None
    for file in files:
        _check_kind(file)
    return sorted(files, key=lambda file: file.as_posix())


def absolute(source: str) -> str:
    """The path or glob that names the same files from every folder."""
    name, here = os.path.expanduser(source), os.getcwd()
    # Not os.path.abspath: it takes folder/.. away, which is another place where folder is a link.
    return str(Path(here, name)) if os.path.lexists(name) else os.path.join(glob.escape(here), name)


def nearest(source: str) -> str | None:
    """The existing path that is most like a mistyped one: looked for in the last folder of it that exists."""
    path = Path(os.path.expanduser(source.replace("\0", "")))
    for part in (path, *path.parents):
        if os.path.isdir(part.parent):
            names = [entry.name for _, entry in zip(range(MOST_COMPARED), _entries(part.parent))]
            near = difflib.get_close_matches(part.name, names, n=1)
            return shown(part.parent / near[0]) if near else None
    return None


def shown(path: str | Path) -> str:
    """A path as a message shows it: what can't be printed is escaped, and a long one is shortened."""
    text = str(path)
    if len(text) > LONGEST_SHOWN:
        text = text[:LONGEST_SHOWN] + "..."
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def unreadable(path: str | Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    return DataError(f"can't read {shown(path)}: {error.strerror or error}. Give access to it, or move it elsewhere")


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        yield from os.scandir(folder)
    except OSError:
        return  # a folder that can't be listed has no name to offer


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
            folders[:] = [name for name in folders if not name.startswith(".")]  # .git, .venv: not even looked into
            links += [path for name in folders if os.path.islink(path := os.path.join(parent, name))]
            for name in names:
                if not name.startswith(".") and Path(name).suffix.lower() in READABLE:
                    yield Path(parent, name)
        waiting += sorted(links)  # after all that lies in the folder itself, so that this is found without links


def _matches(pattern: str) -> Iterator[str]:
    leads_back = functools.cache(_leads_back)
    for match in glob.iglob(pattern, recursive=True):
        for folder in Path(match).parents if "**" in pattern else ():
            if leads_back(folder):
                raise DataError(
                    f"{shown(folder)} is a link to a folder above it, so '{shown(pattern)}' matches the same files "
                    "again and again: remove the link, or name the folder in place of the pattern"
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
            target = shown(os.readlink(file))
            raise DataError(f"{shown(file)} is a link that leads nowhere ({target}): mend it or remove it") from error
        raise unreadable(file, error) from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{shown(file)} is no regular file but a pipe, a socket or a device: name files that hold text")
    if file.suffix.lower() not in READABLE:
        raise DataError(
            f"can't read {shown(file)}: its kind is none of {', '.join(READABLE)}. Convert it to one of them"
        )
