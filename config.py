"""Every setting of Glassbox: frozen keyword dataclasses, checked when they are made. Imports no torch.

A model is described by `ModelConfig`, a training by `TrainConfig`; what only one variant needs (RoPE's theta, say)
lives in that variant's own small class. `preset("llama-tiny")` gives a matching pair of both.
"""

import dataclasses
import difflib
import functools
import json
import math
import os
import reprlib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

ROOT = Path(__file__).resolve().parent
SAMPLE_PROMPT = "Once there was"  # A quarter of all tales begin so, and then comes a whole word, "a" or "an".


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


class GlassboxError(Exception):
    """What a user can cause and mend: the message says what was wrong, what was expected, and what to do."""


class ConfigError(GlassboxError, ValueError):
    """Settings that are unknown, of the wrong type, or impossible together."""


class DataError(GlassboxError):
    """Documents that can't be read, split or cached."""


class TokenizerError(GlassboxError):
    """A tokenizer that is unknown, can't be fetched, or was given what it can't encode."""


class RunError(GlassboxError):
    """A run folder that is missing, damaged or in the way."""


class GenerationError(GlassboxError, ValueError):
    """A prompt or a sampling setting that can't be used."""


def suggest(name: str, choices: typing.Iterable[str]) -> str:
    """The end of an 'unknown name' message: the nearest choice, if one is near, and all of them."""
    choices = sorted(choices)
    if not choices:
        return "there are none yet"
    near = difflib.get_close_matches(name, choices, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "choose from: " + ", ".join(choices)


# --- the machinery: checked construction, JSON there and back -------------------------------------------------

# The largest value of each setting: more than anybody trains, less than what stops a machine that reads a config.
MOST = {
    "vocab_size": 2**20, "context_length": 2**20, "max_positions": 2**20, "n_layers": 512, "n_heads": 1024,
    "n_kv_heads": 1024, "width": 2**16, "ratio": 256, "vectors": 1024, "steps": 10**9, "batch_size": 2**20,
    "micro_batch_size": 2**20, "sample_tokens": 2**20, "seed": 9 * 10**12, "learning_rate": 1e30,
}  # fmt: skip
MOST_INTEGER, MOST_FLOAT = 10**12, 1e30  # of every other number, up or down
MOST_ITEMS, MOST_CHARACTERS = 1024, 100_000  # of a list, of a text
MOST_UNKNOWN = 20  # settings that an error names


def parse_json(text: str):
    """The value that JSON text holds. Raises ConfigError where it is no JSON, nests too deep or holds no Unicode."""
    try:
        value = json.loads(text)
        written = json.dumps(value, ensure_ascii=False)
    except ValueError as error:
        raise ConfigError(f"not valid JSON ({error})") from error
    except RecursionError as error:
        raise ConfigError("not valid JSON: it nests too deep") from error
    if not is_unicode(written):
        raise ConfigError("not valid JSON: a text in it holds half of a surrogate pair, as in \\ud800")
    return value


def is_unicode(text: str) -> bool:
    """Whether the text can be written to a file: half of a surrogate pair can't."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def short(value: object) -> str:
    """`value` as Python writes it, shortened where it is long or deep: for messages."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a number of {type(value).__name__} with thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class _Checked(type):
    """Collects unknown keys, wrong types and impossible combinations into one error, before anything is built."""

    def __call__(cls, /, *positional, **values):  # a setting may be called cls
        if positional:
            raise ConfigError(f"{cls.__name__} takes keyword arguments only, as in {cls.__name__}(name=value)")
        hints = _field_types(cls)
        strange = [key for key in values if key not in hints]
        unknown = [f"unknown setting {short(key)}; {suggest(key, hints)}" for key in strange[:MOST_UNKNOWN]]
        if len(strange) > MOST_UNKNOWN:
            unknown.append(f"and {len(strange) - MOST_UNKNOWN:,} more unknown settings")
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and _required(f)]
        problems = [f"setting {key!r} is missing" for key in missing]
        for key, hint in hints.items():
            value = values.get(key)
            if isinstance(value, ConfigError):  # what from_dict could not revive
                problems.append(f"{key}: {value}")
            elif key in values and not _fits(value, hint):
                problems.append(f"{key} must be {_describe(hint)}, not {short(value)}")
            elif key in values:
                problems += _too_large(key, value)
        if not problems:  # combinations can be judged
            config = super().__call__(**{key: value for key, value in values.items() if key in hints})
            problems = list(config.problems())
            if not problems and not unknown:
                return config
        problems = unknown + problems
        raise ConfigError(f"{cls.__name__}: " + "\n  ".join(["", *problems] if len(problems) > 1 else problems))


