"""MPT (MptForCausalLM): ALiBi, layer norms without bias, no biases, an MLP of exactly 4 · width units with GELU."""

import math
import re
from collections.abc import Iterator

from config import ALiBiConfig, DropoutConfig, MLPConfig, ModelConfig, NormConfig
from lab.exchange.family import Family, Settings, Slot
from lab.exchange.llama import trained_length
from settings.errors import RunError
from settings.messages import short


class MPT(Family):
    name, model_type, architecture = "MPT", "mpt", "MptForCausalLM"
    base, embedding = "transformer.", "transformer.wte.weight"
    buffers = re.compile(r"(?!)")  # none
    defaults = {
        "d_model": 2048, "n_heads": 16, "n_layers": 24, "expansion_ratio": 4, "max_seq_len": 2048, "vocab_size": 50368,
        "layer_norm_epsilon": 1e-5, "logit_scale": None, "no_bias": True, "norm_type": "low_precision_layernorm",
        "initializer_range": 0.02, "tie_word_embeddings": True, "attn_config": None,
    }
    attention = {  # the same for what stands in attn_config
        "attn_type": "multihead_attention", "attn_pdrop": 0, "softmax_scale": None, "prefix_lm": False, "alibi": True,
        "alibi_bias_max": 8,
    }

    def config(self, settings: Settings) -> ModelConfig:
        width, n_heads, limit = (settings.whole(name) for name in ("d_model", "n_heads", "max_seq_len"))
        settings.only("expansion_ratio", 4)
        settings.only("no_bias", True)
        settings.only("norm_type", "low_precision_layernorm", "layernorm")
        rate = self.read_attention(settings, width / n_heads)
        return ModelConfig(
            vocab_size=settings.whole("vocab_size"), context_length=trained_length(settings, limit),
            max_positions=limit, n_layers=settings.whole("n_layers"), n_heads=n_heads, width=width,
            norm=NormConfig(kind="layer", eps=settings.number("layer_norm_epsilon")),
            mlp=MLPConfig(activation="gelu", gated=False, ratio=4.0),
            position=ALiBiConfig(), dropout=DropoutConfig(attention=rate, residual=rate),
            tie_weights=settings.flag("tie_word_embeddings"), init_std=settings.number("initializer_range"),
        )

    def read_attention(self, settings: Settings, head_dim: float) -> float:
        """Notes what `attn_config` has and we have not; returns its dropout rate."""
        stated = settings.get("attn_config")
        if not isinstance(stated, dict | None):
            raise RunError(f"config.json: attn_config must be a JSON object, not {short(stated)}")
        attention = Settings(stated or {}, self.attention)
        attention.only("attn_type", "multihead_attention")
        attention.only("alibi", True)
        attention.only("alibi_bias_max", 8)  # the paper's slopes; transformers has no others
        attention.only("prefix_lm", False)
        attention.only("clip_qkv", None)
        attention.only("qk_ln", None, False)
        attention.only("softmax_scale", None, 1 / math.sqrt(head_dim))
        settings.problems += [f"attn_config.{problem}" for problem in attention.problems]
        return attention.number("attn_pdrop")

    def settings(self, config: ModelConfig) -> dict[str, object]:
        return {
            "vocab_size": config.vocab_size, "d_model": config.width, "n_layers": config.n_layers,
            "n_heads": config.n_heads, "expansion_ratio": 4, "max_seq_len": config.position_limit,
            "context_length": config.context_length, "layer_norm_epsilon": config.norm.eps,
            "initializer_range": config.init_std, "tie_word_embeddings": config.tie_weights, "no_bias": True,
            "attn_config": {"alibi": True, "alibi_bias_max": 8},
        }

    def slots(self, settings: Settings) -> Iterator[Slot]:
        width = settings.whole("d_model")
        yield Slot(self.embedding, "embedding.weight", (settings.whole("vocab_size"), width))
        yield Slot("transformer.norm_f.weight", "norm.weight", (width,))
        for i in range(settings.whole("n_layers")):
            theirs, ours = f"transformer.blocks.{i}", f"blocks.{i}"
            yield Slot(f"{theirs}.norm_1.weight", f"{ours}.attention_norm.weight", (width,))
            yield Slot(f"{theirs}.attn.Wqkv.weight", f"{ours}.attention.qkv.weight", (3 * width, width))
            yield Slot(f"{theirs}.attn.out_proj.weight", f"{ours}.attention.out.weight", (width, width))
            yield Slot(f"{theirs}.norm_2.weight", f"{ours}.mlp_norm.weight", (width,))
            yield Slot(f"{theirs}.ffn.up_proj.weight", f"{ours}.mlp.up.weight", (4 * width, width))
            yield Slot(f"{theirs}.ffn.down_proj.weight", f"{ours}.mlp.down.weight", (width, 4 * width))

