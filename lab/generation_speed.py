"""How fast a run generates: with and without the cache, over length, batch and type of weights, beside the bound.

A step must read every weight once, so no step can be faster than the bytes of the weights ÷ the memory's bandwidth,
which is measured. Models that fit into the processor's own cache may beat this bound.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd
import torch

from config import SAMPLE_PROMPT, QuantisedConfig
from lab.display.palette import BLUE, VERMILLION
from lab.display.style import Picture, axes
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import speculate
from lab.generation_rivals import open_rival, why_no_rival
from lab.runs.drafting import load_draft
from lab.runs.run import Run
from modules.multi_token import MultiTokenBlock
from modules.quantised import kernels_used, quantise
from modules.transformer import Transformer
from settings.errors import ConfigError

TOKENS, BATCHES = 128, (1, 8, 64)  # by default
LONGEST = 4.0  # seconds: a generation that takes longer is stopped, and its row says how far it came
ROUNDS = 3  # of both ways in turn; of each step the shortest time counts
GREEDY = STRATEGIES["greedy"]


@dataclass(frozen=True, kw_only=True)
class GenerationSpeed:
    """A table of speeds, and the cost of each token with and without the cache.

    frame: a row for each way: batch, tokens made for each sequence, milliseconds per step, tokens per second over the
    batch, the bound in the same unit, the share of it that was reached, and a remark. steps: milliseconds of every step
    at batch 1 by length, a column for each of "cache" and "no cache". bandwidth: bytes per second.
    """

    frame: pd.DataFrame
    steps: pd.DataFrame
    bandwidth: float
    device: str
    left_out: str = ""  # what was not measured, and why

    @property
    def title(self) -> str:
        speed = f"the memory gives {self.bandwidth / 1e9:.1f} GB/s"
        return f"{self.device}; {speed}; greedy decoding, medians over steps{self.left_out}"

    def shown(self) -> pd.DataFrame:
        """The frame with numbers as a reader wants them."""
        shown = self.frame.copy()
        forms = {"ms per step": "{:.2f}", "tokens/s": "{:,.0f}", "bound": "{:,.0f}", "reached": "{:.0%}"}
        for column, form in forms.items():
            shown[column] = ["" if np.isnan(value) else form.format(value) for value in shown[column]]
        return shown

    def __repr__(self) -> str:
        return f"{self.title}\n{self.shown().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return f"<p>{self.title}</p>{self.shown().to_html(index=False, border=0)}"

    def picture(self) -> Picture:
        """Milliseconds per token against length, with and without the cache."""
        with axes(3.2, "What the next token costs") as plot:
            for (name, values), colour in zip(self.steps.items(), (BLUE, VERMILLION)):
                smooth = values.rolling(9, center=True, min_periods=1).median()
                plot.plot(smooth.index, smooth, color=colour, linewidth=2, label=name)
            plot.set(xlabel="tokens so far", ylabel="ms per token", ylim=(0, None))
            plot.legend()
            last = self.steps.ffill().iloc[-1]
            return Picture(plot.figure, "Milliseconds per token against length; at the end " + ", ".join(
                f"{name}: {value:.2f} ms" for name, value in last.items()
            ))


def generation_speed(
    run: Run, *, tokens: int | None = None, batches: Sequence[int] = BATCHES, compiled: bool = False,
    draft: Run | None = None,
) -> GenerationSpeed:
    """Measures how fast a run's model continues the sample prompt, in every way that it has.

    tokens: made for each sequence (None: 128, or as many as the model has positions for). compiled: measures compiled
    steps too, which takes up to a minute to start. draft: a smaller run whose drafts are measured. Hugging Face is
    measured where transformers is installed and has the architecture. Raises ConfigError for tokens or batches out of
    range, RunError for a draft with another tokenizer.
    """
    model, prompt = run.load_model(), run.tokenizer.encode(SAMPLE_PROMPT)
    room = model.config.position_limit - len(prompt)
    tokens = min(TOKENS, room) if tokens is None else tokens
    if not 2 <= tokens <= room:
        raise ConfigError(f"tokens must lie between 2 and the {room} positions behind the prompt, not {tokens}")
    if not batches or any(batch < 1 for batch in batches):
        raise ConfigError(f"batches must be sizes of 1 or more, as in (1, 8, 64), not {tuple(batches)}")
    drafter = load_draft(run, draft) if draft else None
    bandwidth = memory_bandwidth(model.embedding.weight.device)
    rounds = [[step_seconds(model, [prompt], tokens, cache=cache) for cache in (True, False)] for _ in range(ROUNDS)]
    cached, uncached = (fastest(times) for times in zip(*rounds))
    rows = [*lengths_rows(model, {"cache": cached, "no cache": uncached})]
    rows += [*batches_rows(model, prompt, tokens, batches, compiled)]
    rows += [*drafts_rows(model, prompt, tokens, drafter)]
    missing = why_no_rival(run)
    if not missing:
        rows += [*rival_rows(run, model, prompt, tokens, batches)]
    frame = pd.DataFrame(rows)
    frame["bound"] = [row["batch"] * bandwidth / row["bytes"] for row in rows]
    frame["reached"] = frame["tokens/s"] / frame["bound"]
    steps = pd.DataFrame({"cache": pd.Series(1e3 * cached), "no cache": pd.Series(1e3 * uncached)})
    steps.index += len(prompt)
    columns = ["way", "batch", "tokens", "ms per step", "tokens/s", "bound", "reached", "remark"]
    return GenerationSpeed(
        frame=frame[columns], steps=steps, bandwidth=bandwidth, device=device_name(model),
        left_out=f"; Hugging Face was not measured: {missing}" if missing else "",
    )


def lengths_rows(model: Transformer, seconds: dict[str, np.ndarray]) -> Iterator[dict]:
    """A row for each way and each of a quarter, half and all of the tokens: the steps around it."""
    for way, times in seconds.items():
        for share in (0.25, 0.5, 1.0):
            end = max(2, round(share * len(times)))
            last = times[end - max(1, end // 4) : end]
            remark = "its last quarter" if len(last) > 1 else "its last step"
            yield row(way, model, 1, end, float(np.median(last)), remark)


def batches_rows(
    model: Transformer, prompt: list[int], tokens: int, batches: Sequence[int], compiled: bool
) -> Iterator[dict]:
    """A row for each batch and each form of the weights."""
    forms = {"": model, ", bf16 weights": copy.deepcopy(model).to(torch.bfloat16)}
    forms |= {f", {name}": variant for name, variant in quantised_forms(model).items()}
    for batch in batches:
        for decode in ("eager", "compiled") if compiled else ("eager",):
            for form, variant in forms.items():
                times = step_seconds(variant, [prompt] * batch, tokens, decode=decode)
                remark = "; ".join(kernels_used(variant, variant.embedding.weight.dtype)) if decode == "eager" else ""
                seconds = median(times[2:] if len(times) > 3 else times)
                yield row(decode + form, variant, batch, len(times), seconds, remark)


def quantised_forms(model: Transformer) -> dict[str, Transformer]:
    """Copies of the model with weights of 8 and 4 bits. None of a model that is quantised, or has an adapter."""
    if model.config.quantised or model.config.lora:
        return {}
    made = {}
    for bits in (8, 4):
        made[f"int{bits} weights"] = variant = copy.deepcopy(model)
        quantise(variant, QuantisedConfig(bits=bits))
    return made | {"int8 weights in bf16": copy.deepcopy(made["int8 weights"]).to(torch.bfloat16)}


def drafts_rows(model: Transformer, prompt: list[int], tokens: int, drafter: Transformer | None) -> Iterator[dict]:
    """A row for drafts by the model's further heads, where it has them, and one for those of a smaller model."""
    ways = {"its own heads draft": {}} if any(
        isinstance(block, MultiTokenBlock) and block.offset > 1 for block in model.blocks
    ) else {}
    ways |= {"a smaller run drafts": {"draft": drafter}} if drafter else {}
    for way, how in ways.items():
        speculate(model, [prompt], max_tokens=min(4, tokens), sampling=GREEDY, **how)  # warms up
        start = time.perf_counter()
        found = speculate(model, [prompt], max_tokens=tokens, sampling=GREEDY, **how)
        seconds = (time.perf_counter() - start) / len(found.tokens[0])
        yield row(way, model, 1, tokens, seconds, str(found))


