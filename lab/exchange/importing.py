"""Makes a run of a folder in Hugging Face's layout. Nothing in the folder is executed, and no pickle is loaded."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from config import DataConfig, ModelConfig, TrainConfig
from lab.costs.parameters import parameter_shapes
from lab.data.sources import absolute_source, load_documents
from lab.data.tokenizer_folders import CONFIG, GENERATION
from lab.exchange.counterpart import HEAD, read_config, slots
from lab.exchange.family import Family, Slot
from lab.exchange.foreign_folder import Checkpoint, ForeignFolder
from lab.exchange.tensor_stream import DTYPES, Planned, write_stream
from lab.exchange.tokenizer_files import read_tokenizer
from lab.files.reading import named_path
from lab.runs.lock import build_folder
from lab.runs.names import check_name, runs_folder
from lab.runs.run import Run
from settings.errors import GlassboxError, RunError

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # as both name them


def import_hf(path: Path | str, folder: Path | None = None, name: str | None = None, *, text: str = "tales") -> Run:
    """Makes a run in trained/ (or `folder`) of a folder that transformers can read, under its own name or `name`.

    GPT-2, Llama and MPT are read, from safetensors in one file or several. The weights keep their type (fp32, bf16,
    fp16) on disk; the model computes in fp32. One tensor at a time is in memory. text: what `evaluate` and `compare`
    measure the run on, because the text that it was trained on is unknown: a built-in set, or files of one's own.

    Everything is checked before a run is made: raises RunError for settings without a counterpart, missing or further
    tensors, wrong shapes, weights that are not finite, code, pickles, links, damaged files. `folder` is unchanged then.
    """
    path, folder = named_path(path), runs_folder(folder)
    try:
        foreign = ForeignFolder(path)
        name = path.resolve().name if name is None else name
        check_name(name)
        if (folder / name).exists():
            raise RunError(f"a run named {name!r} exists; import it under another: name='...', or --name")
        values = foreign.json(CONFIG)
        family, settings, model = read_config(values)
        checkpoint = Checkpoint(foreign)
        found = match(family, slots(family, settings), checkpoint)
        tokenizer = read_tokenizer(foreign, values, name)
        check_vocabulary(model, tokenizer.vocab_size)
        train = TrainConfig(data=measured_on(text, name), steps=1).settled(model)
        files = {
            "model_config.json": model.to_json(), "train_config.json": train.to_json(),
            "tokenizer.json": tokenizer.to_json(), "README.md": describe(foreign, family, model, text),
        }
        with build_folder(name, folder) as building:
            for file, content in files.items():
                (building / file).write_text(content, encoding="utf-8", newline="\n")
            write_weights(building / "model.safetensors", model, found, checkpoint)
    except GlassboxError as error:
        raise RunError(f"{path} is refused, nothing was written: {error}") from error
    except OSError as error:
        raise RunError(f"can't import {path}: {error.strerror or error}") from error
    return Run(folder / name)


def measured_on(text: str, tokenizer: str) -> DataConfig:
    """The settings of the text that the run is measured on. Raises DataError and ConfigError where there is none."""
    config = DataConfig(source=text, tokenizer=tokenizer)
    load_documents(config)
    return config.replace(source=absolute_source(config) or text)


def check_vocabulary(model: ModelConfig, needed: int) -> None:
    """Raises RunError for a tokenizer with more ids than the model."""
    if model.vocab_size < needed:
        raise RunError(f"its tokenizer has {needed:,} ids, and the model's vocab_size is {model.vocab_size:,}")


def match(family: Family, layout: list[Slot], checkpoint: Checkpoint) -> dict[str, Slot]:
    """The slot of each tensor in the files. Raises RunError unless they are exactly those of the model.

    No tensor is read but a head that is stored beside an embedding it is tied to.
    """
    named = {full_name(family, name): name for name in checkpoint.shapes}
    if len(named) < len(checkpoint.shapes):
        raise RunError(f"a tensor is stored twice, with {family.base!r} in front of its name and without")
    stored = {full: name for full, name in named.items() if not family.buffers.fullmatch(full)}
    wanted = {slot.theirs: slot for slot in layout}
    if HEAD in stored and HEAD not in wanted:
        check_tied(checkpoint, stored.pop(HEAD), stored.get(family.embedding))
    problems = [f"{full} is missing" for full in wanted.keys() - stored.keys()]
    problems += [f"{full} is no tensor of this model" for full in stored.keys() - wanted.keys()]
    for full in wanted.keys() & stored.keys():
        shape, dtype = checkpoint.shapes[stored[full]], checkpoint.dtypes[stored[full]]
        if shape != wanted[full].stored_shape:
            problems.append(f"{full} is {shape}, and config.json wants {wanted[full].stored_shape}")
        if dtype not in DTYPES:
            problems.append(f"{full} holds {dtype}; weights of {', '.join(DTYPES)} can be read")
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise RunError(f"the weights do not fit config.json: {'; '.join(sorted(problems)[:3])}{more}")
    return {stored[full]: wanted[full] for full in wanted}


def full_name(family: Family, name: str) -> str:
    """The name as the whole model has it; files of the bare model leave out what it begins with."""
    return name if name.startswith((family.base, HEAD)) else family.base + name


def check_tied(checkpoint: Checkpoint, head: str, embedding: str | None) -> None:
    """Raises RunError unless a head that is stored, though config.json says that it is tied, is the embedding."""
    same = embedding is not None and checkpoint.shapes[head] == checkpoint.shapes[embedding]
    if not same or not torch.equal(checkpoint.read(head), checkpoint.read(embedding)):
        raise RunError(f"config.json says tie_word_embeddings, and {HEAD} is not the embedding; set it to false")


def write_weights(path: Path, model: ModelConfig, found: Mapping[str, Slot], checkpoint: Checkpoint) -> None:
    """Writes our parameters, each put together from its tensors. What no tensor fills is zero."""
    parts: dict[str, list[str]] = {}
    for name, slot in found.items():
        parts.setdefault(slot.ours, []).append(name)
    plan = {name: Planned(common_type(checkpoint, parts.get(name, ())), shape)
            for name, shape in parameter_shapes(model).items()}

    def make(name: str) -> Tensor:
        whole = torch.zeros(plan[name].shape, dtype=plan[name].dtype)
        for theirs in parts.get(name, ()):
            put(whole, found[theirs], checkpoint.read(theirs))
        return whole

    write_stream(path, plan, make, {"step": "0", "trained_by": "others; read from Hugging Face's layout"})


def common_type(checkpoint: Checkpoint, names: list[str]) -> torch.dtype:
    """The type of the tensors; fp32 where they differ, or there are none."""
    dtypes = {DTYPES[checkpoint.dtypes[name]] for name in names}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def put(whole: Tensor, slot: Slot, tensor: Tensor) -> None:
    """Copies a tensor of theirs to its place in a parameter of ours."""
    tensor = tensor.T if slot.transposed else tensor
    place = whole[slot.start : slot.start + slot.shape[0]]
    (place[:, : slot.shape[1]] if len(slot.shape) == 2 else place).copy_(tensor)


def describe(folder: ForeignFolder, family: Family, model: ModelConfig, text: str) -> str:
    """The run's card: where it came from, and what is not known of it."""
    rows = {
        "status": "trained elsewhere", "from": f"the folder {folder.path.resolve().name} in Hugging Face's layout",
        "family": f"{family.name} ({family.architecture})",
        "parameters": f"{sum(math.prod(shape) for shape in parameter_shapes(model).values()):,}",
        "trained on": f"unknown; `evaluate` and `compare` measure it on {text}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"# A transformer like {family.name}\n\n|   |   |\n| --- | --- |\n{table}\n{sampling_advice(folder)}"


def sampling_advice(folder: ForeignFolder) -> str:
    """The flags for the sampling settings that the folder asks for, where it asks for any."""
    asked = folder.json(GENERATION, optional=True)
    values = {name: asked[name] for name in SAMPLING if isinstance(asked.get(name), int | float)}
    flags = " ".join(f"--sampling.{name.replace('_', '-')} {value}" for name, value in values.items())
    return f"\nIts own sampling settings: `python tools.py generate NAME {flags}`\n" if flags else ""