class Config(metaclass=_Checked):
    """What all settings share: checked construction, `replace`, and an exact JSON round trip."""

    def problems(self) -> typing.Iterator[str]:
        """Yields one sentence for each impossible value or combination, with its remedy."""
        yield from ()

    def replace(self, **changes):
        """A copy with `changes`, checked like a new one."""
        return type(self)(**{**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, **changes})

    def to_dict(self) -> dict:
        named = {"kind": self.kind} if hasattr(self, "kind") else {}
        return named | {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, values: dict):
        """The inverse of `to_dict`. Raises ConfigError for anything that `to_dict` would not write."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} must be a JSON object, not {short(values)}")
        hints = _field_types(cls)
        if hasattr(cls, "kind") and "kind" not in hints:
            values = {key: value for key, value in values.items() if key != "kind"}
        return cls(**{key: _revived(value, hints[key]) if key in hints else value for key, value in values.items()})

    @classmethod
    def from_json(cls, text: str):
        """The inverse of `to_json`. Raises ConfigError for any other text."""
        try:
            values = parse_json(text)
        except ConfigError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error
        return cls.from_dict(values)


def _required(spec: dataclasses.Field) -> bool:
    return spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING


@functools.cache
def _field_types(cls: type) -> dict[str, object]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _members(hint) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value, hint) -> bool:
    """Whether `value` is what the annotation promises; an int serves as a float, a bool never as a number."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, member) for member in _members(hint))
    if typing.get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if hint in (int, float):
        number = isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
        return number and (isinstance(value, int) or math.isfinite(value))
    return isinstance(value, hint)


def _too_large(name: str, value) -> typing.Iterator[str]:
    """One sentence where a setting is larger than it may be, or is text that can't be written."""
    if isinstance(value, tuple):
        if len(value) > MOST_ITEMS:
            yield f"{name} has {len(value):,} items; {MOST_ITEMS:,} are the most"
        for item in value[:MOST_ITEMS]:
            yield from _too_large(name, item)
    elif isinstance(value, str):
        if len(value) > MOST_CHARACTERS:
            yield f"{name} has {len(value):,} characters; {MOST_CHARACTERS:,} are the most"
        if not is_unicode(value):
            yield f"{name} must be Unicode text without half of a surrogate pair, not {short(value)}"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        most = MOST.get(name, MOST_INTEGER if isinstance(value, int) else MOST_FLOAT)
        if not -most <= value <= most:
            yield f"{name} must be at most {most:,}, not {short(value)}"


def _describe(hint) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_describe(member) for member in _members(hint))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"a tuple of {_describe(typing.get_args(hint)[0])}"
    return {int: "an integer", float: "a finite number", bool: "True or False", str: "text"}.get(
        hint, "None" if hint is types.NoneType else f"a {hint.__name__}"
    )


def _plain(value):
    if isinstance(value, Config):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _variants(hint) -> list[type[Config]]:
    return [member for member in _members(hint) if isinstance(member, type) and issubclass(member, Config)]


def _kinds(variants: list[type[Config]]) -> dict[str, type[Config]]:
    """Variants by the ClassVar that tells them apart; a norm's kind is a setting like any other."""
    return {v.kind: v for v in variants if hasattr(v, "kind") and "kind" not in _field_types(v)}


def _revived(value, hint):
    """JSON's dict or list as the config or tuple that `hint` names, or the ConfigError that says why it is none."""
    try:
        return _revive(value, hint)
    except ConfigError as error:
        return error


def _revive(value, hint):
    variants = _variants(hint)
    if isinstance(value, dict) and variants:
        kinds, kind = _kinds(variants), value.get("kind")
        if not kinds:
            return variants[0].from_dict(value)
        if not isinstance(kind, str) or kind not in kinds:
            raise ConfigError(f"unknown kind {short(kind)}; {suggest(kind if isinstance(kind, str) else '', kinds)}")
        return kinds[kind].from_dict(value)
    if isinstance(value, list) and any(typing.get_origin(member) is tuple for member in _members(hint)):
        return tuple(value)
    return value


