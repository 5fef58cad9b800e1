"""Trains a tuned lens for a run, and stores it in the run's folder as lens.safetensors.

For each layer and stream, W and b of x + W·x + b start at 0 and minimise the KL from the model's final distribution to
that of the mapped state. The model does not change (Belrose et al. 2023, arXiv 2303.08112). The two baselines are
trained in the same way on the same tokens.
"""

import os
import re
from pathlib import Path

import torch

from lab.analysis.forward_pass import AnalysisError, readers
from lab.analysis.lenses import BASELINES, WINDOWS, Translator, TunedLens, baselines, kl, log_p, untrained_copy
from lab.compute.device import pick_device
from lab.compute.optimizer import update
from lab.data.packing import TokenData
from lab.files.reading import checksum
from lab.runs.run import Run
from lab.runs.weights import check_layers, read_header, read_tensors, write_tensors
from modules.transformer import Transformer
from settings.errors import RunError

ROWS = 256  # positions per step for each translator; most of the cost is the logits of the head


def train_lens(
    run: Run, data: TokenData | None = None, *, steps: int = 200, learning_rate: float = 1e-3, seed: int = 0
) -> TunedLens:
    """Trains a lens for the run's model on the run's data, by Adam with a rate that falls to 0, and stores it in bf16.

    data: the result of `prepare`, if you have it. The same seed gives the same lens on one machine.
    """
    if steps < 1 or learning_rate <= 0 or seed < 0:
        raise AnalysisError(f"need steps >= 1, learning_rate > 0, seed >= 0, not {steps}, {learning_rate}, {seed}")
    data = data or run.load_data()
    device, width = pick_device(run.train_config.device), run.model_config.width
    model = run.load_model(device).requires_grad_(False)
    other = untrained_copy(model, seed)
    translators = {
        key: Translator(*(torch.zeros(shape, device=device, requires_grad=True) for shape in ((width, width), width)))
        for key in keys(model)
    }
    optimizer = torch.optim.Adam([tensor for translator in translators.values() for tensor in translator], fused=True)
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        windows = torch.from_numpy(data.train.batch(seed, step, WINDOWS, model.config.context_length))
        places = torch.randint(windows[:, 1:].numel(), (ROWS,), generator=random)
        states, ends = baselines(model, other, windows[:, :-1])
        targets = {baseline: log_p(model, end.flatten(0, 1)[places]) for baseline, end in ends.items()}
        for key, translator in translators.items():
            mapped = translator(states[key].flatten(0, 1)[places])
            kl(targets[key[0]], model.head(model.norm(mapped)).log_softmax(-1)).mean().backward()
        update(optimizer, learning_rate * (1 - step / steps))
    tensors = {
        f"{name(key)}/{part}": tensor.bfloat16()  # half the size, without a measurable difference
        for key, pair in translators.items()
        for part, tensor in pair._asdict().items()
    }
    write_tensors(lens_path(run), tensors, {"seed": seed, "steps": steps, "weights": checksum(run.weights_path)})
    return load_lens(run)


def load_lens(run: Run) -> TunedLens:
    """The lens stored with the run. Raises RunError if there is none, or it is damaged or for other weights."""
    path = lens_path(run)
    if not os.path.lexists(path):
        raise RunError(f"run {run.name!r} has no lens.safetensors; make one with train_lens(run)")
    tensors, facts = read_tensors(path)
    if facts.get("weights") != checksum(run.weights_path):
        raise RunError(f"the lens of run {run.name!r} was trained for other weights; make a new one: train_lens(run)")
    check_layers(read_header(run.weights_path)[0], run.model_config, run.weights_path)  # before so much is built
    with torch.device("meta"):
        expected = keys(Transformer(run.model_config))
    sizes = {"weight": (run.model_config.width,) * 2, "bias": (run.model_config.width,)}
    shapes = {f"{name(key)}/{part}": size for key in expected for part, size in sizes.items()}
    if shapes != {key: tuple(tensor.shape) for key, tensor in tensors.items()}:
        raise RunError(f"{path} is not a lens of this model; make a new one with train_lens(run)")
    translators = {
        key: Translator(*(tensors[f"{name(key)}/{part}"].float() for part in Translator._fields)) for key in expected
    }
    if not re.fullmatch("[0-9]{1,18}", facts.get("seed", "")):
        raise RunError(f"{path} does not say its seed; make a new one with train_lens(run)")
    return TunedLens(translators=translators, seed=int(facts["seed"]))


def keys(model: Transformer) -> list[tuple[str, str, int]]:
    """All (baseline, stream, layer), except the final norm's own input, which needs no translator."""
    streams, last = list(readers(model)), len(model.next_token_blocks)
    every = [(b, s, layer) for b in BASELINES for s in streams for layer in range(last + 1)]
    return [key for key in every if key != ("model", streams[-1], last)]


def name(key: tuple[str, str, int]) -> str:
    return "/".join(map(str, key))


def lens_path(run: Run) -> Path:
    return run.folder / "lens.safetensors"
