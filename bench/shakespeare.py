"""Learning Tiny Shakespeare by characters: nanoGPT's recipe for a CPU against a llama of ours with default settings.

    python -m bench shakespeare FILE

4 layers × 128, 4 heads, context 64, batches of 12. The last tenth of the file is held out, and scored whole. nanoGPT's
recipe, as its README gives it: 2,000 steps, 1e-3 falling to 1e-4 as a cosine after 100 steps of warm-up, AdamW with
betas 0.9 and 0.99 and a decay of 0.1, float32. Ours takes batches of 24, and more and more steps until it reaches that
loss: with the preset's settings, with QK-norm, and with that and two settings for a short training. These are a lower
momentum of Muon's, which was chosen among seven on this text's last tenth, and a short window of attention. A second
table shows how the window was chosen, on a part of the training text that was held out for it. Each of the last two
recipes also takes LONG steps, to show which one is better in the end.
Each training has a process of its own. The seconds are those of its steps, and of choosing precision and compiling.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.rivals import nanogpt
from bench.steps import Size, Way, computing, random_windows, stepper
from bench.timing import apart, table
from config import DataConfig, preset
from lab.compute.training_state import TrainingState
from lab.data.packing import TokenData
from lab.data.token_file import TokenFile
from settings.errors import DataError

SIZE = Size(4, 4, 128, 64, 12)  # the vocabulary is the file's
RATE, FINAL, WARMUP, STEPS = 1e-3, 1e-4, 100, 2000
OURS, OUR_BATCH, LONG = (60, 70, 80, 100, 120, 140, 160, 200, 240, 280, 320, 400), 24, 800
WINDOW = 3  # of the last recipe
WINDOWS, TRIAL = (2, 3, 4, 8, 16, 32, 64), 80  # those tried, for so many steps
NORMED, SHORT = "the same with QK-norm", f"the same with QK-norm, a Muon momentum of 0.8 and a window of {WINDOW}"
FEW_STEPS = {"muon_momentum": 0.8}  # settings of the training
RECIPES: dict[str, tuple[dict, dict]] = {
    "Glassbox llama": ({}, {}),
    NORMED: ({"qk_norm": True}, {}),
    SHORT: ({"qk_norm": True, "window": WINDOW}, FEW_STEPS),
}  # by name: settings of the model, and of the training


class Text(NamedTuple):
    """Characters as numbers: what is learned, and the last tenth."""

    train: np.ndarray
    held_out: np.ndarray
    vocabulary: int


class Learned(NamedTuple):
    """The mean loss on the last tenth in nats per character, and the seconds of the training."""

    loss: float
    seconds: float


def read(file: Path, length: int) -> Text:
    """Raises DataError for a file that is missing, is no text, or is too short."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} can't be read as UTF-8 text ({error}): give the path of Tiny Shakespeare") from error
    if len(text) < 20 * (length + 1):
        raise DataError(f"{file} has {len(text)} characters; its last tenth must hold two windows of {length + 1}")
    characters = sorted(set(text))
    number = {character: index for index, character in enumerate(characters)}
    ids = np.array([number[character] for character in text], dtype=np.uint16)
    cut = len(ids) * 9 // 10
    return Text(ids[:cut], ids[cut:], len(characters))


def score(loss_of: Callable[[Tensor], Tensor], held_out: np.ndarray, length: int) -> float:
    """The mean loss over windows (B, T+1) that cover the held-out characters, but for a rest shorter than a window."""
    count = (len(held_out) - 1) // length
    ids = torch.from_numpy(held_out.astype(np.int64))
    windows = torch.stack([ids[start : start + length + 1] for start in range(0, count * length, length)])
    with torch.no_grad():
        losses = [loss_of(part).item() * len(part) for part in windows.split(128)]
    return sum(losses) / count


