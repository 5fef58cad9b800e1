"""Settings of a model and its training in one JSON file, which `train --config FILE` reads.

    {"preset": "llama-tiny", "model": {"n_layers": 3, "position": {"kind": "alibi"}}, "train": {"steps": 500}}

What the file leaves out is as in the preset.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from config import Preset, preset
from lab.comparison.overrides import ROOTS, with_override
from lab.files.atomic import atomic_write_text
from lab.files.reading import named_path
from settings.by_name import check_setting
from settings.errors import ConfigError
from settings.json_text import parse_json
from settings.messages import short

LARGEST = 1 << 20  # bytes


def read_settings(path: Path | str, default: str = "llama-tiny") -> tuple[str, Preset]:
    """The name of the preset in a settings file, and the settings that it gives. default: where it names no preset.

    Raises ConfigError for a file that can't be read or is no such JSON, and for settings that are unknown, of the wrong
    type or impossible together.
    """
    path = named_path(path)
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't read the settings in {path}: {error}") from error
    if len(text) > LARGEST:
        raise ConfigError(f"{path} is too large for a file of settings: {LARGEST:,} characters are read")
    try:
        values = parse_json(text)
        if not isinstance(values, dict):
            raise ConfigError(f"it must be a JSON object, not {short(values)}")
        unknown = [name for name in values if name not in ("preset", *ROOTS)]
        if unknown:
            raise ConfigError(f"{short(unknown[0])} is none of its parts, which are preset, {', '.join(ROOTS)}")
        name = values.pop("preset", default)
        if not isinstance(name, str):
            raise ConfigError(f"preset must be a name, not {short(name)}")
        changes = dict(by_dotted_name(values))
        for setting, value in changes.items():
            check_setting(ROOTS, setting, value)
        return name, with_override(preset(name), changes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_settings(path: Path | str, settings: Preset) -> None:
    """Writes all settings into a file that `read_settings` reads back exactly. Raises ConfigError if it exists."""
    path = named_path(path)
    if path.exists():
        raise ConfigError(f"{path} exists already; give another name, or delete it")
    whole = {"model": settings.model.to_dict(), "train": settings.train.to_dict()}
    try:
        atomic_write_text(path, json.dumps(whole, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror or error}") from error


def by_dotted_name(values: Mapping, before: str = "") -> Iterator[tuple[str, object]]:
    """The settings of nested objects, as ("train.data.source", "pydocs"); a list becomes a tuple."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from by_dotted_name(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", tuple(value) if isinstance(value, list) else value
