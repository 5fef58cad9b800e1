"""Greedy decoding with the cache, 16 -> 256 tokens, batch 1 and 32: ours and Hugging Face's Llama, same weights, fp32.

Each is measured in processes of its own, in turn. What a token costs by length, with and without the cache, is shown by
`python tools.py generation-speed RUN`.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch

from bench.timing import ratios, table
from config import ModelConfig
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from modules.transformer import Transformer
from settings.paths import ROOT

START, END = 16, 256
CONTESTANTS = ("Hugging Face", "eager", "compiled")
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


def contestant(name: str, batch: int) -> Callable[[], list[list[int]]]:
    """A function that continues the prompts, and gives each one's tokens."""
    torch.manual_seed(0)
    model = Transformer(CONFIG).eval()
    prompt = torch.randint(2048, (batch, START))
    if name != "Hugging Face":
        settings = dict(max_tokens=END - START, sampling=STRATEGIES["greedy"], decode=name)

        def ours() -> list[list[int]]:
            steps = [step.ids for step in generate(model, prompt.tolist(), **settings)]
            return [list(row) for row in zip(*steps)]

        return ours
    theirs = same_weights(model)

    def hugging_face() -> list[list[int]]:
        with torch.inference_mode():
            out = theirs.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=END - START, min_new_tokens=END - START,
                do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None,
            )
        return out[:, START:].tolist()

    return hugging_face


def measure(name: str, batch: int, times: int = 5) -> dict:
    """In this process: the median seconds of a generation after one that warms up, and the tokens."""
    generation = contestant(name, batch)
    start, tokens = time.perf_counter(), generation()
    first, seconds = time.perf_counter() - start, []
    for _ in range(times):
        start = time.perf_counter()
        generation()
        seconds.append(time.perf_counter() - start)
    return {"seconds": median(seconds), "first": first, "tokens": tokens}


def measure_apart(name: str, batch: int) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.decoding", name, str(batch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(rounds: int = 3) -> None:
    for batch in (1, 32):
        found = {name: [] for name in CONTESTANTS}
        for _ in range(rounds):
            for name, results in found.items():
                results.append(measure_apart(name, batch))
        if batch == 1:
            made = {json.dumps(result["tokens"]) for results in found.values() for result in results}
            assert len(made) == 1, "the same weights must give the same tokens"
        speed = ratios({name: [one["seconds"] for one in results] for name, results in found.items()}, CONTESTANTS[0])
        rows = [
            [name, f"{batch * (END - START) / median(one['seconds'] for one in results):,.0f}", f"{speed[name]:.2f}",
             f"{median(one['first'] for one in results):.1f}"]
            for name, results in found.items()
        ]
        title = f"Greedy decoding, batch {batch}, {START} → {END} tokens, fp32, fresh processes in turn"
        print(table(title, ["", "tokens/s", "× HF", "first time, s"], rows))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
