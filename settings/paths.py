"""Where things are."""

import os
from pathlib import Path

from settings.errors import DataError

ROOT = Path(__file__).resolve().parent.parent


def cache_folder() -> Path:
    """Where prepared data is kept: $GLASSBOX_CACHE, or the platform's own cache folder for `glassbox`.

    Raises DataError where there is no home directory to take it from."""
    from platformdirs import user_cache_path

    named = os.environ.get("GLASSBOX_CACHE")
    try:
        folder = Path(named).expanduser() if named else user_cache_path("glassbox", appauthor=False)
    except (RuntimeError, KeyError):
        folder = None
    if folder is None or not (named or folder.is_absolute()):
        raise DataError(
            f"no home directory is known for {named or 'the cache of prepared data'}: name a folder in the environment "
            "variable GLASSBOX_CACHE"
        )
    return folder
