"""Layers are chosen by patterns of their names."""

from fnmatch import fnmatchcase

from settings.errors import ConfigError


def matching(setting: str, names: list[str], patterns: str) -> list[str]:
    """The names that one of the patterns, separated by commas, matches. Raises ConfigError, which begins with the
    setting's name, for a pattern without a match."""
    found: set[str] = set()
    for pattern in map(str.strip, patterns.split(",")):
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise ConfigError(
                f"{setting}: no linear layer of this model matches {pattern!r}; it has {', '.join(names)}. A pattern "
                "may have * for anything, as in 'blocks.*.attention.*'"
            )
        found |= matched
    return [name for name in names if name in found]
