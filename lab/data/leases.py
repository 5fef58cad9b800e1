"""Leases on entries of the cache: an entry in use is not removed, whichever process uses it.

A lease is a file of its own in the folder `leases` of the cache folder, on which its process holds the operating
system's lock. So a process that was killed keeps no lease.
"""

import os
import uuid
import weakref
from contextlib import suppress
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

from settings.paths import cache_folder


class Lease:
    """Keeps the entry `key` in the cache as long as this object lives, or until `release`."""

    def __init__(self, key: str):
        path = _folder() / f"{key}.{uuid.uuid4().hex[:12]}.lock"
        lock = FileLock(path, timeout=0, thread_local=False)
        with suppress(OSError):  # from a cache that can't be written nothing is removed either
            _folder().mkdir(parents=True, exist_ok=True)
            lock.acquire()
        self.release = weakref.finalize(self, _release, lock, path, os.getpid())


def is_leased(key: str) -> bool:
    """Whether some process holds a lease on the entry. Files of processes that have ended are deleted."""
    for path in _folder().glob(f"{escape(key)}.*.lock"):
        try:
            with FileLock(path, timeout=0, thread_local=False):
                pass
        except Timeout:
            return True
        except OSError:  # just released and deleted
            continue
        path.unlink(missing_ok=True)
    return False


def lock_path(name: str) -> Path:
    """Where processes can lock what they call by this name. Raises OSError if the cache can't be written."""
    _folder().mkdir(parents=True, exist_ok=True)
    return _folder() / f"{name}.lock"


def _folder() -> Path:
    return cache_folder() / "leases"


def _release(lock: FileLock, path: Path, process: int) -> None:
    if os.getpid() == process:  # a forked process has no lease
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)
