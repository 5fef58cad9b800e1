"""The zoo: every architecture at equal size, trained alike on tales and on pydocs, as they ship in trained/.

    python -m bench.zoo FOLDER [GLOB]

trains those of GLOB (by default all) in FOLDER, one on each core, and holds each against the one that ships: on one
machine the same code reaches the same losses to the last digit, for every training runs on one thread in a fixed
precision. Stopped, it goes on where it was.
"""

import fnmatch
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from bench.timing import table
from config import Preset, ScheduleConfig, list_models, preset
from lab.comparison.sweep import find_or_create_run, matched
from lab.costs.estimates import estimate
from lab.data.packing import prepare
from lab.runs.names import TRAINED, run_names
from lab.runs.run import Run
from lab.training.loop import train
from settings.errors import ConfigError
from settings.messages import suggest

VOCABULARY = 1024
STEPS = {"tales": 1000, "pydocs": 500}  # pydocs is small: five times through it
PAIR, SEEDS = ("factored-alibi", "alibi"), 3  # the idea and what it is held against
PROMPT = "Once upon a time"  # what those that ship were made with: their cards show what they make of it
DEEP_WIDTH = 80  # of those that need five layers where the others have two


def zoo() -> dict[str, Preset]:
    """The settings of each run by its name: as many parameters in each as the factored one has, to 2 %."""
    found = {f"{name}-tiny-{source}": settings(name, source) for source in STEPS for name in list_models()}
    for name in PAIR:
        model, config = found[f"{name}-tiny-tales"]
        found |= {f"{name}-tiny-tales-seed{n}": Preset(model, config.replace(seed=n)) for n in range(1, SEEDS)}
    return found


def settings(architecture: str, source: str) -> Preset:
    parameters = estimate(unmatched(PAIR[0], source).model).parameters
    return matched(unmatched(architecture, source), parameters)


def unmatched(architecture: str, source: str) -> Preset:
    """The tiny preset in the zoo's tokenizer and training."""
    model, config = preset(f"{architecture}-tiny")
    width = DEEP_WIDTH if model.n_layers > preset("llama-tiny").model.n_layers else model.width
    data = config.data.replace(source=source, tokenizer=f"bpe-{VOCABULARY}")
    config = config.replace(
        data=data, steps=STEPS[source], batch_size=64, optimizer="adamw", learning_rate=4e-3,
        schedule=ScheduleConfig(warmup_steps=100), precision="bf16", compile="off", checkpoint_every=250,
        sample_prompt=PROMPT,
    )
    return Preset(model.replace(vocab_size=VOCABULARY, width=width), config)


def train_one(name: str, folder: Path) -> float:
    """Trains a run of the zoo to its end, on one thread; its best validation loss."""
    torch.set_num_threads(1)
    run = find_or_create_run(name, zoo()[name], folder)
    for step in train(run):
        if step.validation_loss is not None:
            print(f"{name}: step {step.step}, validation loss {step.validation_loss:.4f}", flush=True)
    return validation_loss(run)


def validation_loss(run: Run) -> float:
    return float(run.weights_facts()["validation_loss"])


def against_shipped(name: str, loss: float) -> str:
    """What a loss is above the one that ships."""
    if name not in run_names():
        return "none ships"
    shipped = validation_loss(Run.open(name))
    return "identical" if loss == shipped else f"{loss - shipped:+.6f}"


def main(folder: Path, glob: str = "*") -> None:
    names = fnmatch.filter(zoo(), glob)
    if not names:
        raise ConfigError(f"no run {glob!r} in the zoo; {suggest(glob, zoo())}")
    if folder.resolve() == TRAINED:
        raise ConfigError("in trained/ they would be held against themselves; name another folder")
    names.sort(key=lambda name: -zoo()[name].model.n_layers)  # the longest first
    for data in {zoo()[name].train.data for name in names}:
        prepare(data)  # once, and not by all at the same time
    losses = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        jobs = {workers.submit(train_one, name, folder): name for name in names}
        for job in as_completed(jobs):
            losses[jobs[job]] = job.result()
    rows = [[name, repr(loss), against_shipped(name, loss)] for name, loss in sorted(losses.items())]
    print(table("The zoo, validation loss in nats per token", ["run", "retrained", "− shipped"], rows))
