"""What looking ahead costs: a training step's time and memory, and what drafting brings in decoding.

6 layers, width 256, 8 heads, 16 × 256 tokens of vocabulary 2,048; forward, backward, clipping and AdamW, all models of
equal parameters. Memory is that of a fresh process each. Decoding is that of the shipped run `multi-token-tiny-tales`.
"""

import sys
from statistics import median

from bench.blocks import print_steps
from bench.memory import in_a_fresh_process, peak_of_steps
from bench.timing import alternate, ratios, table
from bench.training import CONFIG, our_state, our_stepper
from config import SAMPLE_PROMPT, FutureBlockConfig, ModelConfig, MultiTokenBlockConfig, Preset, TrainConfig
from lab.comparison.sweep import matched
from lab.costs.estimates import estimate
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import speculate
from lab.runs.run import Run

TRUNK, TOKENS = 6, 200


def contestants() -> dict[str, ModelConfig]:
    parameters = estimate(CONFIG).parameters
    blocks = {f"future-sighted, {n} levels of bags": FutureBlockConfig(levels=n) for n in (1, 2, 3)}
    blocks["future-sighted, 3 levels of vectors"] = FutureBlockConfig(predicts="vector_cosine")
    made = {
        name: matched(Preset(CONFIG.replace(block=block), TrainConfig()), parameters).model
        for name, block in blocks.items()
    }
    return {"plain": CONFIG} | made | {"multi-token, 4 heads": CONFIG.replace(block=MultiTokenBlockConfig())}


def with_heads(heads: int) -> ModelConfig:
    """The same trunk with 1 to 8 heads."""
    return CONFIG.replace(n_layers=TRUNK + heads, block=MultiTokenBlockConfig(heads=heads))


def memory() -> None:
    peaks = {heads: median(in_a_fresh_process("bench.future", str(heads)) for _ in range(3)) for heads in (1, 2, 4, 8)}
    rows = [[str(heads), f"{peak:.0f}", f"{peak / peaks[1]:.2f} ×"] for heads, peak in peaks.items()]
    print(table(f"Heads on a trunk of {TRUNK} layers", ["heads", "peak memory, MB", "of one head's"], rows))


def decoding(rounds: int) -> None:
    run = Run.open("multi-token-tiny-tales")
    model, prompt = run.load_model(), run.tokenizer.encode(SAMPLE_PROMPT)
    rows = []
    for name in ("greedy", "balanced"):
        settings = dict(max_tokens=TOKENS, sampling=STRATEGIES[name])
        ways = {
            "plain": lambda settings=settings: list(generate(model, [prompt], **settings)),
            **{
                f"{n} drafts a pass": lambda n=n, settings=settings: speculate(model, [prompt], drafts=n, **settings)
                for n in (1, 2, 3)
            },
        }
        faster = ratios(alternate(ways, rounds), "plain")
        for way, call in ways.items():
            found = "" if way == "plain" else str(call())
            rows.append([name, way, f"{faster[way]:.2f} ×", found])
    print(table(f"{TOKENS} tokens of multi-token-tiny-tales", ["sampling", "decoding", "speed", "drafts"], rows))


def main(rounds: int = 9) -> None:
    print_steps("Looking ahead at equal parameters", "model", contestants(), rounds)
    memory()
    decoding(rounds)


if __name__ == "__main__":
    print(peak_of_steps(lambda: our_stepper(our_state(with_heads(int(sys.argv[1])), "bf16"))))
