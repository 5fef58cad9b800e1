"""What a family of Hugging Face models shares with ours: its settings, and where its weights stand in our model."""

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from config import ModelConfig
from settings.errors import RunError
from settings.messages import short

# Our activations by the names that Hugging Face has for the same functions
ACTIVATIONS = {
    "relu": "relu", "relu2": "relu2", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "silu": "silu", "mish": "mish",
    "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "swish": "silu",
}
# Settings that change what a model computes, each with the only values that leave it as the families here have it
NEUTRAL = {
    "sliding_window": (None,), "use_sliding_window": (None, False), "layer_types": (None, "full_attention"),
    "clip_qkv": (None,), "qk_ln": (None, False), "qk_norm": (None, False), "use_qk_norm": (None, False),
    "qk_layernorm": (None, False), "attn_logit_softcapping": (None,), "final_logit_softcapping": (None,),
    "logit_scale": (None,), "partial_rotary_factor": (None, 1), "rope_interleaved": (None, False),
    "quantization_config": (None,), "pruned_heads": (None, {}), "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False), "num_experts": (None,), "num_local_experts": (None,),
}


class Slot(NamedTuple):
    """One tensor of theirs, and its place in a parameter of ours: `shape` rows and columns from row `start` on.

    transposed: theirs is the transpose of it.
    """

    theirs: str
    ours: str
    shape: tuple[int, ...]
    start: int = 0
    transposed: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of their tensor."""
        return self.shape[::-1] if self.transposed else self.shape


class Settings:
    """The settings of a config.json, read with their types. What is missing has the family's default.

    `problems` collects a sentence for each setting that has no counterpart here.
    """

    def __init__(self, values: Mapping, defaults: Mapping):
        self.values, self.problems = {**defaults, **values}, []

    def get(self, name: str):
        return self.values.get(name)

    def read(self, name: str, kind: type | tuple[type, ...], what: str):
        """The value of a setting of that type. Raises RunError for another one."""
        value = self.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise RunError(f"config.json: {name} must be {what}, not {short(value)}")
        return value

    def whole(self, name: str) -> int:
        value = self.read(name, int, "a whole number")
        if not 1 <= value < 2**40:
            raise RunError(f"config.json: {name} must be 1 or more, not {short(value)}")
        return value

    def number(self, name: str) -> float:
        value = self.read(name, (int, float), "a number")
        if not abs(value) < 1e300:  # NaN and infinity are not, nor integers that no float holds
            raise RunError(f"config.json: {name} must be a finite number, not {short(value)}")
        return float(value)

    def flag(self, name: str) -> bool:
        return self.read(name, bool, "true or false")

    def activation(self, name: str) -> str:
        value = self.read(name, str, "the name of an activation")
        if value not in ACTIVATIONS:
            self.problems.append(f"{name} is {short(value)}; known are {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS.get(value, "relu")

    def only(self, name: str, *allowed) -> None:
        """Notes a problem unless the setting is missing or has one of these values; of a list, each item."""
        value = self.get(name)
        items = value if isinstance(value, list) and value else [value]
        if name in self.values and not all(item in allowed for item in items):
            self.problems.append(f"{name} is {short(value)}; only {' or '.join(map(short, allowed))} can be read")


class Family:
    """A family of models in Hugging Face's layout.

    model_type, architecture: its names in config.json. defaults: the settings that a config.json may leave out, as
    transformers has them. base: what the names of its tensors begin with, which files of the bare model leave out.
    embedding: its embedding's name. buffers: tensors that earlier versions stored, and that no model needs. always:
    our settings that are on in every model of the family; where ours has them off, zeros are written, which compute
    the same.
    """

    name: ClassVar[str]
    model_type: ClassVar[str]
    architecture: ClassVar[str]
    defaults: ClassVar[Mapping[str, object]]
    base: ClassVar[str]
    embedding: ClassVar[str]
    buffers: ClassVar[re.Pattern]
    always: ClassVar[frozenset[str]] = frozenset()

    def config(self, settings: Settings) -> ModelConfig:
        """Our settings for theirs; `settings.problems` says what has no counterpart. Raises RunError, ConfigError."""
        raise NotImplementedError

    def settings(self, config: ModelConfig) -> dict[str, object]:
        """Their settings for ours, as far as they have any: `config` of the result is our nearest model."""
        raise NotImplementedError

    def slots(self, settings: Settings) -> Iterator[Slot]:
        """Every tensor of a model with these settings, but the head's where it is the embedding."""
        raise NotImplementedError


def activation_name(ours: str) -> str:
    """Their name of one of our activations; of an idea its own, which they don't know."""
    return next((theirs for theirs, known in ACTIVATIONS.items() if known == ours), ours)
