"""Every setting of Glassbox, and the presets. Edit it, or make settings by keywords. Imports no torch.

A model is described by `ModelConfig`, a training by `TrainConfig`. What only one kind of a part needs (RoPE's theta,
say) stands in that kind's own class. `preset("llama-tiny")` gives a matching pair of both.
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

from settings import combinations
from settings.adapting import DistilConfig, LoRAConfig, QuantisedConfig
from settings.checked import Config, settings
from settings.data import DataConfig
from settings.dropout import DropoutConfig
from settings.errors import ConfigError
from settings.messages import suggest
from settings.registry import name_built_in
from settings.schedule import ScheduleConfig
from settings.types import Above, Count, KindOf, Number, Numbers, Positive, Real, Text, Whole
from settings.windows import Windows

SAMPLE_PROMPT = "Once there was"  # A quarter of all tales begin so, and then comes a whole word, "a" or "an".

# The built-in kinds that have no settings of their own
name_built_in("norm", "rms", "layer", "cosine")
name_built_in("activation", "relu", "relu2", "gelu", "gelu_tanh", "silu", "mish")
name_built_in("mixing", "identity", "kronecker", "independent", "dense")
name_built_in("pool", "sum", "mean", "max", "parametric_sum", "parametric_max", "flatten", "convolution", "attention",
              "self_attention")
name_built_in("head", "linear")

# --- the parts of a model -------------------------------------------------------------------------------------


@settings
class NormConfig(Config):
    """x / rms(x), (x − mean) / sd, or √C · x / ‖x‖; then optionally · weight + bias."""
    family: ClassVar[str] = "norm"
    kind: Annotated[str, KindOf("norm")] = "rms"
    weight: bool = True
    bias: bool = False
    eps: Positive = 1e-5


@settings
class MLPConfig(Config):
    """down(activation(up(x))), or gated: down(activation(gate(x)) · up(x)) at the ungated parameter count."""
    activation: Annotated[str, KindOf("activation")] = "silu"
    gated: bool = True
    ratio: Above[0, 256] = 4.0

    def hidden(self, width: int) -> int:
        """Hidden units: ratio · width, or two thirds of it when gated, to the nearest multiple of 8."""
        units = self.ratio * width * (2 / 3 if self.gated else 1)
        return max(8, 8 * round(units / 8)) if self.gated else max(1, round(units))


@settings
class PositionConfig(Config):
    """A position encoding that has no settings of its own."""
    family: ClassVar[str] = "position"
    ends_with_context: ClassVar[bool] = False  # Whether it knows no position past context_length.
    kind: Annotated[str, KindOf("position")]


@settings
class NoPositionConfig(PositionConfig):
    """No position information but the causal mask (Haviv et al. 2022, arXiv 2203.16634)."""
    kind: Literal["none"] = "none"


@settings
class LearnedPositionConfig(PositionConfig):
    """A trained vector for each position, added to the embedding (GPT-2). No position past context_length has one."""
    ends_with_context: ClassVar[bool] = True
    kind: Literal["learned"] = "learned"

    model_problems = combinations.learned_in_model


@settings
class SinusoidalConfig(PositionConfig):
    """Fixed sines and cosines added to the embedding (Vaswani et al. 2017, arXiv 1706.03762, 3.5)."""
    kind: Literal["sinusoidal"] = "sinusoidal"
    theta: Positive = 10_000.0

    model_problems = combinations.sinusoidal_in_model


@settings
class RoPEConfig(PositionConfig):
    """Queries and keys turned by their position (Su et al. 2021, arXiv 2104.09864)."""
    kind: Literal["rope"] = "rope"
    theta: Positive = 10_000.0

    model_problems = combinations.rope_in_model


@settings
class ALiBiConfig(PositionConfig):
    """Scores lowered in proportion to distance (Press et al. 2021, arXiv 2108.12409); slopes: one per head."""
    kind: Literal["alibi"] = "alibi"
    slopes: Numbers | None = None  # None: the paper's.

    model_problems = combinations.alibi_in_model


@settings
class BlockConfig(Config):
    """A block that has no settings of its own."""
    family: ClassVar[str] = "block"
    layers_needed: ClassVar[int] = 1  # The fewest layers of a model of such blocks.
    kind: Annotated[str, KindOf("block")]


@settings
class ResidualBlockConfig(BlockConfig):
    """x + attention(norm(x)), then x + mlp(norm(x))."""
    kind: Literal["residual"] = "residual"
    post_norm: bool = False  # A second norm after each sub-layer, before it is added (as in Grok).
    parallel: bool = False  # Attention and MLP both read the same normed x and are added together (as in GPT-J).


@settings
class FactoredBlockConfig(BlockConfig):
    """Two streams: attention moves the raw token stream xt, the MLP writes into xe (arXiv 2603.07461).

    A mixing maps the C = H · D channels of xt, before attention as its values and again behind it: not at all, by one
    H × H matrix over whole heads (kronecker), within each head (independent), or by any matrix (dense). Mixings never
    have a bias: the stream stays linear.
    """

    kind: Literal["factored"] = "factored"
    value_mixing: Annotated[str, KindOf("mixing")] = "kronecker"
    output_mixing: Annotated[str, KindOf("mixing")] = "kronecker"
    # How a mixing starts: as N(0, init_std), as the identity, or as the identity / √n_layers.
    mixing_init: Literal["normal", "identity", "scaled_identity"] = "scaled_identity"
    frozen_tokens: bool = False  # xt stays the embedding; attention writes into xe.
    head_norm: bool = False  # Both norms act on each head alone.

    problems = combinations.factored

    model_problems = combinations.factored_in_model


@settings
class ShapedBlockConfig(BlockConfig):
    """gain · mlp(norm(x)) + shaped attention(norm(x)): no skip, no value or output projection (arXiv 2311.01906).

    The block starts as norm(x) + mlp_gain · mlp(norm(x)), because its attention starts as the identity.
    """

    kind: Literal["shaped"] = "shaped"
    mlp_gain: Number = 0.1  # Where the trained β_FF starts; the authors have 0.1 for 18 layers, less for more.

    model_problems = combinations.shaped_in_model


@settings
class FutureBlockConfig(Windows, BlockConfig):
    """Residual blocks whose last ones predict ever wider windows of the future, and attend to these predictions.

    Level p, counted from 1, is about factor^p tokens. The windows follow each other from the second next token on: for
    factor 2 they are 2-3, 4-7, 8-15 tokens ahead, for factor 3 2-4, 5-13, 14-40. The layers are a body of at least one,
    one for each level from the furthest to the nearest, and a last one for the next token. A window's pool is `vectors`
    vectors at the first level and more at the further ones, as the schedule says: · 1 (constant), p, √p, 1 + ⌊log₂ p⌋,
    or p² (poly); never more than it has tokens. Level p's loss counts loss_weight · decay^(p − 1).
    """

    kind: Literal["future"] = "future"
    levels: Whole[1, 9] = 3
    factor: Whole[2, 4] = 2
    pool: Annotated[str, KindOf("pool")] = "mean"
    schedule: Literal["constant", "linear", "root", "log", "poly"] = "constant"
    vectors: Whole[1, 1024] = 1
    # The window's tokens as a distribution (bag) or each as there or not; its pool up to direction or exactly.
    predicts: Literal["bag", "multi_hot", "vector_cosine", "vector_squared"] = "bag"
    loss_weight: Real[0, 1e30] = 0.1  # Of the first level, beside the next token's 1.
    decay: Above[0, 1] = 0.5  # 1 weighs all levels alike.
    norm_before: bool = True  # A norm before the pool.
    linear_after: bool = False  # A linear map after the pool.
    share: bool = False  # One pool for all levels.

    problems = combinations.future

    model_problems = combinations.future_in_model


@settings
class MultiTokenBlockConfig(ResidualBlockConfig):
    """Residual blocks, the last `heads` of them side by side: each gives the token one further ahead (2404.19737).

    They count among n_layers, so that the model is as large as one without.
    """

    kind: Literal["multi_token"] = "multi_token"
    heads: Whole[1, 8] = 4
    loss_weight: Positive = 1.0  # Of each further head's loss, beside the next token's 1.

    model_problems = combinations.multi_token_in_model

    @property
    def layers_needed(self) -> int:
        """A trunk of one layer, and the heads."""
        return self.heads + 1


@settings
class HeadConfig(Config):
    """What turns the last state into logits. A linear head may share its weights with the embedding (tie_weights)."""
    family: ClassVar[str] = "head"
    kind: Annotated[str, KindOf("head")] = "linear"


@settings
class ModelConfig(Config):
    """A decoder-only transformer."""
    vocab_size: Count | None = None  # Rows of the embedding; at least the tokenizer's. None: the tokenizer's.
    context_length: Count = 256  # Tokens it is trained on at once.
    max_positions: Count | None = None  # The most it accepts when generating; None: four times the context.
    n_layers: Whole[1, 512] = 6
    n_heads: Whole[1, 1024] = 6
    n_kv_heads: Whole[1, 1024] | None = None  # None: multi-head; 1: multi-query; between: grouped-query (2305.13245).
    width: Whole[1, 2**16] = 192  # Channels of the residual stream.
    norm: NormConfig = NormConfig()
    mlp: MLPConfig = MLPConfig()
    position: PositionConfig = RoPEConfig()
    block: BlockConfig = ResidualBlockConfig()
    head: HeadConfig = HeadConfig()
    dropout: DropoutConfig = DropoutConfig()
    bias: bool = False  # Biases in all linear layers.
    tie_weights: bool = True  # The head is the embedding (arXiv 1608.05859).
    embedding_scale: bool = False  # Embeddings times √width, as in the first transformer.
    init_std: Positive = 0.02
    zero_init: bool = False  # What writes into the residual stream starts at 0; mixings start as mixing_init says.
    qk_norm: bool = False  # RMS norms of queries and keys, over each head's channels (arXiv 2010.04245).
    logit_cap: Positive | None = None  # cap · tanh(logits / cap) in place of the logits (arXiv 2408.00118).
    window: Count | None = None  # The last so many tokens are all that a token attends to, itself included. None: all.
    lora: LoRAConfig | None = None  # Adapters, which train while all else is frozen.
    quantised: QuantisedConfig | None = None  # Weights of 8 or 4 bits; adapters may be on top of them.

    @property
    def head_dim(self) -> int:
        return self.width // self.n_heads

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def position_limit(self) -> int:
        """Positions the model accepts: what it was trained on for learned ones, max_positions for the others."""
        if self.position.ends_with_context:
            return self.context_length
        return self.max_positions or 4 * self.context_length

    def settled(self, tokens: int) -> "ModelConfig":
        """The same with a vocabulary that follows the tokenizer, of so many tokens, written out, as a run stores it."""
        return self if self.vocab_size is not None else self.replace(vocab_size=tokens)

    further_positions = property(combinations.further_positions)
    problems = combinations.model


# --- training -------------------------------------------------------------------------------------------------


@settings
class TrainConfig(Config):
    """One training."""
    earlier: ClassVar[dict] = {"optimizer": "adamw"}
    data: DataConfig = DataConfig()
    steps: Whole[1, 10**9] = 1000
    batch_size: Count = 64  # Sequences per optimizer step.
    micro_batch_size: Count | Literal["auto"] | None = None  # Of them at once. None: all; auto: as many as fit.
    learning_rate: Positive = 1e-3  # The schedule's peak.
    # muon: for hidden matrices, with AdamW for all else (arXiv 2502.16982). None: muon, but adamw for an adapter.
    optimizer: Literal["muon", "adamw"] | None = None
    muon_rate: Positive = 1.0  # Muon's learning rate, as a multiple of AdamW's.
    muon_momentum: Real[0, 0.9999] = 0.95
    weight_decay: Real[0, 1] = 0.1  # On matrices alone.
    beta1: Real[0, 0.9999] = 0.9
    beta2: Real[0, 0.9999] = 0.95
    gradient_clip: Positive | None = 1.0  # Largest global gradient norm; None: no limit.
    schedule: ScheduleConfig = ScheduleConfig()
    dropout_final: Real[0, 1] = 1.0  # The share of the model's dropout rates left at the last step, reached linearly.
    gradient_checkpointing: bool = False  # Recompute activations going back: less memory, a third more time.
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"  # tf32: on CUDA; bf16: autocast; auto: measured.
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: CUDA before MPS before CPU.
    compile: Literal["auto", "on", "off"] = "auto"  # auto: where the training is long enough to gain by it.
    evaluate_every: Whole[1, 10**12] = 100
    evaluation_tokens: Whole[1, 10**12] = 32_768  # Always the first so many held-out tokens.
    sample_every: Whole[0, 10**12] = 0  # 0: never.
    sample_prompt: Text = SAMPLE_PROMPT  # A beginning of tales; for other texts give one of theirs.
    sample_tokens: Count = 120
    checkpoint_every: Whole[1, 10**12] = 200
    watch_every: Whole[0, 10**12] = 0  # Steps between two looks into the layers, from the first step on. 0: never.
    seed: Whole[0, 9 * 10**12] = 0
    distil: DistilConfig | None = None  # A teacher to learn from, too.

    @property
    def warmup_steps(self) -> int:
        """Steps of warm-up: the schedule's, or a tenth of all."""
        return self.steps // 10 if self.schedule.warmup_steps is None else self.schedule.warmup_steps

    def settled(self, model: ModelConfig) -> "TrainConfig":
        """The same with what follows from other settings written out, as a run of this model stores it."""
        optimizer = self.optimizer or ("adamw" if model.lora else "muon")
        return self.replace(optimizer=optimizer, schedule=self.schedule.replace(warmup_steps=self.warmup_steps))

    at_once = property(combinations.at_once)
    accumulation = property(combinations.accumulation)
    problems = combinations.train