def _positive(config: Config, *names: str) -> typing.Iterator[str]:
    for name in names:
        if getattr(config, name) is not None and not getattr(config, name) > 0:
            yield f"{name} must be above 0, not {getattr(config, name)}"


def _within(config: Config, low: float, high: float, *names: str) -> typing.Iterator[str]:
    for name in names:
        if not low <= getattr(config, name) <= high:
            yield f"{name} must lie between {low} and {high}, not {getattr(config, name)}"


# --- the parts of a model -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NormConfig(Config):
    """x / rms(x), (x − mean) / sd, or √C · x / ‖x‖; then optionally · weight + bias."""

    kind: Literal["rms", "layer", "cosine"] = "rms"
    weight: bool = True
    bias: bool = False
    eps: float = 1e-5

    def problems(self):
        yield from _positive(self, "eps")


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Config):
    """down(activation(up(x))), or gated: down(activation(gate(x)) · up(x)) at the ungated parameter count."""

    activation: Literal["relu", "relu2", "gelu", "gelu_tanh", "silu", "mish"] = "silu"
    gated: bool = True
    ratio: float = 4.0

    def problems(self):
        yield from _positive(self, "ratio")

    def hidden(self, width: int) -> int:
        """Hidden units: ratio · width, or two thirds of it when gated, to the nearest multiple of 8."""
        units = self.ratio * width * (2 / 3 if self.gated else 1)
        return max(8, 8 * round(units / 8)) if self.gated else max(1, round(units))


