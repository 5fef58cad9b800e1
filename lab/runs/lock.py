"""Only one process at a time can train or make a run. It holds the operating system's lock, which ends with it."""

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from lab.files.atomic import atomic_write_text, is_abandoned
from settings.errors import RunError

LOCK, HOLDER = "lock", "holder.json"
UNFINISHED = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # the folder's name by tempfile, while a run is made


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Inside the `with`, no other process can hold the run in `folder`, and this one can't hold it a second time.

    Raises RunError if the run is held, with process, machine and time, and if the folder is gone or can't be written.
    The lock is on the file `lock`; holder.json beside it only names its holder. A killed process leaves both files, but
    no lock.
    """
    lock = acquire(folder)
    try:
        yield
    finally:
        try:
            (folder / HOLDER).unlink(missing_ok=True)
        finally:
            lock.release()


def acquire(folder: Path) -> FileLock:
    """Takes the lock of the run in `folder` and writes holder.json."""
    if not folder.is_dir():
        raise RunError(f"{folder} is gone: the run was deleted or moved; make a new one")
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)  # a generator may be closed by another thread
    try:
        lock.acquire()
        atomic_write_text(folder / HOLDER, json.dumps(describe_process()) + "\n")
    except Timeout as error:
        raise RunError(describe_holder(folder)) from error
    except OSError as error:
        lock.release()
        raise RunError(
            f"can't write into {folder}: {error.strerror or error}. A run that trains or is deleted must be writable; "
            "mend its permissions, or copy it to a folder of your own"
        ) from error
    return lock


def describe_process() -> dict[str, object]:
    return {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(" ", "seconds")}


def describe_holder(folder: Path) -> str:
    """Which process holds the run, in words."""
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        pid, host, since = (holder[key] for key in ("pid", "host", "since"))
    except (OSError, ValueError, KeyError, TypeError):  # only the message says less
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
    """Deletes the folder of a run. Raises RunError if another process holds it, and if files can't be deleted."""
    try:
        with hold(folder):
            for entry in folder.iterdir():
                if entry.name not in (LOCK, HOLDER):  # Windows deletes no file that is open
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"can't delete all of {folder}: {error.strerror or error}; mend its permissions") from error


@contextmanager
def build_folder(name: str, folder: Path) -> Iterator[Path]:
    """Yields a hidden folder to fill. It is renamed to `folder`/`name` if the `with` ends without an exception.

    First, hidden folders that killed processes have left are deleted.
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
    """Deletes the hidden folders in which a process that has ended was making or importing a run.

    The process has ended if the folder's lock is free. Folders of earlier versions have no lock: they must be an hour
    old.
    """
    for path in folder.iterdir():
        match = UNFINISHED.fullmatch(path.name)
        if match and not path.is_symlink() and path.is_dir() and is_unfinished_run(path, match[1]):
            shutil.rmtree(path, ignore_errors=True)  # what can't be deleted may stay: it disturbs nothing


def is_unfinished_run(path: Path, name: str) -> bool:
    """Whether the hidden folder holds a run named `name` that nobody makes any more."""
    try:
        held = {entry.name for entry in path.iterdir()}
        if not held <= {name, LOCK}:
            return False  # another folder with a similar name
        if LOCK not in held:
            return is_abandoned(path.stat().st_mtime)
        with FileLock(path / LOCK, timeout=0, thread_local=False):
            return True
    except OSError:  # held (Timeout is an OSError), or deleted meanwhile
        return False
