"""The cache of prepared data: one folder per entry. When it grows too large, the longest unused entry is removed first.

Entries are in the folder `data` of the cache folder ($GLASSBOX_CACHE, or the platform's own). Together they take up to
$GLASSBOX_CACHE_LIMIT: bytes, or a number followed by K, M, G or T (powers of 1024), by default 4G. A new entry is kept
even if it alone is larger, and so is every entry that some process holds a `Lease` on. Only folders with the marker
file are removed.
"""

import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from lab.data.leases import is_leased
from lab.files.atomic import is_abandoned
from settings.errors import DataError
from settings.paths import cache_folder

MARKER = "made-by-glassbox.txt"  # holds the entry's description; its time of change is that of the last use
LIMIT = "4G"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
PART = ".part"
ATTEMPTS = 3  # to make an entry while other processes remove it

T = TypeVar("T")


class Damaged(DataError):
    """Raised by a loader so that the entry is made again; the message names the fault."""


@dataclass(frozen=True)
class CacheEntry:
    """One entry: its size on disk, and when it was made or last used."""

    key: str
    description: str
    bytes: int
    last_used: datetime

    def __str__(self) -> str:
        return f"{self.key}  {self.last_used:%Y-%m-%d %H:%M}  {self.bytes:>13,} bytes  {self.description}"


@contextmanager
def in_cache() -> Iterator[None]:
    """Turns an OSError into a DataError that names the cache folder and says how to choose another."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"can't use the cache folder {_data_folder()}: {error.strerror or error}. Make room or give access there, "
            "or name another folder in the environment variable GLASSBOX_CACHE"
        ) from error


@in_cache()
def list_cache() -> list[CacheEntry]:
    """All entries, the last used first."""
    entries = []
    for folder in _data_folder().glob("*/"):
        try:
            files = [path.stat() for path in folder.iterdir()]
            description = (folder / MARKER).read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):  # not ours, or just removed by another process
            continue
        last_used = max(file.st_mtime for file in files)
        if folder.suffix != PART or is_abandoned(last_used):
            size = sum(file.st_size for file in files)
            entries.append(CacheEntry(folder.name, description, size, datetime.fromtimestamp(last_used)))
    return sorted(entries, key=lambda entry: entry.last_used, reverse=True)


@in_cache()
def clear_cache(keys: Iterable[str] | None = None) -> int:
    """Removes the entries of these keys (None: all) and returns the bytes freed. Raises DataError for unknown keys."""
    entries = {entry.key: entry for entry in list_cache()}
    chosen = list(entries if keys is None else keys)
    unknown = [key for key in chosen if key not in entries]
    if unknown:
        raise DataError(f"no prepared data with the key {unknown[0]!r}; there are: {', '.join(entries) or 'none'}")
    for key in chosen:
        _remove(_data_folder() / key)
    return sum(entries[key].bytes for key in chosen)


def load_or_build(key: str, description: str, build: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """The result of `load` for the folder of `key`. If there is none, or it is Damaged, `build` fills it first.

    The folder appears complete or not at all, even if something fails or another process makes the same entry.
    """
    folder = _data_folder() / key
    for _ in range(ATTEMPTS):
        with in_cache():
            loaded = _load(folder, description, load)
        if loaded is not None:
            return loaded
        limit = _limit()
        _make(folder, description, build)
        with in_cache():
            _shrink(limit, folder.name)
    raise DataError(
        f"prepared data of {description} was removed {ATTEMPTS} times as soon as it was made: another process clears "
        "the cache folder. Prepare it again when that process has ended"
    )


@in_cache()
def open_growing(key: str, description: str) -> Path:
    """The folder of an entry that is filled little by little, and stays when its maker is stopped."""
    folder = _data_folder() / key
    if not (folder / MARKER).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(description, encoding="utf-8")
    _touch(folder)
    return folder


@in_cache()
def keep_newest(prefix: str, count: int) -> None:
    """Of the entries whose keys begin with `prefix`, removes the longest unused until `count` are left.

    Those on which a process holds a lease stay, and count.
    """
    left = [entry.key for entry in list_cache() if entry.key.startswith(prefix)]
    for key in reversed(left[:]):
        if len(left) > count and _discard(key):
            left.remove(key)


def _load(folder: Path, description: str, load: Callable[[Path], T]) -> T | None:
    """The result of `load` for the folder; None if there is none, or if it was Damaged and has been removed."""
    if not folder.exists():
        return None
    try:
        loaded = load(folder)
    except Damaged as fault:
        if not (folder / MARKER).exists():
            if folder.exists():
                raise DataError(f"{folder} is in the way, and Glassbox did not make it: move it elsewhere") from fault
            return None  # another process has just removed it
        warnings.warn(f"prepared data of {description} is damaged ({fault}): it is made again", stacklevel=4)
        _remove(folder)
        return None
    _touch(folder)
    return loaded


def _data_folder() -> Path:
    return cache_folder() / "data"


def _limit() -> int:
    text = os.environ.get("GLASSBOX_CACHE_LIMIT") or LIMIT
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise DataError(f"GLASSBOX_CACHE_LIMIT={text!r} is not a size: give bytes, or K, M, G or T, as in 4G")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _make(folder: Path, description: str, build: Callable[[Path], None]) -> None:
    part = _part(folder)
    try:
        with in_cache():
            part.mkdir(parents=True)
            (part / MARKER).write_text(description, encoding="utf-8")
        build(part)
        with in_cache():
            try:
                part.rename(folder)
            except OSError:
                if not (folder / MARKER).exists():
                    raise
                # Another process was first; its entry is equally good.
    finally:
        if part.exists():
            _delete(part)


def _shrink(limit: int, kept: str) -> None:
    """Removes entries, the longest unused first, until the rest is within the limit."""
    entries = list_cache()
    total = sum(entry.bytes for entry in entries)
    for entry in reversed(entries):
        if total > limit and entry.key != kept and _discard(entry.key, entry.description):
            total -= entry.bytes


def _discard(key: str, description: str | None = None) -> bool:
    """Removes an entry unless a process uses it; returns whether it is gone."""
    if is_leased(key):
        return False
    try:
        _remove(_data_folder() / key)
    except PermissionError as error:  # Windows: a process has it open
        warnings.warn(f"prepared data {description or key} can't be removed now: {error}", stacklevel=5)
        return False
    return True


def _touch(folder: Path) -> None:
    with suppress(OSError):  # a read-only cache works too: nothing is removed from it
        os.utime(folder / MARKER)


def _remove(folder: Path) -> None:
    """Renames the folder, so that no process finds half of it, then deletes it."""
    part = _part(folder)
    with suppress(FileNotFoundError):  # another process removes it as well
        folder.rename(part)
        _delete(part)


def _part(folder: Path) -> Path:
    """A new path beside the folder, for an entry that is being made or deleted."""
    return folder.with_name(f"{folder.name.partition('.')[0]}.{uuid.uuid4().hex[:8]}{PART}")


def _delete(folder: Path) -> None:
    """Deletes the folder, the marker last, so that an interrupted deletion can be continued."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == MARKER):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()
