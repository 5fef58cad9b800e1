"""Writes a run as a folder in Hugging Face's layout, which transformers reads without any code of ours."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from lab.data.tokenizer_folders import CONFIG, GENERATION
from lab.exchange.counterpart import find_counterpart, slots
from lab.exchange.family import Family, Settings, Slot
from lab.exchange.foreign_folder import INDEX, WEIGHTS
from lab.exchange.tensor_stream import DTYPES, Planned, write_stream
from lab.exchange.tokenizer_files import tokenizer_files
from lab.files.reading import named_path
from lab.runs.lock import build_folder
from lab.runs.run import Run
from lab.runs.weights import check_shapes, read_header
from settings.errors import ConfigError, RunError
from settings.messages import short

CHOICES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NAMED = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}  # as config.json names them
SHARD_BYTES = 5_000_000_000  # as transformers cuts


def export_hf(
    run: Run, folder: Path | str | None = None, *, dtype: Literal["fp32", "bf16"] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes the run as a folder that transformers reads, NAME-hf in the working folder by default; returns its path.

    `AutoModelForCausalLM.from_pretrained` gives the same logits, and `AutoTokenizer` the same ids. dtype: of the
    weights; None: as the run stores them. shard_bytes: the weights are cut into files of at most so many bytes; a
    larger tensor has its own. One tensor at a time is in memory.

    Raises ConfigError for a model without a counterpart, RunError for a run without weights, or a damaged one, and
    where the folder exists, TokenizerError for a tokenizer that can't be written. The folder is not there then.
    """
    path = Path(os.path.abspath(named_path(folder or f"{run.name}-hf")))
    check_choices(path, dtype, shard_bytes)
    family, values = find_counterpart(run.model_config)
    layout = slots(family, Settings(values, family.defaults))
    files = tokenizer_files(run.tokenizer)
    check_shapes(read_header(run.weights_path)[0], run.model_config, run.weights_path)
    try:
        with build_folder(path.name, path.parent) as building:
            first = write_weights(building, run, layout, CHOICES.get(dtype), shard_bytes)
            ends = {"bos_token_id": run.tokenizer.end_of_text, "eos_token_id": run.tokenizer.end_of_text}
            about = {"architectures": [family.architecture], "model_type": family.model_type, "dtype": NAMED[first]}
            files |= {
                CONFIG: as_text(about | values | ends), GENERATION: as_text(ends),
                "README.md": describe(run, family),
            }
            for name, text in files.items():
                (building / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RunError(f"can't write {path}: {error.strerror or error}; free space or choose another folder") from error
    return path


def check_choices(path: Path, dtype: object, shard_bytes: object) -> None:
    """Raises RunError where the folder exists, ConfigError for another dtype, or a size that is no number of bytes."""
    if os.path.lexists(path):
        raise RunError(f"{path} exists; delete it, or name another folder")
    if dtype is not None and dtype not in CHOICES:
        raise ConfigError(f"dtype must be one of {', '.join(CHOICES)}, or None for what is stored, not {short(dtype)}")
    if type(shard_bytes) is not int or shard_bytes < 1:
        raise ConfigError(f"shard_bytes must be a whole number of bytes, 1 or more, not {short(shard_bytes)}")


def as_text(values: Mapping) -> str:
    return json.dumps(values, indent=2) + "\n"


def write_weights(
    folder: Path, run: Run, layout: list[Slot], dtype: torch.dtype | None, shard_bytes: int
) -> torch.dtype:
    """Writes the weights in one file, or in several with their index; returns the type of the first tensor."""
    with safe_open(run.weights_path, framework="pt") as stored:
        own = {name: DTYPES.get(stored.get_slice(name).get_dtype(), torch.float32) for name in stored.keys()}  # noqa: SIM118
        found = {slot.theirs: slot for slot in layout}
        plan = {
            name: Planned(dtype or own.get(slot.ours, torch.float32), slot.stored_shape) for name, slot in found.items()
        }
        shards = list(cut(plan, shard_bytes))
        for number, shard in enumerate(shards, start=1):
            part = {name: plan[name] for name in shard}
            write_stream(
                folder / shard_name(number, len(shards)), part, lambda name: read_slot(stored, own, found[name]),
                {"format": "pt"},
            )
    if len(shards) > 1:
        places = {
            name: shard_name(number, len(shards)) for number, shard in enumerate(shards, start=1) for name in shard
        }
        total = {"total_size": sum(planned.n_bytes for planned in plan.values())}
        (folder / INDEX).write_text(as_text({"metadata": total, "weight_map": places}), encoding="utf-8")
    return next(iter(plan.values())).dtype


def read_slot(stored: safe_open, own: Collection[str], slot: Slot) -> Tensor:
    """Their tensor from the run's weights; zeros for a bias that the model does without."""
    if slot.ours not in own:
        return torch.zeros(slot.stored_shape)
    rows = stored.get_slice(slot.ours)[slot.start : slot.start + slot.shape[0]]
    return rows.T if slot.transposed else rows


def cut(plan: Mapping[str, Planned], most: int) -> Iterator[list[str]]:
    """The names in groups of at most so many bytes; a larger tensor is a group of its own."""
    group, size = [], 0
    for name, planned in plan.items():
        if group and size + planned.n_bytes > most:
            yield group
            group, size = [], 0
        group.append(name)
        size += planned.n_bytes
    yield group


def shard_name(number: int, of: int) -> str:
    return WEIGHTS if of == 1 else f"model-{number:05}-of-{of:05}.safetensors"


def describe(run: Run, family: Family) -> str:
    """The README.md of the folder."""
    architecture, parameters = family.architecture, f"{run.stored_parameters():,} parameters"
    return (
        f"# {run.name}\n\nA transformer of {parameters} in the layout of {family.name}, exported from a run of "
        f"Glassbox.\n\n```python\nfrom transformers import AutoTokenizer, {architecture}\n\n"
        f"model = {architecture}.from_pretrained(FOLDER)\ntokenizer = AutoTokenizer.from_pretrained(FOLDER)\n```\n\n"
        "The tokenizer reads special tokens in a text as plain characters (`split_special_tokens`). Dropout rates that "
        "the layout has no place for are left out: they matter in training alone.\n"
    )
