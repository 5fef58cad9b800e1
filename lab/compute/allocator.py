"""Keeping the memory of freed tensors for the next ones, because memory that is new to a process is slow.

The GNU C library's malloc gives much of what is freed back to the system. Memory that it asks for again comes page by
page, each with a page fault when it is first written. A training step makes and frees the same tensors again and again.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# The numbers of malloc's settings in malloc.h
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # no block is mapped by itself, and nothing is given back
# What malloc comes to by itself once large blocks were freed; MMAP_MAX is what it starts with (mallopt(3))
USUAL = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")

_users = 0  # how many ask for memory to be kept at the moment


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside, this process keeps the memory that tensors on the CPU free. At the end the system gets it back.

    It can be nested. Only the GNU C library is told, so only on Linux, and only where the environment sets none of
    VARIABLES and no malloc in GLIBC_TUNABLES: there it stays as the user set it.
    """
    global _users
    keep_freed_memory()
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            set_malloc(USUAL)
            if library := glibc():
                library.malloc_trim(0)  # the memory that is free now


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, until it ends: for one that does nothing but train."""
    global _users
    _users += 1
    set_malloc(KEPT)


def set_malloc(settings: dict[int, int]) -> None:
    """Sets malloc up, where `glibc` finds it. settings: values by their numbers in malloc.h."""
    if library := glibc():
        for name, value in settings.items():
            library.mallopt(name, value)


@cache
def glibc() -> ctypes.CDLL | None:
    """The GNU C library, if its malloc is this process's and the user has not set it up."""
    own = any(name in os.environ for name in VARIABLES) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return None if own or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
