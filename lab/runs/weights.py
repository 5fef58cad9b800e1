"""Tensors in safetensors files, checked before they are used. No pickle is ever loaded."""

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from config import ModelConfig
from lab.costs.parameters import stored_shapes
from lab.files.atomic import atomic_path
from lab.files.reading import reading
from settings.errors import RunError

if TYPE_CHECKING:
    import torch

    from modules.transformer import Transformer


def weights_file(config: ModelConfig) -> str:
    """The name of the file of a run's weights: an adapter stores its own alone."""
    return "adapter.safetensors" if config.lora else "model.safetensors"


def write_tensors(path: Path, tensors: dict[str, "torch.Tensor"], facts: dict[str, object]) -> None:
    """Writes one safetensors file with `facts` in its header, by atomic rename."""
    from safetensors.torch import save_file

    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
    try:
        with atomic_path(path) as temporary:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise RunError(f"can't write {path}: {error}; nothing was changed. Free space or permissions?") from error


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes by name, and the facts of the header, without reading a tensor. Raises RunError."""
    if not os.path.exists(path):
        raise RunError(f"{path.name} is missing in {path.parent}: the run has stored no weights yet")
    with reading(path):
        try:
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                return {name: tuple(file.get_slice(name).get_shape()) for name in names}, file.metadata() or {}
        except SafetensorError as error:
            raise RunError(
                f"{path} is not a whole safetensors file ({error}); it may be cut short, or a pickle under a wrong "
                "name, which is never loaded. Restore it from a copy or train the run again"
            ) from error


def read_tensors(path: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """The tensors by name, and the facts of the header. Raises RunError."""
    from safetensors.torch import load_file

    _, facts = read_header(path)
    with reading(path):
        return load_file(path), facts


def check_layers(shapes: dict[str, tuple[int, ...]], config: ModelConfig, path: Path) -> None:
    """Raises RunError if the config claims another number of layers, or another embedding, than is stored.

    Called before a model is built, so that a damaged config can't ask for a huge one. An adapter says nothing of this;
    its base does.
    """
    if config.lora:
        return
    found = [int(match[1]) for match in map(re.compile(r"blocks\.(\d{1,6})\.").match, shapes) if match]
    stored = {"n_layers": max(found, default=-1) + 1, "embedding": shapes.get("embedding.weight")}
    claimed = {"n_layers": config.n_layers, "embedding": (config.vocab_size, config.width)}
    for what, claim in claimed.items():
        if stored[what] != claim:
            raise misfit(path, f"{what}: stored {stored[what]}, the config wants {claim}")


def check_counts(shapes: dict[str, tuple[int, ...]], config: ModelConfig, path: Path) -> int:
    """How many numbers are stored. Raises RunError where the config describes another number."""
    check_layers(shapes, config, path)
    stored, claimed = (sum(map(math.prod, found.values())) for found in (shapes, stored_shapes(config)))
    if stored != claimed:
        raise misfit(path, f"stored {stored:,} parameters, the config wants {claimed:,}")
    return stored


def misfit(path: Path, reason: str) -> RunError:
    return RunError(f"{path} does not fit its model_config.json: {reason}")


def check_shapes(shapes: dict[str, tuple[int, ...]], config: ModelConfig, path: Path) -> None:
    """Raises RunError if the stored tensors are not those of the model that the config describes."""
    check_layers(shapes, config, path)
    expected = stored_shapes(config)
    wrong = [
        f"{name}: stored {shapes.get(name, 'nothing')}, the config wants {expected.get(name, 'nothing')}"
        for name in sorted(expected.keys() | shapes.keys())
        if shapes.get(name) != expected.get(name)
    ]
    if wrong:
        raise misfit(path, "; ".join(wrong[:3]))


def read_weights(model: "Transformer", path: Path) -> dict[str, str]:
    """Copies the stored tensors into the model, one by one; returns the facts of the header. Raises RunError."""
    import torch

    shapes, facts = read_header(path)
    check_shapes(shapes, model.config, path)
    with reading(path), safe_open(path, framework="pt") as file, torch.no_grad():
        for name, tensor in model.stored_tensors().items():
            stored = file.get_tensor(name)
            numbers = stored.is_floating_point() and tensor.is_floating_point()  # of any precision
            if stored.dtype != tensor.dtype and not numbers:
                raise misfit(path, f"{name} holds {stored.dtype}, and the model has {tensor.dtype} there")
            tensor.copy_(stored)
    return facts
