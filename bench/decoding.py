"""Greedy decoding with the cache, batch 1, 16 -> 512 tokens: ours and Hugging Face's Llama, same weights, fp32."""

from statistics import median

import torch

from bench.timing import alternate, ratios, table
from config import ModelConfig
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from modules.transformer import Transformer

START, END = 16, 512
CONFIG = ModelConfig(vocab_size=2048, context_length=256, max_positions=1024, n_layers=6, n_heads=8, width=256)


def same_weights(model: Transformer):
    """A Hugging Face Llama with our weights in it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size, hidden_size=config.width, num_hidden_layers=config.n_layers,
            intermediate_size=config.mlp.hidden(config.width), num_attention_heads=config.n_heads,
            max_position_embeddings=config.max_positions, tie_word_embeddings=True, rms_norm_eps=config.norm.eps,
        )
    )
    state = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.mlp.gate_up.weight.chunk(2)
        state |= {
            f"model.layers.{i}.{name}.weight": weight
            for name, weight in {
                "self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                "self_attn.o_proj": block.attention.out.weight, "mlp.gate_proj": gate, "mlp.up_proj": up,
                "mlp.down_proj": block.mlp.down.weight, "input_layernorm": block.attention_norm.weight,
                "post_attention_layernorm": block.mlp_norm.weight,
            }.items()
        }
    theirs.load_state_dict(state | {"lm_head.weight": model.embedding.weight})
    return theirs.eval()


def main(rounds: int = 5) -> None:
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    theirs = same_weights(model)
    prompt = torch.randint(2048, (1, START))

    def ours(cache: bool, end: int = END):
        steps = generate(model, prompt.tolist(), max_tokens=end - START, sampling=STRATEGIES["greedy"], cache=cache)
        return [step.ids[0] for step in steps]

    def hugging_face():
        with torch.inference_mode():
            out = theirs.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=END - START, min_new_tokens=END - START,
                do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None,
            )
        return out[0, START:].tolist()

    assert ours(cache=True) == hugging_face(), "the same weights must give the same tokens"
    seconds = alternate({"Hugging Face generate": hugging_face, "Glassbox": lambda: ours(True)}, rounds, warmup=1)
    speed = ratios(seconds, "Hugging Face generate")
    rows = [[name, f"{(END - START) / median(times):,.0f}", f"{speed[name]:.2f}"] for name, times in seconds.items()]
    print(table("Greedy decoding, batch 1, 16 → 512 tokens, fp32", ["", "tokens/s", "× HF"], rows))

    lengths = (64, 128, 256, 512)
    contestants = {f"{end}, {name}": (lambda c=cache, e=end: ours(c, e)) for end in lengths
                   for name, cache in (("cache", True), ("no cache", False))}
    seconds = alternate(contestants, 3, warmup=1)
    rows = []
    for end in lengths:
        per_token = {name: 1e3 * median(seconds[f"{end}, {name}"]) / (end - START) for name in ("cache", "no cache")}
        rows.append([f"{end}", *(f"{value:.2f}" for value in per_token.values()),
                     f"{per_token['no cache'] / per_token['cache']:.1f}"])
    print(table("Cost per token by final length", ["tokens", "cache, ms", "no cache, ms", "gain"], rows))