@dataclass(frozen=True, kw_only=True)
class NoPositionConfig(Config):
    """No position information but the causal mask (Haviv et al. 2022, arXiv 2203.16634)."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class LearnedPositionConfig(Config):
    """A trained vector for each position, added to the embedding (GPT-2)."""

    kind: ClassVar[str] = "learned"


@dataclass(frozen=True, kw_only=True)
class SinusoidalConfig(Config):
    """Fixed sines and cosines added to the embedding (Vaswani et al. 2017, arXiv 1706.03762, 3.5)."""

    kind: ClassVar[str] = "sinusoidal"
    theta: float = 10_000.0

    def problems(self):
        yield from _positive(self, "theta")


@dataclass(frozen=True, kw_only=True)
class RoPEConfig(Config):
    """Queries and keys turned by their position (Su et al. 2021, arXiv 2104.09864)."""

    kind: ClassVar[str] = "rope"
    theta: float = 10_000.0

    def problems(self):
        yield from _positive(self, "theta")


@dataclass(frozen=True, kw_only=True)
class ALiBiConfig(Config):
    """Scores lowered in proportion to distance (Press et al. 2021, arXiv 2108.12409); slopes: one per head."""

    kind: ClassVar[str] = "alibi"
    slopes: tuple[float, ...] | None = None


PositionConfig = NoPositionConfig | LearnedPositionConfig | SinusoidalConfig | RoPEConfig | ALiBiConfig


class AnyBlockConfig(Config):
    """What all kinds of blocks have in common."""

    def model_problems(self, model: "ModelConfig") -> typing.Iterator[str]:
        """What keeps the block from being part of this model, each with its remedy."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class ResidualBlockConfig(AnyBlockConfig):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    post_norm: a second norm after each sub-layer, before it is added (as in Grok). parallel: attention and MLP
    both read the same normed x and are added together (as in GPT-J).
    """

    kind: ClassVar[str] = "residual"
    post_norm: bool = False
    parallel: bool = False


@dataclass(frozen=True, kw_only=True)
class FactoredBlockConfig(AnyBlockConfig):
    """Two streams: attention moves the raw token stream xt, the MLP writes into xe (arXiv 2603.07461).

    A mixing maps the C = H · D channels of xt, before attention as its values and again behind it: not at all, by one
    H × H matrix over whole heads (kronecker), within each head (independent), or by any matrix (dense). It starts as
    N(0, init_std), the identity, or the identity / √n_layers. Mixings never have a bias: the stream stays linear.
    frozen_tokens: xt stays the embedding, attention writes into xe. head_norm: both norms act on each head alone.
    """

    kind: ClassVar[str] = "factored"
    value_mixing: Literal["identity", "kronecker", "independent", "dense"] = "kronecker"
    output_mixing: Literal["identity", "kronecker", "independent", "dense"] = "kronecker"
    mixing_init: Literal["normal", "identity", "scaled_identity"] = "scaled_identity"
    frozen_tokens: bool = False
    head_norm: bool = False

    def problems(self):
        usual = type(self).__dataclass_fields__["mixing_init"].default
        if self.value_mixing == self.output_mixing == "identity" and self.mixing_init != usual:
            yield f"mixing_init={self.mixing_init!r} would start nothing: both mixings are the identity; leave it out"

    def model_problems(self, model):
        yield from _one_group_per_head(self, model)
        if self.head_norm and model.norm.kind == "layer" and model.head_dim == 1:
            yield "head_norm of layer norms needs heads of 2 channels or more: one by itself is always 0"


@dataclass(frozen=True, kw_only=True)
class ShapedBlockConfig(AnyBlockConfig):
    """gain · mlp(norm(x)) + shaped attention(norm(x)): no skip, no value or output projection (arXiv 2311.01906).

    The block starts as norm(x) + mlp_gain · mlp(norm(x)), for its attention starts as the identity.
    """

    kind: ClassVar[str] = "shaped"
    mlp_gain: float = 0.1  # Where the trained β_FF starts; the authors have 0.1 for 18 layers, less for more.

    def model_problems(self, model):
        yield from _one_group_per_head(self, model)


def _one_group_per_head(block: AnyBlockConfig, model: "ModelConfig"):
    if model.n_kv_heads not in (None, model.n_heads):
        yield (
            f"a {block.kind} block's values are the heads of its stream: n_kv_heads={model.n_kv_heads} must be "
            f"n_heads={model.n_heads}; leave it out, or choose the residual block"
        )


@dataclass(frozen=True, kw_only=True)
class FutureBlockConfig(AnyBlockConfig):
    """Residual blocks whose last ones foresee ever wider windows of the future, and read what those before foresaw.

    Level p, counted from 1, is about factor^p tokens; the windows follow each other from the second next token on:
    for factor 2 they are 2-3, 4-7, 8-15 tokens ahead, for factor 3 2-4, 5-13, 14-40. So no two levels overlap, none
    holds the next token, and none is left out. The layers: a body of at least one, one layer for each level from the
    furthest to the nearest, and a last one for the next token.

    predicts: the tokens of the window as a distribution (bag) or each as there or not (multi_hot); or its pool, up to
    direction (vector_cosine) or exactly (vector_squared). A window's pool are `vectors` vectors at the first level,
    and by the schedule more at the further ones: · 1 (constant), p, √p, 1 + ⌊log₂ p⌋, or p² (poly); never more than
    it has tokens. Level p's loss counts loss_weight · decay^(p − 1) beside the next token's.
    norm_before, linear_after: a norm before the pool, a linear map after it. share: one pool for all levels.
    """

    kind: ClassVar[str] = "future"
    levels: int = 3
    factor: Literal[2, 3, 4] = 2
    pool: Literal[
        "sum", "mean", "max", "parametric_sum", "parametric_max", "flatten", "convolution", "attention",
        "self_attention",
    ] = "mean"  # fmt: skip
    schedule: Literal["constant", "linear", "root", "log", "poly"] = "constant"
    vectors: int = 1
    predicts: Literal["bag", "multi_hot", "vector_cosine", "vector_squared"] = "bag"
    loss_weight: float = 0.1
    decay: float = 0.5
    norm_before: bool = True
    linear_after: bool = False
    share: bool = False

    def problems(self):
        yield from _positive(self, "levels", "vectors")
        if self.levels > 9:
            yield f"levels={self.levels} would look ahead further than any context reaches; 9 are the most"
        if self.loss_weight < 0:
            yield f"loss_weight must be 0 or more, not {self.loss_weight}; 0 trains the levels by the next token alone"
        if self.loss_weight == 0 and self.of_vocabulary:
            yield f"loss_weight=0 would leave the prediction of a {self.predicts} untrained: give it some weight"
        if not 0 < self.decay <= 1:
            yield f"decay must be above 0 and at most 1, not {self.decay}; 1 weighs all levels alike"
        if self.share and self.levels == 1:
            yield "share=True has nothing to share with one level: leave it out, or raise levels"
        if self.share and self.pool in ("sum", "mean", "max") and not (self.norm_before or self.linear_after):
            yield f"share=True shares nothing: pool {self.pool!r} has no weights; leave it out, or set linear_after"

    def model_problems(self, model):
        parameterless = self.pool in ("sum", "mean", "max") and not self.linear_after
        if self.share and parameterless and not (model.norm.weight or model.norm.bias):
            yield "block.share has nothing to share: the pool and the norm have no weights; leave it out"
        if model.n_layers < self.layers_needed:
            yield (
                f"{self.levels} levels need n_layers={self.layers_needed} or more (a body, one for each level, the "
                f"last), not {model.n_layers}; raise n_layers, or lower block.levels"
            )
        if self.look_ahead >= model.context_length:
            yield (
                f"{self.levels} levels of factor {self.factor} look {self.look_ahead} tokens ahead, which must be "
                f"below context_length={model.context_length}; lower block.levels or block.factor, or raise the context"
            )

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The first and last offset of each level's window, nearest first."""
        last, found = 1, []
        for level in range(1, self.levels + 1):
            found.append((last + 1, last + self.factor**level))
            last = found[-1][1]
        return tuple(found)

    @property
    def look_ahead(self) -> int:
        """The furthest offset that any level is about."""
        return self.windows[-1][1]

    @property
    def counts(self) -> tuple[int, ...]:
        """Vectors of each level's window, nearest first."""
        times = {
            "constant": lambda p: 1, "linear": lambda p: p, "root": lambda p: round(math.sqrt(p)),
            "log": lambda p: p.bit_length(), "poly": lambda p: p**2,
        }[self.schedule]  # fmt: skip
        return tuple(min(self.vectors * times(p), self.factor**p) for p in range(1, self.levels + 1))

    @property
    def layers_needed(self) -> int:
        """A body of one layer, one for each level, and the last."""
        return self.levels + 2

    @property
    def of_vocabulary(self) -> bool:
        """Whether the levels predict tokens, and not vectors."""
        return self.predicts in ("bag", "multi_hot")


