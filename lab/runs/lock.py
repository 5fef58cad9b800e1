"""One process holds a run while it trains or is made: by the operating system's lock, which ends with its process."""

import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.files.atomic import atomic_write_text
from settings.errors import RunError

LOCK, HOLDER = "lock", "holder.json"
UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # as tempfile names the folder in which a run of that name is made
ABANDONED = 3600  # seconds without a change, after which a folder without a lock is nobody's


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Within the `with`, no other process can hold the run in `folder`, and this one not a second time.

    Raises RunError where somebody does, with process, machine and time, and where the folder is gone or can't be
    written. The lock is on the file `lock`; holder.json beside it only names who has it. A killed process leaves both
    files, and no lock.
    """
    lock = acquired(folder)
    try:
        yield
    finally:
        try:
            (folder / HOLDER).unlink(missing_ok=True)
        finally:
            lock.release()


def acquired(folder: Path) -> FileLock:
    if not folder.is_dir():
        raise RunError(f"{folder} is gone: the run was deleted or moved; make a new one")
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)  # a generator may be closed by another thread
    try:
        lock.acquire()
        atomic_write_text(folder / HOLDER, json.dumps(this_process()) + "\n")
    except Timeout as error:
        raise RunError(held_by(folder)) from error
    except OSError as error:
        lock.release()
        raise RunError(
            f"can't write into {folder}: {error.strerror or error}. A run that trains or is deleted must be writable; "
            "mend its permissions, or copy it to a folder of your own"
        ) from error
    return lock


def this_process() -> dict[str, object]:
    return {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}


def held_by(folder: Path) -> str:
    """Who holds the run, in words; as far as it is known."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        pid, host, since = (holder[key] for key in ("pid", "host", "since"))
    except (OSError, ValueError, KeyError, TypeError):  # it is only the message that says less then
        return f"another process holds run {folder.name!r}; wait until it has ended, or stop it"
    if (pid, host) == (os.getpid(), platform.node()):
        return (
            f"this very process holds run {folder.name!r} since {since}: a training of it, begun by another cell or "
            "call, has not ended. Stop that one, close() its steps, or restart the kernel"
        )
    return (
        f"process {pid} on {host} holds run {folder.name!r} since {since}; wait until it has ended, or stop it. One "
        "that was killed holds nothing"
    )


def delete_held(folder: Path) -> None:
    """Deletes the folder of a run that nobody else holds. Raises RunError where somebody does, or it can't be."""
    try:
        with hold(folder):
            for entry in folder.iterdir():
                if entry.name not in (LOCK, HOLDER):  # Windows deletes no file that is open
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"can't delete all of {folder}: {error.strerror or error}; mend its permissions") from error


@contextmanager
def making(name: str, folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, that becomes `folder`/`name` when the `with` ends without an exception, whole.

    What processes that were killed meanwhile have left of such folders is deleted first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished_runs(folder)
    with (
        tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as temporary,
        FileLock(Path(temporary) / LOCK, timeout=0, thread_local=False),
    ):
        building = Path(temporary) / name
        building.mkdir()
        yield building
        building.rename(folder / name)


def remove_unfinished_runs(folder: Path) -> None:
    """Deletes the hidden folders of runs that were being made or imported, and whose process lives no more.

    That is so where the lock in it is free; where there is none, as in those of earlier versions, after an hour.
    """
    for path in folder.iterdir():
        match = UNFINISHED.fullmatch(path.name)
        if match and not path.is_symlink() and path.is_dir() and is_abandoned(path, match[1]):
            shutil.rmtree(path, ignore_errors=True)  # it is in nobody's way: what can't be deleted stays


def is_abandoned(path: Path, name: str) -> bool:
    try:
        held = {entry.name for entry in path.iterdir()}
        if not held <= {name, LOCK}:
            return False  # something else that looks alike
        if LOCK not in held:
            return time.time() - path.stat().st_mtime > ABANDONED
        with FileLock(path / LOCK, timeout=0, thread_local=False):
            return True
    except OSError:  # held (Timeout is one), or gone by now
        return False
