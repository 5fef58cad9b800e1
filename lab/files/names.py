"""Names that every common file system accepts: of runs and of stored tokenizers."""

import re

LONGEST_NAME = 80  # characters
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
NAME_RULE = (
    f"use up to {LONGEST_NAME} letters, digits, '-', '_' and '.', starting with a letter or digit, and none of "
    "Windows' device names"
)


def fits_everywhere(name: str) -> bool:
    """Whether every common file system accepts `name` as a folder."""
    fits = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and not name.endswith(".")
    return bool(fits) and len(name) <= LONGEST_NAME and name.split(".")[0].lower() not in RESERVED