@dataclass(frozen=True, kw_only=True)
class MultiTokenBlockConfig(ResidualBlockConfig):
    """Residual blocks, the last `heads` of them side by side: each gives the token one further ahead (2404.19737).

    They count among n_layers, so that the model is as large as one without. What the further heads lose counts
    loss_weight times beside the next token's loss.
    """

    kind: ClassVar[str] = "multi_token"
    heads: int = 4
    loss_weight: float = 1.0

    def problems(self):
        if not 1 <= self.heads <= 8:
            yield f"heads must lie between 1 and 8, not {self.heads}"
        if self.loss_weight <= 0:
            yield f"loss_weight must be above 0, not {self.loss_weight}; without further heads choose heads=1"

    def model_problems(self, model):
        if model.n_layers < self.layers_needed:
            yield (
                f"{self.heads} heads need n_layers={self.layers_needed} or more (a trunk, a layer for each head), not "
                f"{model.n_layers}; raise n_layers, or lower block.heads"
            )
        if self.heads >= model.context_length:
            yield f"{self.heads} heads look as far as context_length={model.context_length}; lower block.heads"

    @property
    def layers_needed(self) -> int:
        """A trunk of one layer, and the heads."""
        return self.heads + 1


BlockConfig = (
    ResidualBlockConfig | FactoredBlockConfig | ShapedBlockConfig | FutureBlockConfig | MultiTokenBlockConfig
)


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(Config):
    """Rates while training: on the embeddings, on the attention weights, on what a sub-layer adds."""

    embedding: float = 0.0
    attention: float = 0.0
    residual: float = 0.0

    def problems(self):
        yield from _within(self, 0.0, 0.99, "embedding", "attention", "residual")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """A decoder-only transformer."""

    vocab_size: int  # Rows of the embedding; at least the tokenizer's.
    context_length: int = 256  # Tokens it is trained on at once.
    max_positions: int | None = None  # The most it accepts when generating; None: four times the context.
    n_layers: int = 6
    n_heads: int = 6
    n_kv_heads: int | None = None  # None: multi-head; 1: multi-query; between: grouped-query (arXiv 2305.13245).
    width: int = 192  # Channels of the residual stream.
    norm: NormConfig = NormConfig()
    mlp: MLPConfig = MLPConfig()
    position: PositionConfig = RoPEConfig()
    block: BlockConfig = ResidualBlockConfig()
    dropout: DropoutConfig = DropoutConfig()
    bias: bool = False  # Biases in all linear layers.
    tie_weights: bool = True  # The head is the embedding (arXiv 1608.05859).
    embedding_scale: bool = False  # Embeddings times √width, as in the first transformer.
    init_std: float = 0.02

    @property
    def head_dim(self) -> int:
        return self.width // self.n_heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def position_limit(self) -> int:
        """Positions the model accepts: what it was trained on for learned ones, max_positions for the others."""
        if isinstance(self.position, LearnedPositionConfig):
            return self.context_length
        return self.max_positions or 4 * self.context_length

    @property
    def further_positions(self) -> str:
        """Why the model accepts no more positions, and what to do for more: the end of an error message."""
        if isinstance(self.position, LearnedPositionConfig):
            return (
                "learned positions end at context_length, and the model has no vector for a later one; for longer "
                "texts train a model with RoPE, ALiBi, sinusoidal or no positions"
            )
        return (
            f"it was trained on context_length={self.context_length}, but no weight depends on its max_positions; for "
            "more, open the run with run.load_model(max_positions=N), or build it with config.replace(max_positions=N)"
        )

    def problems(self):
        yield from _positive(
            self, "vocab_size", "context_length", "n_layers", "n_heads", "n_kv_heads", "width", "init_std"
        )
        if self.n_heads > 0 and self.width % self.n_heads:
            yield f"n_heads={self.n_heads} must divide width={self.width}; change one of them"
        elif self.n_heads > 0 and isinstance(self.position, RoPEConfig) and self.head_dim % 2:
            yield f"RoPE turns pairs: width/n_heads={self.head_dim} must be even; change width or n_heads"
        if self.n_heads > 0 and self.kv_heads > 0 and self.n_heads % self.kv_heads:
            yield f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}"
        yield from self.block.model_problems(self)
        if isinstance(self.position, SinusoidalConfig) and self.width % 2:
            yield f"sinusoidal positions come in pairs: width={self.width} must be even"
        slopes = self.position.slopes if isinstance(self.position, ALiBiConfig) else None
        if slopes is not None and len(slopes) != self.n_heads:
            yield f"ALiBi has {len(slopes)} slopes for n_heads={self.n_heads}; give one per head"
        if self.max_positions is not None and self.max_positions < self.context_length:
            yield f"max_positions={self.max_positions} must be at least context_length={self.context_length}"
        if isinstance(self.position, LearnedPositionConfig) and self.max_positions not in (None, self.context_length):
            yield "learned positions end at context_length: leave max_positions out, or choose another encoding"


