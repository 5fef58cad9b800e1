"""Writing files so that a half-written one can't exist: write beside the target, then rename over it."""

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
    """Deletes what `atomic_path` leaves of files of these names in `folder` where its process was killed.

    For those alone who know that nobody else is writing such a file there."""
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
    """The permissions a plainly opened file would lose; mkstemp alone gives 0600, which others can't read."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
