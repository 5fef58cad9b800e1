"""Reads the files of a run. Any file, however damaged, gives a value or a RunError."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from settings.errors import GlassboxError, RunError
from settings.json_text import is_unicode
from settings.messages import short

MIB = 2**20
# The files of a run and the most bytes of each. Weights may have any size
MOST_BYTES = {
    "model_config.json": MIB, "train_config.json": MIB, "data.json": MIB, "tokenizer.json": 64 * MIB,
    "model.safetensors": 2**40, "state.safetensors": 2**40, "lens.safetensors": 2**40, "log_data.csv": 1024 * MIB,
    "watch_data.csv": 1024 * MIB, "README.md": MIB, "loss.png": 16 * MIB, "watch.png": 16 * MIB,
    "mixture.png": 16 * MIB,
    "idea.py": MIB, "origin.json": MIB, "adapter.safetensors": 2**40, "classifier.json": MIB,
}
LONGEST_PATH, LONGEST_PART = 4000, 255  # bytes, the limits of common file systems


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns any error while a run's file is read into a RunError that names the file.

    Only a regular file may be read; a pipe would block. Do nothing else inside, so that no other error is taken for a
    damaged file.
    """
    folder = path.parent.parent if path.parent.name == "checkpoint" else path.parent
    where, remedy = f"{path.name} of {folder.name!r}", "delete it, or restore it from a copy"
    try:
        found, most = path.stat(), MOST_BYTES.get(path.name, 2**40)
        if not stat.S_ISREG(found.st_mode):
            raise RunError(f"{where} is not a regular file; {remedy}")
        if found.st_size > most:
            raise RunError(f"{where} has {found.st_size:,} bytes; the most is {most:,}; {remedy}")
        yield
    except RunError:
        raise
    except FileNotFoundError as error:
        raise RunError(f"{where} is missing; restore it from a copy") from error
    except OSError as error:
        raise RunError(f"{where} can't be read: {error.strerror or error}; {remedy}") from error
    except GlassboxError as error:
        raise RunError(f"{path.name}: {error}") from error
    except Exception as error:  # parsers raise errors of any type for damaged files
        reason = " ".join(str(error).split())[:200].encode("utf-8", "backslashreplace").decode()
        raise RunError(f"{where} is damaged: {reason or type(error).__name__}; {remedy}") from error


def checksum(path: Path) -> str:
    """The SHA-256 of a run's file. Raises RunError."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_path(value: str | os.PathLike) -> Path:
    """The path. Raises RunError for other types, and for text that no file system allows."""
    if not isinstance(value, str | os.PathLike):
        raise RunError(f"a name or a path is needed, not {short(value)}, a {type(value).__name__}")
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path or not is_unicode(path):
        raise RunError(f"{short(path)} can't be a name or a path: no file system allows it; use letters and digits")
    written = path.encode("utf-8")
    if len(written) > LONGEST_PATH or max(map(len, written.split(b"/"))) > LONGEST_PART:
        raise RunError(f"{short(path)} can't be a name or a path: it is too long; use a shorter one")
    return Path(path)