# --- training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """What is read, and how it is cut into tokens.

    A document is held out for validation by a hash of its text: more documents never move one to the other side.
    """

    source: str = "tales"  # A built-in set (tales, pydocs, pycode), or a file, folder or glob of your own.
    tokenizer: str = "bpe-2048"
    max_documents: int | None = None  # None: 20,000 tales; all there are of anything else.
    text_field: str | None = None  # The column that holds the text, in jsonl, csv, tsv and parquet files.
    validation_fraction: float = 0.05
    seed: int = 0  # Which tales.

    def problems(self):
        yield from _positive(self, "max_documents")
        if not 0 < self.validation_fraction < 1:
            yield f"validation_fraction must lie between 0 and 1, both excluded, not {self.validation_fraction}"
        if not self.source.strip():
            yield "source is empty; name a built-in set such as 'tales', or a file, folder or glob"
        if self.seed < 0:
            yield f"seed must be 0 or more, not {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Config):
    """Learning rate over the steps: linear warm-up, decay from the peak, final flat part."""

    decay: Literal["cosine", "linear"] = "cosine"
    warmup_steps: int | None = None  # None: a tenth of all steps.
    final_fraction: float = 0.1  # Of the peak, where the decay ends.
    flat_steps: int = 0  # At the end, at the final rate.
    cycles: int = 1  # The decay starts again from the peak so many times (warm restarts, arXiv 1608.03983).
    cycle_growth: float = 1.0  # Each cycle so many times as long as the one before.

    def problems(self):
        yield from _positive(self, "cycles", "cycle_growth")
        yield from _within(self, 0.0, 1.0, "final_fraction")
        if (self.warmup_steps or 0) < 0 or self.flat_steps < 0:
            yield "warmup_steps and flat_steps must be 0 or more"


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One training."""

    data: DataConfig = DataConfig()
    steps: int = 1000
    batch_size: int = 64  # Sequences per optimizer step.
    micro_batch_size: int | None = None  # So many of them pass the model at once; gradients add up. None: all.
    learning_rate: float = 1e-3  # The schedule's peak.
    weight_decay: float = 0.1  # On matrices alone.
    beta1: float = 0.9
    beta2: float = 0.95
    gradient_clip: float | None = 1.0  # Largest global gradient norm; None: no limit.
    schedule: ScheduleConfig = ScheduleConfig()
    dropout_final: float = 1.0  # The share of the model's dropout rates left at the last step, reached linearly.
    gradient_checkpointing: bool = False  # Recompute activations going back: less memory, a third more time.
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # bf16 is autocast; auto measures which is faster.
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA before MPS before CPU.
    compile: Literal["auto", "on", "off"] = "auto"  # auto: where the training is long enough to gain by it.
    evaluate_every: int = 100
    evaluation_tokens: int = 32_768  # Always the first so many held-out tokens.
    sample_every: int = 0  # 0: never.
    sample_prompt: str = SAMPLE_PROMPT  # A beginning of tales; for other texts give one of theirs.
    sample_tokens: int = 120
    checkpoint_every: int = 200
    watch_every: int = 0  # Steps between two looks into the layers, from the first step on. 0: never.
    seed: int = 0

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up: the schedule's, or a tenth of all."""
        return self.steps // 10 if self.schedule.warmup_steps is None else self.schedule.warmup_steps

    def settled(self) -> "TrainConfig":
        """The same with what follows from other settings written out, as a run stores it."""
        return self.replace(schedule=self.schedule.replace(warmup_steps=self.warmup_steps))

    @property
    def accumulation(self) -> int:
        return self.batch_size // (self.micro_batch_size or self.batch_size)

    def problems(self):
        yield from _positive(
            self, "steps", "batch_size", "micro_batch_size", "learning_rate", "gradient_clip",
            "evaluate_every", "evaluation_tokens", "sample_tokens", "checkpoint_every",
        )  # fmt: skip
        yield from _within(self, 0.0, 1.0, "weight_decay", "dropout_final")
        yield from _within(self, 0.0, 0.9999, "beta1", "beta2")
        if self.micro_batch_size and self.micro_batch_size > 0 and self.batch_size % self.micro_batch_size:
            yield f"micro_batch_size={self.micro_batch_size} must divide batch_size={self.batch_size}"
        used = self.warmup_steps + self.schedule.flat_steps + self.schedule.cycles
        if used > self.steps:
            yield (
                f"warm-up, flat part and one step per cycle take {used} of steps={self.steps}; "
                "lower schedule.warmup_steps or schedule.flat_steps, or train longer"
            )
        if self.compile == "on" and self.dropout_final != 1:
            yield "compile 'on' would compile each new dropout rate again; choose 'off', or leave dropout_final at 1"
        if self.sample_every < 0 or self.watch_every < 0 or self.seed < 0:
            yield "sample_every, watch_every and seed must be 0 or more"