# --- presets --------------------------------------------------------------------------------------------------

# Norm and MLP shared by the factored models and their baselines
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
}
# Layers, heads, width, context length, most positions, batch size
# 128 (bench/studies/recipes.py); those of the other widths go with 1 / width
SIZES = {
    "tiny": (2, 2, 128, 128, 512, 64),
    "small": (6, 6, 192, 256, 1024, 32),
    "medium": (6, 6, 768, 128, 256, 64),
    "large": (12, 12, 768, 1024, 4096, 8),
    "character": (6, 6, 384, 256, 1024, 64),
    # Width × layers; h4: with 4 heads
    "128x4": (4, 4, 128, 256, 1024, 32),
    "256x6": (6, 8, 256, 256, 1024, 32),
    "256x6h4": (6, 4, 256, 256, 1024, 32),
    "512x12": (12, 8, 512, 512, 2048, 16),
    "768x24": (24, 12, 768, 1024, 4096, 8),
    "124m": (12, 12, 768, 1024, 1024, 8),
}
# The learning rate that was best with Muon at width 128 (bench/studies/recipes.py); others follow as 1 / width
TUNED_RATE, TUNED_WIDTH = 1.2e-2, 128
TOKENIZERS = {"character": "character", "124m": "gpt2"}  # by size; the rest use bpe-2048
# How many tokens each of these tokenizers has; that of any other follows where a run is made
VOCABULARIES = {
    "byte": 257, "character": 333, "bpe-512": 512, "bpe-1024": 1024, "bpe-2048": 2048, "bpe-4096": 4096,
    "bpe-8192": 8192, "gpt2": 50_257, "r50k_base": 50_257,
}


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


def preset(name: str, tokenizer: str | None = None) -> Preset:
    """The model and training settings of `name`, such as "llama-tiny". Raises ConfigError for an unknown one.

    tokenizer: the name of another tokenizer than the preset's; the model's vocabulary follows it.
    """
    if name not in list_presets():
        raise ConfigError(f"unknown preset {name!r}; {suggest(name, list_presets())}")
    architecture, size = name.rsplit("-", 1)
    n_layers, n_heads, width, context_length, positions, batch_size = SIZES[size]
    parts, own = ARCHITECTURES[architecture], TOKENIZERS.get(size, "bpe-2048")
    data = DataConfig(tokenizer=own if tokenizer is None else tokenizer)
    max_positions = None if parts["position"].ends_with_context else positions
    model = ModelConfig(
        vocab_size=VOCABULARIES.get(data.tokenizer),
        n_layers=max(n_layers, getattr(parts.get("block"), "layers_needed", 1)),  # more than tiny's two
        n_heads=n_heads, width=width, context_length=context_length, max_positions=max_positions,
        **parts,
    )
    learning_rate = round(TUNED_RATE * TUNED_WIDTH / width, 6)
    return Preset(model, TrainConfig(data=data, batch_size=batch_size, learning_rate=learning_rate))
