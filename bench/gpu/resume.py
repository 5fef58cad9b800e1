"""Whether a training that was stopped and resumed equals one that was not, bit for bit, for each architecture."""

import tempfile
from pathlib import Path

import torch

from bench.gpu.scale import Scale
from bench.gpu.sections import Failure, attempt, attempt_apart, cell
from bench.timing import table
from config import ARCHITECTURES, DataConfig, TrainConfig, preset
from lab.runs.run import Run
from lab.runs.weights import read_tensors
from lab.training.loop import train

STEPS, STOP = 6, 3
LIKE_TRAINING = TrainConfig(
    data=DataConfig(tokenizer="bpe-512", max_documents=200), steps=STEPS, batch_size=8, precision="bf16",
    compile="off", evaluate_every=STEPS, evaluation_tokens=1024,
)


def trained(architecture: str, stops: tuple[int, ...], device: str, folder: Path) -> Run:
    """A tiny run, which was left after each of these steps and opened again."""
    model = preset(f"{architecture}-tiny", "bpe-512").model
    name = f"{architecture}-{len(stops)}"
    run = Run.create(name, model, LIKE_TRAINING.replace(device=device), folder)
    for stop in stops:
        for step in train(run):
            if step.step == stop:
                break
        run = Run.open(name, folder)
    for _ in train(run):
        pass
    return run


def differing(architecture: str, device: str) -> list[str]:
    """The tensors of the two checkpoints that differ, and "losses" if the logs do."""
    with tempfile.TemporaryDirectory() as folder:
        whole, parted = (trained(architecture, stops, device, Path(folder)) for stops in ((), (STOP,)))
        (first, _), (second, _) = (read_tensors(run.checkpoint_path) for run in (whole, parted))
        different = [name for name in first | second if not equal(first.get(name), second.get(name))]
        return different + ["losses"] * (list(whole.log()["loss"]) != list(parted.log()["loss"]))


def equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def compare_all(scale: Scale) -> dict:
    return {architecture: attempt(differing, architecture, scale.device) for architecture in ARCHITECTURES}


def main(scale: Scale) -> list[Failure]:
    """Prints the table."""
    found = attempt_apart(compare_all, scale)
    found = dict.fromkeys(ARCHITECTURES, found) if isinstance(found, Failure) else found
    rows, failures = [], []
    for architecture, result in found.items():
        if result:  # it failed, or tensors differ
            failures.append(result if isinstance(result, Failure) else Failure(f"{architecture} differs"))
        text = cell(result, "") if isinstance(result, Failure) else f"no: {len(result)} differ, as {result[:2]}"
        rows.append([architecture, text if result else "yes"])
    title = f"A run stopped after step {STOP} of {STEPS} and resumed equals an uninterrupted one, bit for bit"
    print(table(title, ["", "equal"], rows), flush=True)
    return failures
