"""What looking ahead costs: a training step's time and memory, and what drafting brings in decoding.

6 layers, width 256, 8 heads, 16 × 256 tokens of vocabulary 2,048; forward, backward, clipping and the update, all
models of equal parameters. Decoding is that of the shipped run `multi-token-tiny-tales`.
"""

from collections.abc import Callable
from functools import partial
from statistics import median

from bench.blocks import SIZE, print_steps
from bench.memory import peak_of_steps
from bench.steps import Size, our_state, our_stepper
from bench.timing import in_turn, ratios, seconds_per_call, table
from config import SAMPLE_PROMPT, FutureBlockConfig, ModelConfig, MultiTokenBlockConfig, Preset, TrainConfig
from lab.comparison.sweep import matched
from lab.costs.estimates import estimate
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import speculate
from lab.runs.run import Run

TOKENS, DRAFTS = 200, (1, 2, 3)


def contestants(size: Size) -> dict[str, ModelConfig]:
    plain = size.model("llama")
    parameters = estimate(plain).parameters
    blocks = {f"future-sighted, {n} levels of bags": FutureBlockConfig(levels=n) for n in (1, 2, 3)}
    blocks["future-sighted, 3 levels of vectors"] = FutureBlockConfig(predicts="vector_cosine")
    made = {
        name: matched(Preset(plain.replace(block=block), TrainConfig()), parameters).model
        for name, block in blocks.items()
    }
    return {"plain": plain} | made | {"multi-token, 4 heads": plain.replace(block=MultiTokenBlockConfig())}


def step_with_heads(heads: int, size: Size) -> Callable[[], None]:
    """A step of the same trunk with 1 to 8 heads."""
    plain = size.model("llama")
    model = plain.replace(n_layers=plain.n_layers + heads, block=MultiTokenBlockConfig(heads=heads))
    return our_stepper(our_state(model, size.batch, precision="bf16"))


def peak_with_heads(heads: int, size: Size) -> float:
    return peak_of_steps(partial(step_with_heads, heads, size))


def memory(rounds: int, size: Size) -> None:
    found = in_turn(peak_with_heads, {str(heads): (heads, size) for heads in (1, 2, 4, 8)}, rounds)
    peaks = {heads: median(values) for heads, values in found.items()}
    rows = [[heads, f"{peak:.0f}", f"{peak / peaks['1']:.2f} ×"] for heads, peak in peaks.items()]
    print(table(f"Heads on a trunk of {size.n_layers} layers", ["heads", "peak memory, MB", "of one head's"], rows))


def decode(strategy: str, drafts: int) -> tuple[float, str]:
    """Seconds of a continuation with so many drafts a pass, plain for 0; and what became of the drafts."""
    run = Run.open("multi-token-tiny-tales")
    model, prompt = run.load_model(), run.tokenizer.encode(SAMPLE_PROMPT)
    settings = dict(max_tokens=TOKENS, sampling=STRATEGIES[strategy])
    if not drafts:
        return seconds_per_call(lambda: list(generate(model, [prompt], **settings))), ""
    found = speculate(model, [prompt], drafts=drafts, **settings)
    return seconds_per_call(lambda: speculate(model, [prompt], drafts=drafts, **settings)), str(found)


def decoding(rounds: int) -> None:
    rows = []
    for strategy in ("greedy", "balanced"):
        found = in_turn(decode, {str(drafts): (strategy, drafts) for drafts in (0, *DRAFTS)}, rounds)
        faster = ratios({drafts: [seconds for seconds, _ in results] for drafts, results in found.items()}, "0")
        for drafts, results in found.items():
            way = f"{drafts} drafts a pass" if drafts != "0" else "plain"
            rows.append([strategy, way, f"{faster[drafts]:.2f} ×", results[0][1]])
    print(table(f"{TOKENS} tokens of multi-token-tiny-tales", ["sampling", "decoding", "speed", "drafts"], rows))


def main(rounds: int = 3, size: Size = SIZE) -> None:
    print_steps("Looking ahead at equal parameters", contestants(size), size, rounds)
    memory(rounds, size)
    decoding(rounds)