def rival_rows(
    run: Run, model: Transformer, prompt: list[int], tokens: int, batches: Sequence[int]
) -> Iterator[dict]:
    """A row for each batch: Hugging Face's `generate` on the same weights, its mean over all tokens."""
    seconds = open_rival(run)
    seconds([prompt], 2)  # warms up
    for batch in batches:
        yield row("Hugging Face generate", model, batch, tokens, seconds([prompt] * batch, tokens) / tokens)


def row(way: str, model: Transformer, batch: int, tokens: int, seconds: float, remark: str = "") -> dict:
    """One line of the table. seconds: of a step, which makes one token of each sequence."""
    return {
        "way": way, "batch": batch, "tokens": tokens, "ms per step": 1e3 * seconds, "tokens/s": batch / seconds,
        "bytes": bytes_read(model), "remark": remark,
    }


def step_seconds(model: Transformer, prompts: list[list[int]], tokens: int, **how) -> np.ndarray:
    """Seconds of every step of a greedy generation, which is stopped after LONGEST seconds. how: as for `generate`."""
    list(generate(model, prompts, max_tokens=2, sampling=GREEDY, **how))  # warms up
    how = {"decode": "eager"} | how
    steps, times = generate(model, prompts, max_tokens=tokens, sampling=GREEDY, **how), []
    before = start = time.perf_counter()
    for _ in steps:
        now = time.perf_counter()
        times.append(now - before)
        if now - start > LONGEST and len(times) > 1:
            break
        before = now
    return np.array(times)


def bytes_read(model: Transformer) -> int:
    """The bytes of the tensors that each step reads whole: all but further heads and an embedding that is not tied."""
    blocks = [tensor for block in model.next_token_blocks for tensor in (*block.parameters(), *block.buffers())]
    parts = [*blocks, *model.norm.parameters(), *model.head.parameters(), *model.head.buffers()]
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in parts}.values())


def fastest(rounds: Sequence[np.ndarray]) -> np.ndarray:
    """Of each step the shortest time, as far as all rounds came."""
    return np.min([times[: min(map(len, rounds))] for times in rounds], axis=0)


def memory_bandwidth(device: torch.device, megabytes: int = 256) -> float:
    """Bytes per second at which a large tensor is read: the median of five sums over it."""
    values, seconds = torch.ones(megabytes * 250_000, device=device), []
    for _ in range(6):
        start = time.perf_counter()
        values.sum().item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return values.nbytes / median(seconds[1:])


def device_name(model: Transformer) -> str:
    device = model.embedding.weight.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"
