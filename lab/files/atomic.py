"""Writes files atomically: first beside the target, then renamed to it. So a half-written file can't exist."""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

ABANDONED = 3600  # seconds without a change


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it to `path` on success, removes it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Deletes the unfinished files of these names that killed processes left in `folder`.

    Call it only if no other process can be writing such a file there.
    """
    for name in names:
        for path in folder.glob(f".{escape(name)}.*.part"):
            path.unlink(missing_ok=True)


def is_abandoned(last_change: float) -> bool:
    """Whether something unfinished counts as left by a process that has ended. last_change: its time of change."""
    return time.time() - last_change > ABANDONED


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    atomic_write_bytes(path, text.encode("utf-8"))


def _umask() -> int:
    """The permissions that a new file does not get. mkstemp gives 0600, which other users can't read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
