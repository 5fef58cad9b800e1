"""Every architecture × variant that the laws are tested on, at test size: no two axes have the same length.

An architecture joins the laws by joining this table; a kind that is registered and in no variant gets one of its own.
The tests know a model by its behaviour (tokens in, logits out, a cache, named losses), not by its classes.
"""

import modules.ideas  # noqa: F401  # registers the ideas of this repository
from config import (
    ARCHITECTURES,
    ALiBiConfig,
    FactoredBlockConfig,
    FutureBlockConfig,
    LearnedPositionConfig,
    LoRAConfig,
    MLPConfig,
    ModelConfig,
    MultiTokenBlockConfig,
    NoPositionConfig,
    NormConfig,
    QuantisedConfig,
    ResidualBlockConfig,
    RoPEConfig,
    ShapedBlockConfig,
    SinusoidalConfig,
)
from settings.checked import Config, settings_of
from settings.registry import FAMILIES, is_built_in, kinds_of

BATCH = 5  # sequences, and
LENGTH = 13  # tokens of each: what the laws feed to every variant

SIZES = dict(vocab_size=61, context_length=17, n_layers=2, n_heads=4, width=40)
GROUPED = dict(n_kv_heads=2)
SINGLE = dict(n_kv_heads=1)
THREE_HEADS = dict(n_heads=3, width=42)
SIX_HEADS = dict(n_heads=6, width=48)
POST = ResidualBlockConfig(post_norm=True)
PARALLEL = ResidualBlockConfig(parallel=True)
BOTH = ResidualBlockConfig(post_norm=True, parallel=True)


def vary(architecture: str, **changes) -> ModelConfig:
    layers = dict(n_layers=6) if architecture in ("future", "multi-token") else {}  # a body of two, and what follows
    return ModelConfig(**{**SIZES, **layers, **ARCHITECTURES[architecture], **changes})


def fewest_layers(config: ModelConfig) -> ModelConfig:
    """The same with as few layers as its block allows: further ones compute as these do."""
    return config.replace(n_layers=config.block.layers_needed)


def mlp(activation: str, gated: bool, ratio: float = 4.0) -> MLPConfig:
    return MLPConfig(activation=activation, gated=gated, ratio=ratio)


def norm(kind: str, weight: bool, bias: bool) -> NormConfig:
    return NormConfig(kind=kind, weight=weight, bias=bias)


def factored(value_mixing: str, output_mixing: str, **changes) -> FactoredBlockConfig:
    return FactoredBlockConfig(value_mixing=value_mixing, output_mixing=output_mixing, **changes)


def future(pool: str, schedule: str, predicts: str, levels: int = 2, **changes) -> ModelConfig:
    """A body of one layer, and what the levels need. No window has as many tokens as an axis is long."""
    model = {key: changes.pop(key) for key in list(changes) if key in ModelConfig.__dataclass_fields__}
    block = FutureBlockConfig(pool=pool, schedule=schedule, predicts=predicts, levels=levels, **changes)
    return vary("future", n_layers=levels + 2, block=block, **model)


def config_of(family: str, name: str) -> Config:
    """The settings of a kind, at their defaults."""
    return settings_of(family, name)(kind=name)


def built_in(family: str) -> list[str]:
    """The kinds that are not ideas."""
    return [name for name in kinds_of(family) if is_built_in(family, name)]


def variant_of(family: str, name: str) -> ModelConfig:
    """A small model with that kind in it."""
    if family == "activation":
        return vary("llama", mlp=mlp(name, True))
    if family == "mixing":
        return vary("factored", block=factored(name, name))
    if family == "pool":
        return future(name, "linear", "bag")
    config = config_of(family, name)
    if family == "block":
        return vary("llama", block=config, n_layers=max(2, config.layers_needed))
    return vary("llama", **{family: config}, tie_weights=family != "head")


def kinds_in(config: ModelConfig) -> set[tuple[str, str]]:
    """The family and name of every kind in a model."""
    found = {(family, getattr(config, family).kind) for family in ("norm", "position", "block", "head")}
    found.add(("activation", config.mlp.activation))
    found |= {("mixing", getattr(config.block, name, None)) for name in ("value_mixing", "output_mixing")}
    return found | {("pool", getattr(config.block, "pool", None))}


