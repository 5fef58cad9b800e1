"""Llama (LlamaForCausalLM): RoPE, RMS norms, grouped-query attention, a gated MLP. SmolLM and others have its form."""

import re
from collections.abc import Iterator

from config import DropoutConfig, MLPConfig, ModelConfig, NormConfig, RoPEConfig
from lab.exchange.family import Family, Settings, Slot, activation_name
from settings.messages import short

THETA = 10_000.0


class Llama(Family):
    name, model_type, architecture = "Llama", "llama", "LlamaForCausalLM"
    base, embedding = "model.", "model.embed_tokens.weight"
    buffers = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
    defaults = {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 2048,
        "initializer_range": 0.02, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_bias": False,
        "attention_dropout": 0.0, "mlp_bias": False, "head_dim": None,
    }

    def config(self, settings: Settings) -> ModelConfig:
        width, n_heads, limit = (
            settings.whole(name) for name in ("hidden_size", "num_attention_heads", "max_position_embeddings")
        )
        settings.only("head_dim", None, width // n_heads)
        return ModelConfig(
            vocab_size=settings.whole("vocab_size"), context_length=trained_length(settings, limit),
            max_positions=limit, n_layers=settings.whole("num_hidden_layers"), n_heads=n_heads,
            n_kv_heads=kv_heads(settings), width=width,
            norm=NormConfig(kind="rms", eps=settings.number("rms_norm_eps")),
            mlp=MLPConfig(
                activation=settings.activation("hidden_act"), gated=True, ratio=1.5 * padded(settings) / width
            ),
            position=RoPEConfig(theta=theta(settings)), bias=any(biases(settings)),
            dropout=DropoutConfig(attention=settings.number("attention_dropout")),
            tie_weights=settings.flag("tie_word_embeddings"), init_std=settings.number("initializer_range"),
        )

    def settings(self, config: ModelConfig) -> dict[str, object]:
        return {
            "vocab_size": config.vocab_size, "hidden_size": config.width,
            "intermediate_size": config.mlp.hidden(config.width), "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads, "num_key_value_heads": config.kv_heads,
            "hidden_act": activation_name(config.mlp.activation), "max_position_embeddings": config.position_limit,
            "context_length": config.context_length, "initializer_range": config.init_std,
            "rms_norm_eps": config.norm.eps, "tie_word_embeddings": config.tie_weights,
            "attention_bias": config.bias, "mlp_bias": config.bias, "attention_dropout": config.dropout.attention,
            "rope_parameters": {"rope_type": "default", "rope_theta": getattr(config.position, "theta", THETA)},
        }

    def slots(self, settings: Settings) -> Iterator[Slot]:
        width, inner = settings.whole("hidden_size"), settings.whole("intermediate_size")
        grouped = kv_heads(settings) * (width // settings.whole("num_attention_heads"))
        in_attention, in_mlp = biases(settings)
        yield Slot(self.embedding, "embedding.weight", (settings.whole("vocab_size"), width))
        yield Slot("model.norm.weight", "norm.weight", (width,))
        for i in range(settings.whole("num_hidden_layers")):
            theirs, ours = f"model.layers.{i}", f"blocks.{i}"
            yield Slot(f"{theirs}.input_layernorm.weight", f"{ours}.attention_norm.weight", (width,))
            yield Slot(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp_norm.weight", (width,))
            maps = [
                ("self_attn.q_proj", "attention.qkv", (width, width), 0, in_attention),
                ("self_attn.k_proj", "attention.qkv", (grouped, width), width, in_attention),
                ("self_attn.v_proj", "attention.qkv", (grouped, width), width + grouped, in_attention),
                ("self_attn.o_proj", "attention.out", (width, width), 0, in_attention),
                ("mlp.gate_proj", "mlp.gate_up", (inner, width), 0, in_mlp),
                ("mlp.up_proj", "mlp.gate_up", (inner, width), padded(settings), in_mlp),
                ("mlp.down_proj", "mlp.down", (width, inner), 0, in_mlp),
            ]
            for its, mine, shape, start, biased in maps:
                yield Slot(f"{theirs}.{its}.weight", f"{ours}.{mine}.weight", shape, start)
                if biased:
                    yield Slot(f"{theirs}.{its}.bias", f"{ours}.{mine}.bias", shape[:1], start)


def kv_heads(settings: Settings) -> int:
    name = "num_attention_heads" if settings.get("num_key_value_heads") is None else "num_key_value_heads"
    return settings.whole(name)


def biases(settings: Settings) -> tuple[bool, bool]:
    """Whether attention has biases, and the MLP. Ours has both or none: zeros stand for those that are missing."""
    return settings.flag("attention_bias"), settings.flag("mlp_bias")


def padded(settings: Settings) -> int:
    """Hidden units of our MLP: a multiple of 8. The further ones are zeros, and activation(0) · 0 adds nothing."""
    return -(-settings.whole("intermediate_size") // 8) * 8


def trained_length(settings: Settings, limit: int) -> int:
    """The tokens that it was trained on at once: only folders of ours say it; in others it is the limit itself."""
    return limit if settings.get("context_length") is None else settings.whole("context_length")


def theta(settings: Settings) -> float:
    """RoPE's base, from `rope_parameters` or, in files of earlier versions, from `rope_theta` and `rope_scaling`."""
    found = {"rope_theta": THETA if settings.get("rope_theta") is None else settings.get("rope_theta")}
    for name in ("rope_scaling", "rope_parameters"):
        stated = settings.get(name)
        if stated is None:
            continue
        kind = stated.get("rope_type", stated.get("type", "default")) if isinstance(stated, dict) else None
        if kind != "default" or stated.keys() - {"rope_type", "type", "rope_theta", "partial_rotary_factor"}:
            settings.problems.append(f"{name} is {short(stated)}; only RoPE of the type 'default' can be read")
            continue
        found |= stated
    read = Settings(found, {})
    read.only("partial_rotary_factor", None, 1)
    settings.problems += read.problems
    return read.number("rope_theta")
