"""GPT-2 (GPT2LMHeadModel): learned positions, layer norms, biases everywhere, an MLP without a gate."""

import re
from collections.abc import Iterator

from config import DropoutConfig, LearnedPositionConfig, MLPConfig, ModelConfig, NormConfig
from lab.exchange.family import Family, Settings, Slot, activation_name

RATES = {"embedding": "embd_pdrop", "attention": "attn_pdrop", "residual": "resid_pdrop"}


class GPT2(Family):
    name, model_type, architecture = "GPT-2", "gpt2", "GPT2LMHeadModel"
    base, embedding = "transformer.", "transformer.wte.weight"
    buffers = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)")
    always = frozenset({"model.bias", "model.norm.bias"})
    defaults = {
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True,
    }

    def config(self, settings: Settings) -> ModelConfig:
        settings.only("scale_attn_weights", True)
        settings.only("scale_attn_by_inverse_layer_idx", False)
        width = settings.whole("n_embd")
        return ModelConfig(
            vocab_size=settings.whole("vocab_size"), context_length=settings.whole("n_positions"),
            n_layers=settings.whole("n_layer"), n_heads=settings.whole("n_head"), width=width,
            norm=NormConfig(kind="layer", bias=True, eps=settings.number("layer_norm_epsilon")),
            mlp=MLPConfig(
                activation=settings.activation("activation_function"), gated=False, ratio=hidden(settings) / width
            ),
            position=LearnedPositionConfig(), bias=True, tie_weights=settings.flag("tie_word_embeddings"),
            dropout=DropoutConfig(**{ours: settings.number(theirs) for ours, theirs in RATES.items()}),
            init_std=settings.number("initializer_range"),
        )

    def settings(self, config: ModelConfig) -> dict[str, object]:
        return {
            "vocab_size": config.vocab_size, "n_positions": config.context_length, "n_embd": config.width,
            "n_layer": config.n_layers, "n_head": config.n_heads, "n_inner": config.mlp.hidden(config.width),
            "activation_function": activation_name(config.mlp.activation),
            **{theirs: getattr(config.dropout, ours) for ours, theirs in RATES.items()},
            "layer_norm_epsilon": config.norm.eps, "initializer_range": config.init_std,
            "tie_word_embeddings": config.tie_weights,
        }

    def slots(self, settings: Settings) -> Iterator[Slot]:
        width, inner = settings.whole("n_embd"), hidden(settings)
        yield Slot(self.embedding, "embedding.weight", (settings.whole("vocab_size"), width))
        yield Slot("transformer.wpe.weight", "position.table.weight", (settings.whole("n_positions"), width))
        yield from both("transformer.ln_f", "norm", (width,))
        for i in range(settings.whole("n_layer")):
            theirs, ours = f"transformer.h.{i}", f"blocks.{i}"
            yield from both(f"{theirs}.ln_1", f"{ours}.attention_norm", (width,))
            yield from both(f"{theirs}.attn.c_attn", f"{ours}.attention.qkv", (3 * width, width))
            yield from both(f"{theirs}.attn.c_proj", f"{ours}.attention.out", (width, width))
            yield from both(f"{theirs}.ln_2", f"{ours}.mlp_norm", (width,))
            yield from both(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up", (inner, width))
            yield from both(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down", (width, inner))


def hidden(settings: Settings) -> int:
    return 4 * settings.whole("n_embd") if settings.get("n_inner") is None else settings.whole("n_inner")


def both(theirs: str, ours: str, shape: tuple[int, ...]) -> Iterator[Slot]:
    """Weight and bias of a norm or of a linear map, whose matrix GPT-2 keeps as (inputs, outputs)."""
    yield Slot(f"{theirs}.weight", f"{ours}.weight", shape, transposed=len(shape) == 2)
    yield Slot(f"{theirs}.bias", f"{ours}.bias", shape[:1])
