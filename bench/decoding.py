"""Greedy decoding with the cache, 16 -> 256 tokens, batch 1 and 32: ours and Hugging Face's Llama, same weights, fp32.

What a token costs by length, with and without the cache, is shown by `python tools.py generation-speed RUN`.
"""

import json
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from bench.rivals.hugging_face import build_llama
from bench.timing import in_turn, ratios, table
from config import ModelConfig
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from modules.transformer import Transformer

CONTESTANTS = ("Hugging Face", "eager", "compiled")
CONFIG = ModelConfig(vocab_size=2048, context_length=256, max_positions=1024, n_layers=6, n_heads=8, width=256)


class Decoding(NamedTuple):
    """What is generated: from prompts of `start` tokens on, until they have `end`."""

    config: ModelConfig
    batch: int
    start: int = 16
    end: int = 256
    device: str = "cpu"

    @property
    def tokens(self) -> int:
        return self.batch * (self.end - self.start)


def same_weights(model: Transformer):
    """A Hugging Face Llama with our weights in it."""
    theirs = build_llama(model.config)
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


def contestant(way: str, case: Decoding) -> Callable[[], list[list[int]]]:
    """A function that continues the prompts, and gives each one's tokens. way: "Hugging Face", or of `generate`."""
    torch.manual_seed(0)
    model, new = Transformer(case.config).eval(), case.end - case.start
    prompt = torch.randint(case.config.vocab_size, (case.batch, case.start))
    if way != "Hugging Face":
        settings = dict(max_tokens=new, sampling=STRATEGIES["greedy"], decode=way)
        model = model.to(case.device)

        def ours() -> list[list[int]]:
            steps = [step.ids for step in generate(model, prompt.tolist(), **settings)]
            return [list(row) for row in zip(*steps)]

        return ours
    theirs, prompt = same_weights(model).to(case.device), prompt.to(case.device)

    def hugging_face() -> list[list[int]]:
        with torch.inference_mode():
            out = theirs.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, min_new_tokens=new,
                do_sample=False, use_cache=True, pad_token_id=0, eos_token_id=None,
            )
        return out[:, case.start :].tolist()

    return hugging_face


def measure(way: str, case: Decoding, times: int = 5) -> dict:
    """In this process: the median seconds of a generation after one that warms up, and the tokens."""
    generation = contestant(way, case)
    start, tokens = time.perf_counter(), generation()
    first, seconds = time.perf_counter() - start, []
    for _ in range(times):
        start = time.perf_counter()
        generation()
        seconds.append(time.perf_counter() - start)
    return {"seconds": median(seconds), "first": first, "tokens": tokens}


def main(rounds: int = 3, config: ModelConfig = CONFIG, end: int = 256) -> None:
    for batch in (1, 32):
        case = Decoding(config, batch, end=end)
        found = in_turn(measure, {name: (name, case) for name in CONTESTANTS}, rounds)
        if batch == 1:
            made = {json.dumps(result["tokens"]) for results in found.values() for result in results}
            assert len(made) == 1, "the same weights must give the same tokens"
        speed = ratios({name: [one["seconds"] for one in results] for name, results in found.items()}, CONTESTANTS[0])
        rows = [
            [name, f"{case.tokens / median(one['seconds'] for one in results):,.0f}", f"{speed[name]:.2f}",
             f"{median(one['first'] for one in results):.1f}"]
            for name, results in found.items()
        ]
        title = f"Greedy decoding, batch {batch}, {case.start} → {case.end} tokens, fp32"
        print(table(title, ["", "tokens/s", "× HF", "first time, s"], rows), flush=True)
