"""The same numbers as Hugging Face's models, built small from a config, with the weights copied by name."""

import pytest
import torch

from config import ARCHITECTURES, MLPConfig, ModelConfig, NormConfig, RoPEConfig
from modules.transformer import Transformer

pytestmark = pytest.mark.usefixtures("seeded")

LENGTH = 33
SIZES = dict(vocab_size=61, context_length=LENGTH, n_layers=3, width=48)


@pytest.fixture(scope="module")
def transformers():
    import transformers

    return transformers


def drawn(model: torch.nn.Module) -> torch.nn.Module:
    """Moves every parameter so far that it shows in the logits, also those of norms and biases."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def assert_parity(config: ModelConfig, theirs: torch.nn.Module, weights: dict[str, torch.Tensor]):
    """Compares logits, loss and the embedding's gradient to 1e-5; the logits also with manual attention and a cache."""
    ours = Transformer(config).eval()
    parameters = dict(ours.named_parameters())
    assert weights.keys() == parameters.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            assert weights[name].shape == parameter.shape, name
            parameter.copy_(weights[name])
    ids = torch.randint(config.vocab_size, (2, LENGTH))
    expected = theirs(ids).logits
    logits = ours(ids)
    assert expected.abs().max() > 1 and expected.std() > 0.1  # numbers that differ, and are large enough to
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    ours.blocks[0].attention.fused = False
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        cache = ours.new_cache(2, LENGTH)
        cached = torch.cat([ours(piece, cache) for piece in ids.split([20, 1, 12], dim=1)], dim=1)
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-5)
    windows = torch.randint(config.vocab_size, (2, LENGTH))
    losses = ours.losses(windows)["loss"], theirs(windows, labels=windows).loss
    tables = ours.embedding.weight, theirs.get_input_embeddings().weight
    gradients = [torch.autograd.grad(*pair)[0] for pair in zip(losses, tables)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
    assert gradients[0].abs().max() > 1e-2


def test_gpt2(transformers):
    theirs = drawn(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=61, n_positions=LENGTH, n_embd=48, n_layer=3, n_head=4, attn_implementation="eager"
            )
        )
    )
    state = theirs.transformer.state_dict()
    weights = {
        "embedding.weight": state["wte.weight"],
        "position.table.weight": state["wpe.weight"],
        "norm.weight": state["ln_f.weight"],
        "norm.bias": state["ln_f.bias"],
    }
    for i in range(3):
        for ours, its in (("attention_norm", "ln_1"), ("mlp_norm", "ln_2")):
            weights[f"blocks.{i}.{ours}.weight"] = state[f"h.{i}.{its}.weight"]
            weights[f"blocks.{i}.{ours}.bias"] = state[f"h.{i}.{its}.bias"]
        layers = {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"}
        layers |= {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
        for ours, its in layers.items():  # Conv1D keeps its matrix the other way round
            weights[f"blocks.{i}.{ours}.weight"] = state[f"h.{i}.{its}.weight"].T
            weights[f"blocks.{i}.{ours}.bias"] = state[f"h.{i}.{its}.bias"]
    assert_parity(ModelConfig(**SIZES, n_heads=4, **ARCHITECTURES["gpt2"]), theirs, weights)


@pytest.mark.parametrize(
    "n_kv_heads, tied, theta, eps",
    [
        (None, True, 10_000.0, 1e-5),
        (2, False, 10_000.0, 1e-5),
        (1, True, 500_000.0, 1e-6),
        (4, False, 100.0, 0.1),
    ],
)
def test_llama(transformers, n_kv_heads, tied, theta, eps):
    theirs = drawn(
        transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=61, hidden_size=48, intermediate_size=128, num_hidden_layers=3,
                num_attention_heads=4, num_key_value_heads=n_kv_heads or 4,
                max_position_embeddings=LENGTH, rms_norm_eps=eps, tie_word_embeddings=tied,
                rope_parameters={"rope_type": "default", "rope_theta": theta},
                attn_implementation="eager",
            )
        )
    )
    weights = llama_weights(theirs)
    if not tied:
        weights["head.weight"] = theirs.state_dict()["lm_head.weight"]
    parts = ARCHITECTURES["llama"] | dict(position=RoPEConfig(theta=theta), norm=NormConfig(eps=eps))
    config = ModelConfig(**SIZES, n_heads=4, n_kv_heads=n_kv_heads, tie_weights=tied, **parts)
    assert_parity(config, theirs, weights)