VARIANTS: dict[str, ModelConfig] = {
    # the architectures as their presets have them
    **{name: vary(name) for name in ARCHITECTURES},
    # heads of keys and values
    "llama-grouped": vary("llama", **GROUPED),
    "llama-single": vary("llama", **SINGLE),
    "gpt2-grouped": vary("gpt2", **GROUPED),
    "alibi-grouped-six-heads": vary("alibi", **SIX_HEADS, **GROUPED),
    "alibi-single-three-heads": vary("alibi", **THREE_HEADS, **SINGLE),
    # norms, with and without weight and bias
    "rms-bias": vary("llama", norm=norm("rms", True, True), mlp=mlp("mish", False)),
    "rms-bare": vary("llama", norm=norm("rms", False, False), mlp=mlp("relu", False)),
    "layer-bare": vary("gpt2", norm=norm("layer", False, False), mlp=mlp("gelu_tanh", True)),
    "layer-bias-alone": vary("alibi", norm=norm("layer", False, True), mlp=mlp("relu2", False)),
    "cosine": vary("llama", norm=norm("cosine", True, False), mlp=mlp("gelu", False)),
    "cosine-bare": vary("llama", norm=norm("cosine", False, False), mlp=mlp("gelu", True)),
    "cosine-bias": vary("alibi", norm=norm("cosine", True, True), mlp=mlp("silu", False)),
    "cosine-bias-alone": vary("gpt2", norm=norm("cosine", False, True), mlp=mlp("relu", True)),
    # what is left of the activations, and another ratio
    "relu2-gated": vary("llama", mlp=mlp("relu2", True)),
    "mish-gated-narrow": vary("llama", mlp=mlp("mish", True, ratio=2.5), bias=True),
    # positions
    "no-position": vary("llama", position=NoPositionConfig()),
    "sinusoidal": vary("gpt2", position=SinusoidalConfig(), embedding_scale=True),
    "sinusoidal-theta": vary("llama", position=SinusoidalConfig(theta=100.0), **GROUPED),
    "rope-theta": vary("gpt2", position=RoPEConfig(theta=500_000.0), bias=False),
    "learned-llama": vary("llama", position=LearnedPositionConfig(), tie_weights=False),
    "alibi-slopes": vary("alibi", position=ALiBiConfig(slopes=(0.9, 0.3, 0.05, 0.0)), bias=True),
    # blocks
    "post-norm": vary("llama", block=POST, embedding_scale=True),
    "parallel": vary("gpt2", block=PARALLEL, tie_weights=False),
    "parallel-post-norm": vary("alibi", block=BOTH, **GROUPED),
    # two streams: each pair of mixings has one of its kinds here, each start, each position
    "factored-raw": vary("factored-alibi", block=factored("identity", "identity")),
    "factored-raw-values": vary("factored-alibi", block=factored("identity", "kronecker", mixing_init="normal")),
    "factored-raw-output": vary("factored", block=factored("kronecker", "identity", mixing_init="identity")),
    "factored-independent": vary(
        "factored-alibi", block=factored("independent", "independent"), position=NoPositionConfig(), bias=True
    ),
    "factored-dense": vary(
        "factored-alibi", block=factored("dense", "dense", mixing_init="normal"), position=RoPEConfig()
    ),
    "factored-mixed": vary(
        "llama", block=factored("dense", "independent", mixing_init="identity"), position=SinusoidalConfig()
    ),
    "factored-mixed-frozen": vary("factored", block=factored("independent", "dense", frozen_tokens=True)),
    "factored-head-norm": vary("factored-alibi", block=factored("kronecker", "kronecker", head_norm=True)),
    "factored-head-norm-frozen": vary(
        "llama", block=factored("kronecker", "dense", head_norm=True, frozen_tokens=True), **SIX_HEADS
    ),
    # no skip, no projections
    "shaped-rope": vary("llama", block=ShapedBlockConfig(), bias=True),
    "shaped-learned": vary("sasp", block=ShapedBlockConfig(mlp_gain=1.0), position=LearnedPositionConfig()),
    # foreseeing: each pool, schedule and prediction, each factor, each position
    "future-sum": future("sum", "linear", "vector_squared", norm_before=False, linear_after=True),
    "future-max": future("max", "root", "vector_cosine", levels=1, factor=4, vectors=2, position=ALiBiConfig()),
    "future-parametric-sum": future("parametric_sum", "poly", "bag", position=LearnedPositionConfig(), **GROUPED),
    "future-parametric-max": future("parametric_max", "log", "multi_hot", position=ALiBiConfig(), **SINGLE),
    "future-flatten": future("flatten", "constant", "vector_squared", factor=3, vectors=2, share=True, bias=True),
    "future-convolution": future("convolution", "linear", "bag", share=True, linear_after=True, tie_weights=False),
    "future-attention": future("attention", "root", "vector_cosine", levels=3, share=True, norm_before=False),
    "future-self-attention": future("self_attention", "linear", "multi_hot", factor=3, bias=True, **GROUPED),
    "multi-token-eight": vary(
        "multi-token", n_layers=9, block=MultiTokenBlockConfig(heads=8, loss_weight=0.5), **SINGLE
    ),
    "multi-token-post-norm": vary(
        "multi-token", block=MultiTokenBlockConfig(heads=2, post_norm=True), position=ALiBiConfig()
    ),
    "multi-token-one": vary("multi-token", block=MultiTokenBlockConfig(heads=1, parallel=True), tie_weights=False),
    # adapters on frozen weights: each form of linear layer, mixings, a head, pools that several blocks share
    "llama-lora": vary("llama", lora=LoRAConfig(rank=3, alpha=6.0, dropout=0.1)),
    "gpt2-lora-grouped": vary("gpt2", lora=LoRAConfig(rank=3, layers="blocks.*.attention.*"), **GROUPED),
    "untied-lora": vary(
        "llama", tie_weights=False, logit_cap=5.0, lora=LoRAConfig(rank=3, layers="head, blocks.*.mlp.*")
    ),
    "factored-lora": vary("factored-alibi", lora=LoRAConfig(rank=3)),
    "factored-lora-mixed": vary("factored", block=factored("dense", "independent"), lora=LoRAConfig(rank=3)),
    "sasp-lora": vary("sasp", lora=LoRAConfig(rank=3)),
    "future-lora": future(
        "flatten", "constant", "vector_squared", factor=3, vectors=2, share=True, lora=LoRAConfig(rank=3)
    ),
    "multi-token-lora": vary("multi-token", lora=LoRAConfig(rank=3)),
    # weights of few bits: each kind of layer that can have them, pools that several blocks share, an adapter on top
    "llama-int8": vary("llama", init_std=0.1, quantised=QuantisedConfig()),
    "gpt2-int4-grouped": vary("gpt2", init_std=0.1, quantised=QuantisedConfig(bits=4), **GROUPED),
    "untied-int4-wide": vary(
        "llama", init_std=0.1, tie_weights=False, logit_cap=5.0,
        quantised=QuantisedConfig(bits=4, group=64, layers="head, blocks.*.mlp.*"),
    ),
    "factored-dense-int8": vary("factored", block=factored("dense", "dense"), quantised=QuantisedConfig()),
    "factored-mixed-int4": vary(
        "factored-alibi", block=factored("kronecker", "dense"), quantised=QuantisedConfig(bits=4)
    ),
    "future-int8": future(
        "flatten", "constant", "vector_squared", factor=3, vectors=2, share=True, bias=True, init_std=0.1,
        quantised=QuantisedConfig(),
    ),
    "llama-int8-lora": vary("llama", init_std=0.1, quantised=QuantisedConfig(), lora=LoRAConfig(rank=3)),
    "untied-int4-lora": vary(
        "llama", init_std=0.1, tie_weights=False, logit_cap=5.0,
        quantised=QuantisedConfig(bits=4, layers="head, blocks.*"),
        lora=LoRAConfig(rank=3, layers="head, blocks.*"),
    ),
    # a window on attention, norms of queries and keys, a cap on the logits, a start at 0
    "llama-windowed": vary("llama", window=4, qk_norm=True, logit_cap=5.0, zero_init=True, **GROUPED),
    "alibi-windowed": vary("alibi", window=7, logit_cap=30.0, tie_weights=False),
    "factored-windowed": vary("factored-alibi", window=5, qk_norm=True, zero_init=True),
    "sasp-normed": vary("sasp", qk_norm=True, zero_init=True),
    "future-windowed": future(
        "mean", "linear", "bag", vectors=2, window=6, qk_norm=True, logit_cap=5.0, zero_init=True, **SINGLE
    ),
    "multi-token-windowed": vary("multi-token", window=3, qk_norm=True, logit_cap=5.0),
    # the rest of the switches
    "untied": vary("llama", tie_weights=False, embedding_scale=True, max_positions=29),
    "one-layer-wide-start": vary("alibi", n_layers=1, init_std=0.1),
}
COVERED = {kind for config in VARIANTS.values() for kind in kinds_in(config)}
VARIANTS |= {
    f"{family}-{name}": variant_of(family, name)
    for family in FAMILIES for name in kinds_of(family) if (family, name) not in COVERED
}
# A quantised model without an adapter can't be trained; an adapter on quantised weights can't be merged into them.
TRAINED = {name: config for name, config in VARIANTS.items() if config.lora or not config.quantised}
MERGED = {name: config for name, config in VARIANTS.items() if config.lora and not config.quantised}
