"""What was measured is kept: in this process, and on disk for the next one, which for costs then needs no torch."""

import functools
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from lab.files.atomic import atomic_write_text
from settings.checked import Config
from settings.errors import DataError
from settings.kinds_used import kinds_named
from settings.paths import ROOT, cache_folder
from settings.registry import kind

SOURCES = ("config.py", "settings", "modules", "lab/costs", "lab/compute")  # a change in them makes all entries void


def remembered(measure: Callable) -> Callable:
    """`measure`, called with settings and plain values, for a result that JSON can hold; it is called again when the
    code of models, or an idea in these settings, has changed. Its results must not be changed."""

    @functools.lru_cache(maxsize=1024)
    def recall(parts: tuple, *arguments):
        path = entry_path(measure.__name__, arguments) if all(map(lasts, parts)) else None
        found = read_entry(path) if path else None
        if found is None:
            found = measure(*arguments)
            if path:
                write_entry(path, found)
        return found

    @functools.wraps(measure)
    def call(*arguments):
        return recall(parts_in(arguments), *arguments)

    return call


def lasting_path(name: str, arguments: tuple) -> Path | None:
    """Where a result for these settings and plain values is kept; None where it can't be used by the next process."""
    return entry_path(name, arguments) if all(map(lasts, parts_in(arguments))) else None


def parts_in(arguments: tuple) -> tuple:
    """For each kind that the settings among the arguments name: whether it is built in, and its code."""
    configs = [argument for argument in arguments if isinstance(argument, Config)]
    kinds = [kind(*named) for config in configs for named in kinds_named(config.to_dict(), type(config))]
    return tuple((known.built_in, known.part) for known in kinds)


def lasts(part: tuple) -> bool:
    """Whether a part's code is in this repository, so that the next process computes the same by it."""
    built_in, code = part
    return built_in or (code is not None and code.__module__.startswith("modules."))


@functools.cache
def code_digest() -> str:
    """Tells this version of the sources and of PyTorch from all others."""
    digest = hashlib.sha256(version("torch").encode())
    for source in SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def entry_path(name: str, arguments: tuple) -> Path | None:
    """The file of one result; None where there is no folder for it."""
    written = [argument.to_dict() if isinstance(argument, Config) else argument for argument in arguments]
    digest = hashlib.sha256(json.dumps([code_digest(), name, written]).encode()).hexdigest()
    try:
        return measurements_folder() / f"{digest[:32]}.json"
    except DataError:  # no home directory: the next process will measure again
        return None


def measurements_folder() -> Path:
    """Where all results are kept. Raises DataError where there is no home directory."""
    return cache_folder() / "costs"


def measurements_kept() -> tuple[int, int]:
    """How many results are on disk, and their bytes."""
    sizes = [path.stat().st_size for path in measurements_folder().glob("*.json")]
    return len(sizes), sum(sizes)


def forget_measurements() -> int:
    """Deletes what was measured on this machine, costs and times, so that it is measured anew; returns the bytes freed.

    What this process has measured itself, it keeps until it ends.
    """
    freed = 0
    for path in measurements_folder().glob("*.json"):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed


def read_entry(path: Path):
    """The result; None where there is none that is whole."""
    try:
        digest, text = path.read_text(encoding="utf-8").split("\n", 1)
    except (OSError, ValueError):
        return None
    return json.loads(text) if digest == hashlib.sha256(text.encode()).hexdigest() else None


def write_entry(path: Path, result) -> None:
    text = json.dumps(result)
    with suppress(OSError):  # a cache that can't be written costs time alone
        atomic_write_text(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