def llama_weights(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Our names for the weights of a model in Llama's form, of three layers, without its head."""
    state = theirs.state_dict()
    weights = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "norm.weight": state["model.norm.weight"],
    }
    for i in range(3):
        ours, its = f"blocks.{i}", f"model.layers.{i}"
        qkv = [state[f"{its}.self_attn.{part}_proj.weight"] for part in "qkv"]
        gate_up = [state[f"{its}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        weights[f"{ours}.attention_norm.weight"] = state[f"{its}.input_layernorm.weight"]
        weights[f"{ours}.mlp_norm.weight"] = state[f"{its}.post_attention_layernorm.weight"]
        weights[f"{ours}.attention.qkv.weight"] = torch.cat(qkv)
        weights[f"{ours}.attention.out.weight"] = state[f"{its}.self_attn.o_proj.weight"]
        weights[f"{ours}.mlp.gate_up.weight"] = torch.cat(gate_up)
        weights[f"{ours}.mlp.down.weight"] = state[f"{its}.mlp.down_proj.weight"]
    return weights


LLAMA_FORM = dict(
    vocab_size=61, hidden_size=48, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=12, max_position_embeddings=LENGTH, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, attn_implementation="eager",
)


def test_a_window_against_mistral(transformers):
    config = transformers.MistralConfig(**LLAMA_FORM, rms_norm_eps=1e-5, sliding_window=7)
    theirs = drawn(transformers.MistralForCausalLM(config))
    ours = ModelConfig(**SIZES, n_heads=4, n_kv_heads=2, window=7, **ARCHITECTURES["llama"])
    assert_parity(ours, theirs, llama_weights(theirs))


def test_norms_of_queries_and_keys_against_qwen3(transformers):
    theirs = drawn(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA_FORM, rms_norm_eps=1e-5)))
    weights, state = llama_weights(theirs), theirs.state_dict()
    for i in range(3):
        for ours, its in (("query", "q"), ("key", "k")):
            name = f"blocks.{i}.attention.qk_norm.{ours}_weight"
            weights[name] = state[f"model.layers.{i}.self_attn.{its}_norm.weight"]
    ours = ModelConfig(**SIZES, n_heads=4, n_kv_heads=2, qk_norm=True, **ARCHITECTURES["llama"])
    assert_parity(ours, theirs, weights)


@pytest.mark.parametrize("n_heads", [4, 6, 12])
def test_alibi_against_mpt(transformers, n_heads):
    theirs = drawn(
        transformers.MptForCausalLM(
            transformers.MptConfig(
                vocab_size=61, d_model=48, n_heads=n_heads, n_layers=3, max_seq_len=LENGTH, expansion_ratio=4,
                attn_config={"alibi": True}, attn_implementation="eager",
            )
        )
    )
    state = theirs.transformer.state_dict()
    weights = {"embedding.weight": state["wte.weight"], "norm.weight": state["norm_f.weight"]}
    layers = {
        "attention_norm": "norm_1", "attention.qkv": "attn.Wqkv", "attention.out": "attn.out_proj",
        "mlp_norm": "norm_2", "mlp.up": "ffn.up_proj", "mlp.down": "ffn.down_proj",
    }
    for i in range(3):
        for ours, its in layers.items():
            weights[f"blocks.{i}.{ours}.weight"] = state[f"blocks.{i}.{its}.weight"]
    parts = ARCHITECTURES["alibi"] | dict(mlp=MLPConfig(activation="gelu", gated=False))
    assert_parity(ModelConfig(**SIZES, n_heads=n_heads, **parts), theirs, weights)
