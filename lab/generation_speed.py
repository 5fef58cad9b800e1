"""How fast a run generates: with and without the cache, over length, batch and type of weights, beside the bound.

A step must read every weight once, so no step can be faster than the bytes of the weights ÷ the memory's bandwidth,
which is measured. Models that fit into the processor's own cache may beat this bound.
"""

import copy
import importlib.util
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

from config import SAMPLE_PROMPT
from lab.display.palette import BLUE, VERMILLION
from lab.display.style import Picture, axes
from lab.exchange.export import export_hf
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import speculate
from lab.runs.drafting import load_draft
from lab.runs.run import Run
from modules.multi_token import MultiTokenBlock
from modules.quantised import kernels_used, quantise
from modules.transformer import Transformer
from settings.adapting import QuantisedConfig
from settings.errors import ConfigError

TOKENS, BATCHES = 128, (1, 8, 64)  # by default
LONGEST = 4.0  # seconds: a generation that takes longer is stopped, and its row says how far it came
GREEDY = STRATEGIES["greedy"]


@dataclass(frozen=True, kw_only=True)
class GenerationSpeed:
    """A table of speeds, and the cost of each token with and without the cache.

    frame: a row for each way: batch, tokens made for each sequence, milliseconds per step, tokens per second over the
    batch, the bound in the same unit, the share of it that was reached, and a remark. steps: milliseconds of every step
    at batch 1 by length, a column for each of "cache" and "no cache". bandwidth: bytes per second. notes: which ways
    were not measured, and why.
    """

    frame: pd.DataFrame
    steps: pd.DataFrame
    bandwidth: float
    device: str
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.device}; the memory gives {self.bandwidth / 1e9:.1f} GB/s; greedy decoding, medians over steps"

    def shown(self) -> pd.DataFrame:
        """The frame with numbers as a reader wants them."""
        shown = self.frame.copy()
        forms = {"ms per step": "{:.2f}", "tokens/s": "{:,.0f}", "bound": "{:,.0f}", "reached": "{:.0%}"}
        for column, form in forms.items():
            shown[column] = ["" if np.isnan(value) else form.format(value) for value in shown[column]]
        return shown

    def __repr__(self) -> str:
        return "\n".join((self.title, self.shown().to_string(index=False), *self.notes))

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return f"<p>{escape(self.title)}</p>{self.shown().to_html(index=False, border=0)}{notes}"

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
    run: Run, *, tokens: int | None = None, batches: Sequence[int] = BATCHES, draft: Run | None = None,
    compiled: bool = False,
) -> GenerationSpeed:
    """Measures how fast a run's model continues the sample prompt, in every way that it has.

    tokens: made for each sequence (None: 128, or as many as the model has positions for). draft: a run that proposes
    tokens (speculative decoding). compiled: measures compiled steps too, which takes up to a minute to start. Hugging
    Face's model with the same weights is measured where transformers is installed and has one. Raises ConfigError for
    tokens or batches out of range, RunError for a draft with another tokenizer.
    """
    model, prompt = run.load_model(), run.tokenizer.encode(SAMPLE_PROMPT)
    room = model.config.position_limit - len(prompt)
    tokens = min(TOKENS, room) if tokens is None else tokens
    if not 2 <= tokens <= room:
        raise ConfigError(f"tokens must lie between 2 and the {room} positions behind the prompt, not {tokens}")
    if not batches or any(batch < 1 for batch in batches):
        raise ConfigError(f"batches must be sizes of 1 or more, as in (1, 8, 64), not {tuple(batches)}")
    drafter = None if draft is None else load_draft(run, draft)
    bandwidth, notes = memory_bandwidth(model.embedding.weight.device), []
    cached, uncached = (step_seconds(model, [prompt], tokens, cache=cache) for cache in (True, False))
    rows = [*lengths_rows(model, {"cache": cached, "no cache": uncached})]
    for batch in batches:
        rows += batch_rows(model, [prompt] * batch, tokens, compiled)
    rows += drafts_rows(model, prompt, tokens, drafter)
    rows += hugging_face_rows(run, model, prompt, tokens, batches, notes)
    frame = pd.DataFrame(rows)
    frame["bound"] = frame["batch"] * bandwidth / frame["bytes"]
    frame["reached"] = frame["tokens/s"] / frame["bound"]
    steps = pd.DataFrame({"cache": pd.Series(1e3 * cached), "no cache": pd.Series(1e3 * uncached)})
    steps.index += len(prompt)
    columns = ["way", "batch", "tokens", "ms per step", "tokens/s", "bound", "reached", "remark"]
    return GenerationSpeed(
        frame=frame[columns], steps=steps, bandwidth=bandwidth, device=device_name(model), notes=tuple(notes)
    )


