"""The models of transformers with the sizes of ours, and their mean loss."""

from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig


def build_llama(config: ModelConfig) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.mlp.hidden(config.width),
        num_hidden_layers=config.n_layers, num_attention_heads=config.n_heads,
        max_position_embeddings=config.max_positions or config.context_length, rms_norm_eps=config.norm.eps,
        tie_word_embeddings=True, attn_implementation="sdpa", use_cache=False,
    ))


def build_gpt2(config: ModelConfig) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.context_length, n_embd=config.width, n_layer=config.n_layers,
        n_head=config.n_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=0, eos_token_id=0, attn_implementation="sdpa",
    ))


def mean_loss(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """As transformers computes it from float32 logits, but for targets (B, T) that were shifted before."""
    return F.cross_entropy(model(tokens).logits.float().flatten(0, 1), targets.flatten())
