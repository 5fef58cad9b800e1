"""What the tests of distributed training run in each process that torchrun starts: trainings, and what must fail.

    torchrun --nproc-per-node 2 -m tests.helpers.rank_cases FOLDER

writes FOLDER/<ranks>-<rank>.json: the numbers of each training, and the error of each failure.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from config import ARCHITECTURES, DataConfig, FutureBlockConfig, ModelConfig, TrainConfig
from lab.compute import sharding as sharding_module
from lab.compute.ranks import Ranks, current_ranks, join_ranks
from lab.data.packing import prepare
from lab.runs.run import Run
from lab.training.launch import check_same_request, create_together
from lab.training.loop import train
from settings.errors import GlassboxError

SIZE = dict(vocab_size=257, context_length=16, n_layers=2, n_heads=2, width=32)
TRAIN = TrainConfig(
    data=DataConfig(tokenizer="byte", max_documents=60, validation_fraction=0.3), steps=50, batch_size=8,
    evaluate_every=25, evaluation_tokens=600, precision="fp32", compile="off", device="cpu", sample_tokens=3,
)


def architecture(name: str, **changes) -> ModelConfig:
    return ModelConfig(**ARCHITECTURES[name] | SIZE | changes)


FUTURE = dict(n_layers=3, block=FutureBlockConfig(levels=1))
SHARED = dict(n_layers=4, block=FutureBlockConfig(levels=2, predicts="vector_cosine", share=True))
CASES = {
    "llama": (architecture("llama"), TRAIN.replace(optimizer="adamw")),
    "factored-alibi": (architecture("factored-alibi"), TRAIN.replace(micro_batch_size=4)),
    "future": (architecture("future", **FUTURE), TRAIN),
}
FEW_STEPS = TRAIN.replace(steps=6, evaluate_every=100)
MORE = {  # on two ranks only: scalars that no rank can split, shared parameters, heads that are recomputed
    "sasp": (architecture("sasp"), FEW_STEPS),
    "future-vectors": (architecture("future", **SHARED), FEW_STEPS),
    "multi-token": (architecture("multi-token", n_layers=5), FEW_STEPS.replace(gradient_checkpointing=True)),
}
CHAINS = {"plain": (20, 35), "sharded": (20, 35)}  # where the ranks leave a run to others


def numbers(steps) -> dict[str, list]:
    """What must be the same on any number of ranks."""
    steps = list(steps)
    return {
        "loss": [step.loss for step in steps], "others": [list(step.others.values()) for step in steps],
        "norm": [step.gradient_norm for step in steps],
        "validation": [step.validation_loss for step in steps if step.validation_loss is not None],
    }


def until(steps, last: int) -> list:
    """The steps up to `last`, where the loop is left."""
    taken = []
    for step in steps:
        taken.append(step)
        if step.step == last:
            break
    steps.close()
    return taken


def train_cases(folder: Path, sharding: str, found: dict) -> None:
    ranks = current_ranks()
    for name, settings in (CASES | (MORE if ranks.size == 2 else {})).items():
        create = partial(Run.create, f"{name}-{sharding}-{ranks.size}", *settings, folder)
        run = create_together(ranks, create)
        found[f"{name} {sharding}"] = numbers(train(run, sharding=sharding))


def go_on(folder: Path, sharding: str, found: dict) -> None:
    """Takes two ranks' part of a chain, or four ranks' part, in the other way of sharding."""
    ranks = current_ranks()
    first = ranks.size == 2
    chain = sharding if first else {"none": "full", "full": "none"}[sharding]
    if first:
        run = create_together(ranks, lambda: Run.create(f"chain-{chain}", *CASES["factored-alibi"], folder))
    else:
        run = Run.open(f"chain-{chain}", folder)
    found[f"chain {chain}"] = numbers(until(train(run, sharding=sharding), 20 if first else 35))


# --- what must fail -------------------------------------------------------------------------------------------


def uneven(ranks: Ranks, folder: Path) -> None:
    settings = CASES["llama"][0], TRAIN.replace(batch_size=9)
    create_together(ranks, lambda: Run.create("uneven", *settings, folder))


def other_settings(ranks: Ranks, folder: Path) -> None:
    model, train = CASES["llama"]
    check_same_request(ranks, SimpleNamespace(model=model, train=train.replace(seed=ranks.rank), name="mine"))


def other_code(ranks: Ranks, folder: Path) -> None:
    ranks.check_same({"code": "abc" if ranks.is_first else "abd", "torch": "2"})


def other_data(ranks: Ranks, folder: Path) -> None:
    run = Run.open("llama-none-2", folder)
    change = {} if ranks.is_first else {"validation_fraction": 0.4}
    list(train(more_steps(ranks, run, "other-data"), prepare(TRAIN.data.replace(**change))))


def other_model(ranks: Ranks, folder: Path) -> None:
    run = more_steps(ranks, Run.open("llama-none-2", folder), "other-model")
    ranks.first(lambda: str(shutil.copy(Run.open("future-none-2", folder).checkpoint_path, run.checkpoint_path)))
    list(train(run))


def not_visible(ranks: Ranks, folder: Path) -> None:
    def create() -> Run:
        run = Run.create("unseen", *CASES["llama"], folder)
        run.folder = folder / "elsewhere"
        return run

    create_together(ranks, create)


def more_steps(ranks: Ranks, run: Run, name: str) -> Run:
    """A copy of the run that has more steps to take."""
    folder = run.folder.parent / name

    def copy() -> str:
        shutil.copytree(run.folder, folder)
        settings = run.train_config.replace(steps=60).to_json()
        (folder / "train_config.json").write_text(settings, encoding="utf-8")
        return name

    ranks.first(copy)
    return Run.open(folder)


FAILURES = (uneven, other_settings, other_code, other_data, other_model, not_visible)


def error_of(work: Callable[[Ranks, Path], None], folder: Path) -> list[str]:
    try:
        with join_ranks(timeout=60) as ranks:
            work(ranks, folder)
    except GlassboxError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    if os.environ["WORLD_SIZE"] == "4":
        sharding_module.GROUP_BYTES = 0  # blocks are gathered one by one; by two ranks, all together
    found, errors = {}, {}
    for sharding in ("none", "full"):
        with join_ranks(sharding == "full", timeout=60):
            train_cases(folder, sharding, found)
            go_on(folder, sharding, found)
    size, rank = os.environ["WORLD_SIZE"], os.environ["RANK"]
    if size == "2":
        errors = {work.__name__: error_of(work, folder) for work in FAILURES}
    (folder / f"{size}-{rank}.json").write_text(json.dumps({"found": found, "errors": errors}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