# --- presets --------------------------------------------------------------------------------------------------

# What the token-factored transformer wears, and what it is compared with
PLAIN = dict(norm=NormConfig(kind="layer"), mlp=MLPConfig(activation="gelu_tanh", gated=False))
ARCHITECTURES: dict[str, dict] = {
    "gpt2": dict(
        norm=NormConfig(kind="layer", bias=True), mlp=MLPConfig(activation="gelu_tanh", gated=False),
        position=LearnedPositionConfig(), bias=True,
    ),
    "llama": dict(norm=NormConfig(), mlp=MLPConfig(), position=RoPEConfig()),
    "alibi": dict(**PLAIN, position=ALiBiConfig()),
    "vanilla": dict(**PLAIN, position=LearnedPositionConfig()),
    "sasp": dict(**PLAIN, position=ALiBiConfig(), block=ShapedBlockConfig()),
    "factored": dict(**PLAIN, position=LearnedPositionConfig(), block=FactoredBlockConfig()),
    "factored-alibi": dict(**PLAIN, position=ALiBiConfig(), block=FactoredBlockConfig()),
    "future": dict(norm=NormConfig(), mlp=MLPConfig(), position=RoPEConfig(), block=FutureBlockConfig()),
    "multi-token": dict(norm=NormConfig(), mlp=MLPConfig(), position=RoPEConfig(), block=MultiTokenBlockConfig()),
}  # fmt: skip