def lengths_rows(model: Transformer, seconds: dict[str, np.ndarray]) -> Iterator[dict]:
    """A row for each way and each of a quarter, half and all of the tokens: the steps around it."""
    for way, times in seconds.items():
        for share in (0.25, 0.5, 1.0):
            end = max(2, round(share * len(times)))
            last = times[end - max(1, end // 4) : end]
            remark = "its last quarter" if len(last) > 1 else "its last step"
            yield row(way, model, 1, end, float(np.median(last)), remark)


def batch_rows(model: Transformer, prompts: list[list[int]], tokens: int, compiled: bool) -> Iterator[dict]:
    """A row for each form of the weights, for eager steps and, if asked, for compiled ones."""
    for form, variant in weight_forms(model):
        for decode in ("eager", "compiled") if compiled else ("eager",):
            times = step_seconds(variant, prompts, tokens, decode=decode)
            kernels = "; ".join(kernels_used(variant, variant.embedding.weight.dtype))
            seconds = float(np.median(times[min(2, len(times) - 1) :]))
            yield row(f"{decode}, {form}", variant, len(prompts), len(times), seconds, kernels)


def weight_forms(model: Transformer) -> Iterator[tuple[str, Transformer]]:
    """The model as it is, in bfloat16, and quantised where that is possible."""
    yield "weights as stored", model
    yield "bf16", copy.deepcopy(model).to(torch.bfloat16)
    if model.config.quantised is None and model.config.lora is None:
        for bits in (8, 4):
            lower = copy.deepcopy(model)
            quantise(lower, QuantisedConfig(bits=bits))
            yield f"int{bits}", lower


def drafts_rows(model: Transformer, prompt: list[int], tokens: int, draft: Transformer | None) -> Iterator[dict]:
    """A row for drafts by another model, if one is given, and by the model's further heads, if it has them."""
    ways = {"a run drafts": draft} if draft is not None else {}
    if any(isinstance(block, MultiTokenBlock) and block.offset > 1 for block in model.blocks):
        ways["its own heads draft"] = None
    for way, other in ways.items():
        how = dict(draft=other, sampling=GREEDY)
        speculate(model, [prompt], max_tokens=min(4, tokens), **how)  # warms up
        start = time.perf_counter()
        found = speculate(model, [prompt], max_tokens=tokens, **how)
        seconds = (time.perf_counter() - start) / len(found.tokens[0])
        remark = f"{found.tokens_per_pass:.2f} tokens per pass, {found.acceptance_rate:.0%} of the drafts kept"
        yield row(way, model, 1, tokens, seconds, remark)


def hugging_face_rows(
    run: Run, model: Transformer, prompt: list[int], tokens: int, batches: Sequence[int], notes: list[str]
) -> Iterator[dict]:
    """A row for each batch: Hugging Face's `generate` with the same weights. notes: gets why there are none."""
    if importlib.util.find_spec("transformers") is None:
        notes.append("Hugging Face was not measured: transformers is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = export_hf(run, Path(folder) / "model")
        except ConfigError as error:
            notes.append(f"Hugging Face was not measured: {error}")
            return
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        theirs = AutoModelForCausalLM.from_pretrained(path).to(model.embedding.weight).eval()
    for batch in batches:
        ids = torch.tensor([prompt] * batch, device=model.embedding.weight.device)
        seconds = []
        for count in (2, tokens):  # the first warms up
            start = time.perf_counter()
            with torch.inference_mode():
                theirs.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                    do_sample=False, pad_token_id=0, eos_token_id=None,
                )
            seconds.append((time.perf_counter() - start) / count)
        yield row("Hugging Face", model, batch, tokens, seconds[-1], "the mean, its start included")


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
