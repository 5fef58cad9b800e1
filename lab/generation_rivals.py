"""Hugging Face's `generate` on the weights of a run, as a rival in the table of speeds."""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lab.exchange.counterpart import find_counterpart
from lab.exchange.export import export_hf
from lab.runs.run import Run
from settings.errors import ConfigError


def why_no_rival(run: Run) -> str:
    """Why Hugging Face can't be measured, in words; "" if it can."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed"
    try:
        find_counterpart(run.model_config)
    except ConfigError:
        return "transformers has no counterpart of this architecture"
    return ""


def open_rival(run: Run) -> Callable[[Sequence[Sequence[int]], int], float]:
    """A function from prompts of one length and a number of tokens to the seconds that a greedy `generate` takes."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        theirs = AutoModelForCausalLM.from_pretrained(export_hf(run, Path(folder) / "run", dtype="fp32")).eval()

    def seconds(prompts: Sequence[Sequence[int]], tokens: int) -> float:
        ids = torch.tensor(prompts)
        start = time.perf_counter()
        with torch.inference_mode():
            theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
                do_sample=False, pad_token_id=0, eos_token_id=None,
            )
        return time.perf_counter() - start

    return seconds
