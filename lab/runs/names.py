"""The names of runs: which ones are allowed, and which ones are taken."""

import os
import re
import unicodedata
from pathlib import Path

from lab.files.names import LONGEST_NAME, NAME_RULE, fits_everywhere
from lab.files.reading import named_path
from settings.errors import RunError
from settings.messages import short, suggest
from settings.paths import ROOT

TRAINED = ROOT / "trained"


def runs_folder(folder: Path | None = None) -> Path:
    """The folder that holds the runs; None is trained/."""
    return Path(folder or TRAINED)


def run_names(folder: Path | None = None) -> list[str]:
    """The names of all runs in the folder, damaged ones included. Raises RunError if they can't be listed."""
    folder = runs_folder(folder)
    try:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise RunError(f"{folder} can't be read: {error.strerror}; mend its permissions") from error
    return [name for name in names if os.path.isdir(folder / name) and not name.startswith(".")]


def check_name(name: str) -> None:
    """Raises RunError unless every common file system accepts `name` as a folder."""
    name = os.fspath(named_path(name))
    if not fits_everywhere(name):
        raise RunError(f"{short(name)} can't be a run's name; {NAME_RULE}")


def name_from(text: str) -> str:
    """A run's name like `text`, in the letters that a name may have, with room for a number behind it."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))  # ä is a and two dots
    room_for_number = len("-9999")
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain)[: LONGEST_NAME - room_for_number].strip("-._")


def no_run(name: str, folder: Path) -> RunError:
    """The error for a name that no run in the folder has."""
    return RunError(f"no run {short(name)} in {folder}; {suggest(name[:LONGEST_NAME], run_names(folder))}")