def rate_of(step: int, steps: int) -> float:
    """nanoGPT's learning rate of a step, counted from 0."""
    warmup = min(WARMUP, steps // 2)
    if step < warmup:
        return RATE * (step + 1) / (warmup + 1)
    fallen = (step - warmup) / (steps - warmup)
    return FINAL + (RATE - FINAL) * (1 + math.cos(math.pi * fallen)) / 2


def learn_as_nanogpt(text: Text, size: Size, steps: int) -> Learned:
    torch.manual_seed(0)
    config = nanogpt.NanoConfig(text.vocabulary, size.length, size.n_layers, size.n_heads, size.width)
    model: nn.Module = nanogpt.NanoGPT(config)
    optimizer = nanogpt.build_adamw(model, RATE, betas=(0.9, 0.99))
    step = stepper(model, optimizer, model, random_windows(text.train, size, "cpu"), Way("fp32"))
    start = time.perf_counter()
    for number in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(number, steps)
        step()
    seconds = time.perf_counter() - start
    return Learned(score(lambda part: model(part[:, :-1], part[:, 1:]), text.held_out, size.length), seconds)


def learn_as_ours(text: Text, size: Size, steps: int, of_model: dict, of_training: dict) -> Learned:
    """A llama with the settings of llama-128x4, but for context, batch, steps and what a recipe sets."""
    config = preset("llama-128x4").train.replace(steps=steps, batch_size=OUR_BATCH, device="cpu", **of_training)
    model = size._replace(vocabulary=text.vocabulary).model("llama").replace(**of_model)
    train, held_out = (
        TokenFile(name, ids, n_documents=1, n_bytes=len(ids))
        for name, ids in (("train", text.train), ("validation", text.held_out))
    )
    state = TrainingState.start(model, config, TokenData(DataConfig(), None, train, held_out))
    start = time.perf_counter()
    step = computing(state)
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    state.model.eval()
    return Learned(score(lambda part: state.model.losses(part)["loss"], text.held_out, size.length), seconds)


def windows_table(text: Text, size: Size, steps: int) -> str:
    """What the last recipe comes to with other windows. The last ninth of the training text is held out for this."""
    cut = len(text.train) * 8 // 9
    part = Text(text.train[:cut], text.train[cut:], text.vocabulary)
    rows = []
    for window in WINDOWS:
        found = apart(learn_as_ours, part, size, steps, {"qk_norm": True, "window": window}, FEW_STEPS)
        rows.append([f"{window}", f"{found.loss:.4f}"])
    title = f"The last recipe with other windows after {steps} steps"
    return table(title, ["window", "loss on the last ninth of the training text"], rows)


def main(
    words: Sequence[str], size: Size = SIZE, steps: int = STEPS, ours: Sequence[int] = OURS, long: int = LONG,
    trial: int = TRIAL,
) -> int:
    """Prints the tables; returns the exit status."""
    if len(words) != 1:
        print("usage: python -m bench shakespeare FILE", file=sys.stderr)
        return 2
    try:
        text = read(Path(words[0]), size.length)
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    theirs = apart(learn_as_nanogpt, text, size, steps)
    rows = [[f"nanoGPT's recipe, {steps:,} steps", f"{theirs.loss:.4f}", f"{theirs.seconds:.1f}", "1.0"]]
    said = []

    def add(name: str, number: int) -> tuple[Learned, str]:
        found = apart(learn_as_ours, text, size, number, *RECIPES[name])
        part = f"{theirs.seconds / found.seconds:.1f}"
        rows.append([f"{name}, {number:,} steps", f"{found.loss:.4f}", f"{found.seconds:.1f}", part])
        return found, part

    for name in RECIPES:
        for number in ours:
            found, part = add(name, number)
            if found.loss <= theirs.loss:
                break
        reached = f"{name} reaches nanoGPT's loss in 1/{part} of its time"
        said.append(reached if found.loss <= theirs.loss else f"{name} does not reach the loss of nanoGPT")
    for name in (NORMED, SHORT):
        add(name, long)
    headings = ["", "loss on the last tenth", "seconds", "nanoGPT's time ÷ its time"]
    print(table(f"{Path(words[0]).name} by characters, {torch.get_num_threads()} threads", headings, rows), flush=True)
    print("", *said, sep="\n", flush=True)
    print(windows_table(text, size, trial), flush=True)
    return 0
