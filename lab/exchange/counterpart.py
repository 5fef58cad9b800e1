"""Which Hugging Face family a model of ours belongs to, and which of ours a config.json describes."""

from collections.abc import Iterator, Mapping

from config import ModelConfig
from lab.exchange.family import NEUTRAL, Family, Settings, Slot
from lab.exchange.gpt2 import GPT2
from lab.exchange.llama import Llama
from lab.exchange.mpt import MPT
from modules.positions import alibi_slopes
from settings.checked import Config, field_types
from settings.errors import ConfigError, RunError
from settings.messages import short, suggest

FAMILIES: dict[str, Family] = {family.model_type: family for family in (GPT2(), Llama(), MPT())}
HEAD = "lm_head.weight"
IN_TRAINING = "model.dropout.", "model.zero_init"  # settings that change nothing that a trained model computes


def find_counterpart(config: ModelConfig) -> tuple[Family, dict[str, object]]:
    """The family that computes what the model computes, and its settings.

    Raises ConfigError where there is none. It names every setting in which the model differs from the nearest one.
    """
    found = {family: differences(family, config) for family in FAMILIES.values()}
    family = min(found, key=lambda one: len(found[one]))
    if found[family]:
        raise ConfigError(
            f"this model has no counterpart in Hugging Face's transformers. The nearest is {family.name}, which has "
            f"other settings: {'; '.join(found[family])}. A model that is trained with those can be exported. Where it "
            "is adapters, merge them first; where it is quantised layers, export the run that was quantised"
        )
    return family, family.settings(config)


def differences(family: Family, config: ModelConfig) -> list[str]:
    """The settings that the family can't say: those that its own settings don't give back."""
    try:
        given_back = family.config(Settings(family.settings(config), family.defaults))
    except (ConfigError, RunError) as error:
        return [str(error)]
    return [
        f"{name} is {short(own)} and would be {short(nearest)}"
        for name, own, nearest in differing(written_out(config), written_out(given_back), "model")
        if not name.startswith(IN_TRAINING) and not (name in family.always and nearest)
    ]


def differing(config: Config, other: Config, prefix: str) -> Iterator[tuple[str, object, object]]:
    """Name and both values of each setting in which they differ; of a part of another kind, the kind alone."""
    for name in field_types(type(config)):
        one, two, dotted = getattr(config, name), getattr(other, name), f"{prefix}.{name}"
        if one == two:
            continue
        if isinstance(one, Config) and type(one) is type(two):
            yield from differing(one, two, dotted)
        elif isinstance(one, Config) and isinstance(two, Config):
            yield f"{dotted}.kind", one.kind, two.kind
        else:
            yield dotted, one, two


def written_out(config: ModelConfig) -> ModelConfig:
    """The same model, with the values that follow from others written out."""
    limit = None if config.position.ends_with_context else config.position_limit
    units = config.mlp.hidden(config.width) * (1.5 if config.mlp.gated else 1.0)
    position = config.position
    if position.kind == "alibi" and position.slopes is None:
        position = position.replace(slopes=tuple(alibi_slopes(config.n_heads)))
    return config.replace(
        max_positions=limit, n_kv_heads=config.kv_heads, mlp=config.mlp.replace(ratio=units / config.width),
        position=position,
    )


def read_config(values: Mapping) -> tuple[Family, Settings, ModelConfig]:
    """The family, the settings and our model of a config.json. Raises RunError for what can't be read."""
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = suggest(kind if isinstance(kind, str) else "", FAMILIES)
        raise RunError(f"config.json: the model_type is {short(kind)}, which can't be read; {known}")
    family = FAMILIES[kind]
    settings = Settings(values, family.defaults)
    architectures = values.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise RunError(f"config.json: architectures is {short(architectures)}; only {family.architecture} can be read")
    for name, allowed in NEUTRAL.items():
        settings.only(name, *allowed)
    try:
        config = family.config(settings)
    except ConfigError as error:
        raise RunError(f"config.json describes no model that can be built here: {error}") from error
    if settings.problems:
        raise RunError(f"config.json has settings without a counterpart here: {'; '.join(settings.problems)}")
    return family, settings, config


def slots(family: Family, settings: Settings) -> list[Slot]:
    """Every tensor of the model in the family's layout, with its place in our parameters."""
    found = list(family.slots(settings))
    if not settings.flag("tie_word_embeddings"):
        (embedding,) = (slot for slot in found if slot.ours == "embedding.weight")
        found.append(embedding._replace(theirs=HEAD, ours="head.weight"))
    return found
