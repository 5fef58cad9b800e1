"""Variants of one start: settings changed by their dotted names, as in {"train.learning_rate": 4e-3}. Imports no torch.

    rates = grid({"train.learning_rate": (1e-3, 4e-3), "model.n_layers": (2, 3)})
    variants = overridden(preset("llama-tiny"), rates, name="rates")
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import reduce

from config import VOCABULARIES, ModelConfig, Preset, TrainConfig
from lab.runs.names import LONGEST_NAME
from settings.by_name import check_setting, read_setting
from settings.checked import settings_of
from settings.errors import ConfigError

Override = Mapping[str, object]
ROOTS = {"model": ModelConfig, "train": TrainConfig}
ROOM_FOR_SEED = len("-seed00")  # behind a variant's name


def overridden(start: Preset, overrides: Iterable[Override], name: str | None = None) -> dict[str, Preset]:
    """A variant of `start` for each override, a mapping of dotted setting names to values.

    {"model.position.kind": "alibi"} replaces that part: its other settings are the new kind's defaults, or those of the
    override. Another tokenizer brings its vocabulary, unless the override has model.vocab_size. A variant's name is
    `name`, if given, and the settings in which its override differs from the others: "learning-rate-0.001_n-layers-3";
    "base" where it does not differ.

    Raises ConfigError for settings that are unknown, of the wrong type or impossible together, for train.seed, for two
    overrides with the same result, and where the names would be too long or equal.
    """
    overrides = list(overrides)
    for override in overrides:
        check_override(override)
    shared = set.intersection(*(set(override.items()) for override in overrides)) if len(overrides) > 1 else set()
    variants: dict[str, Preset] = {}
    for override in overrides:
        settings, label = with_override(start, override), override_label(override, shared)
        label = f"{name}-{label}" if name else label
        check_new(label, settings, variants)
        variants[label] = settings
    return variants


def grid(values: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """The overrides for every combination of these values by setting, the last setting changing fastest.

    Raises ConfigError where the values of a setting are no list or tuple, or an empty one.
    """
    for name, choices in values.items():
        if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
            raise ConfigError(f"{name} needs a list of values, one or more, not {choices!r}")
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def read_values(texts: Iterable[str]) -> dict[str, list[object]]:
    """Settings and their values from the terminal's texts, such as "train.learning-rate=1e-3,4e-3".

    Raises ConfigError for a text of another form, and for a setting that comes twice.
    """
    found: dict[str, list[object]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"{text!r} must name a setting and its values, as in train.learning-rate=1e-3,4e-3")
        if name in found:
            raise ConfigError(f"{name} is varied twice; give all its values at once, separated by commas")
        found[name] = [read_setting(ROOTS, name, value.strip()) for value in values.split(",")]
    return found


def check_override(override: Override) -> None:
    """Raises ConfigError unless an override maps names of settings to values of their types."""
    if not isinstance(override, Mapping):
        raise ConfigError(
            f"an override is a mapping of setting names to values, as in {{'train.steps': 200}}, not {override!r}; "
            "overridden takes a list of them, and grid makes one"
        )
    for name, value in override.items():
        check_setting(ROOTS, name, value)
    if "train.seed" in override:
        raise ConfigError("train.seed is no override: every variant is trained with each of the sweep's seeds")


def with_override(start: Preset, override: Override) -> Preset:
    """`start` with these settings. Raises ConfigError for settings that its kinds don't have or that contradict each
    other."""
    values = {"model": start.model.to_dict(), "train": start.train.to_dict()}
    for name in sorted(override, key=lambda name: not name.endswith(".kind")):  # kinds first: they clear the others
        if name.startswith("model.lora."):
            raise ConfigError(f"{name}: an adapter needs a trained base, as in `train --from RUN --lora.rank 8`")
        if name.startswith("model.quantised."):
            raise ConfigError(f"{name}: a quantised model can't be trained; quantise the trained runs instead")
        if name.startswith("train.distil.") and start.train.distil is None:
            raise ConfigError(f"{name}: these settings have no teacher; start from a run that `distil` made")
        *path, setting = name.split(".")
        part, before = reduce(dict.__getitem__, path, values), reduce(getattr, path, start)
        if setting == "kind" and type(before) is not settings_of(before.family, override[name]):
            part.clear()
        part[setting] = override[name]
    tokenizer = override.get("train.data.tokenizer", start.train.data.tokenizer)
    if tokenizer != start.train.data.tokenizer and "model.vocab_size" not in override:
        values["model"]["vocab_size"] = VOCABULARIES.get(tokenizer)  # None: it follows when the run is made
    try:
        return Preset(ModelConfig.from_dict(values["model"]), TrainConfig.from_dict(values["train"]))
    except ConfigError as error:
        raise ConfigError(f"with {dict(override)}: {error}") from error


def override_label(override: Override, shared: Collection[tuple[str, object]]) -> str:
    """The settings of an override that not all overrides have, in letters that every file system takes."""
    own = [(name, value) for name, value in override.items() if (name, value) not in shared]
    return "_".join(f"{setting_label(name)}-{value_label(value)}" for name, value in own) or "base"


def setting_label(name: str) -> str:
    """train.learning_rate as learning-rate, model.position.kind as position."""
    _, *parts = name.split(".")
    return "-".join(parts[:-1] if parts[-1] == "kind" else parts).replace("_", "-")


def value_label(value: object) -> str:
    """A value in letters that every file system takes: (1.0, 0.5) as 1.0-0.5."""
    text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("e+", "e")).strip("-.")


def check_new(label: str, settings: Preset, variants: Mapping[str, Preset]) -> None:
    """Raises ConfigError where a variant repeats another one, or its name can't be a run's."""
    for other, same in variants.items():
        if same == settings:
            raise ConfigError(f"two overrides come to the same settings, {other!r} and {label!r}; leave one out")
    own_names = "name the variants yourself, as in {'mine': Preset(model, train)}"
    if label.lower() in map(str.lower, variants):
        raise ConfigError(f"two variants would be called {label!r}; {own_names}")
    if len(label) > LONGEST_NAME - ROOM_FOR_SEED:
        raise ConfigError(f"{label!r} is too long for a run's name; vary fewer settings, or {own_names}")
