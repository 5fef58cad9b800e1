"""A cache folder for one measurement, so that nothing is there that an earlier one made."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_cache() -> Iterator[Path]:
    """Inside, GLASSBOX_CACHE is an empty folder, in this process and in those that it starts."""
    before = os.environ.get("GLASSBOX_CACHE")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["GLASSBOX_CACHE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("GLASSBOX_CACHE")
            if before is not None:
                os.environ["GLASSBOX_CACHE"] = before