class Size(NamedTuple):
    n_layers: int
    n_heads: int
    width: int
    context_length: int
    max_positions: int
    batch_size: int
    learning_rate: float


SIZES: dict[str, Size] = {
    "tiny": Size(2, 2, 128, 128, 512, 64, 5e-4),
    "small": Size(6, 6, 192, 256, 1024, 32, 6e-4),
    "medium": Size(6, 6, 768, 128, 256, 32, 5e-4),
    "large": Size(12, 12, 768, 1024, 4096, 8, 2e-4),
    "character": Size(6, 6, 384, 256, 1024, 64, 1e-3),
    "124m": Size(12, 12, 768, 1024, 1024, 8, 6e-4),
}
# Tokenizers by size; the rest use bpe-2048. The name says its vocabulary, but for these three.
TOKENIZERS = {"character": "character", "124m": "gpt2"}
VOCABULARIES = {"byte": 257, "character": 333, "gpt2": 50_257, "r50k_base": 50_257}


class Preset(NamedTuple):
    model: ModelConfig
    train: TrainConfig


def list_models() -> list[str]:
    """Names of all architectures: each is a preset in every size, as in "factored-alibi-tiny"."""
    return list(ARCHITECTURES)


def list_presets() -> list[str]:
    """Names of all presets: every architecture in every size, and gpt2-124m, the published GPT-2."""
    sizes = [size for size in SIZES if size != "124m"]
    return [f"{architecture}-{size}" for architecture in list_models() for size in sizes] + ["gpt2-124m"]


def preset(name: str) -> Preset:
    """The model and training settings of `name`, such as "llama-tiny". Raises ConfigError for an unknown one."""
    if name not in list_presets():
        raise ConfigError(f"unknown preset {name!r}; {suggest(name, list_presets())}")
    architecture, size_name = name.rsplit("-", 1)
    size = SIZES[size_name]
    tokenizer = TOKENIZERS.get(size_name, "bpe-2048")
    vocab_size = VOCABULARIES.get(tokenizer) or int(tokenizer.removeprefix("bpe-"))
    learned = isinstance(ARCHITECTURES[architecture]["position"], LearnedPositionConfig)
    block = ARCHITECTURES[architecture].get("block")
    least = getattr(block, "layers_needed", 1)  # more than tiny's two
    model = ModelConfig(
        vocab_size=vocab_size, n_layers=max(size.n_layers, least), n_heads=size.n_heads, width=size.width,
        context_length=size.context_length, max_positions=None if learned else size.max_positions,
        **ARCHITECTURES[architecture],
    )  # fmt: skip
    train = TrainConfig(
        data=DataConfig(tokenizer=tokenizer), batch_size=size.batch_size, learning_rate=size.learning_rate
    )
    return Preset(model, train)


# --- single settings by name ----------------------------------------------------------------------------------


def setting_types() -> dict[str, object]:
    """The type of every setting by dotted name, those of all variants: "model.position.theta", "train.seed", ..."""
    return _types_below(ModelConfig, "model") | _types_below(TrainConfig, "train")


def _types_below(config: type[Config], prefix: str) -> dict[str, object]:
    found = {}
    for name, hint in _field_types(config).items():
        variants, name = _variants(hint), f"{prefix}.{name}"
        if not variants:
            found[name] = hint
        elif kinds := tuple(_kinds(variants)):
            found[f"{name}.kind"] = Literal[kinds]
        for variant in variants:
            found |= _types_below(variant, name)
    return found


def check_setting(name: str, value: object) -> None:
    """Raises ConfigError unless there is a setting of that dotted name, and `value` is of its type."""
    types_by_name = setting_types()
    if name not in types_by_name:
        raise ConfigError(f"unknown setting {name!r}; {suggest(name, types_by_name)}")
    if not _fits(value, types_by_name[name]):
        raise ConfigError(f"{name} must be {_describe(types_by_name[name])}, not {short(value)}")


def read_setting(name: str, text: str) -> object:
    """What `text` means as a value of that setting: None, True, False, a number or the text, whichever its type takes.

    Raises ConfigError for an unknown name, or where its type takes none of them.
    """
    for read in ({"None": None, "True": True, "False": False}.__getitem__, int, float):
        try:
            value = read(text)
            check_setting(name, value)
            return value
        except (KeyError, ValueError):  # a ConfigError is one
            pass
    check_setting(name, text)
    return text
