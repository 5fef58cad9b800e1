"""The checkpoint of a training: weights, optimizer, progress and settings in one file, checked before they are used."""

import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from config import ModelConfig, TrainConfig
from lab.runs.run import Run, settings_by_name
from lab.runs.weights import read_header, read_tensors, write_tensors
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError

# What may be changed in a run's files between two parts of its training; where it ends in a dot, all below it
MAY_CHANGE = (
    "model.dropout.", "train.device", "train.precision", "train.compile", "train.micro_batch_size",
    "train.gradient_checkpointing", "train.learning_rate", "train.weight_decay", "train.beta1", "train.beta2",
    "train.gradient_clip", "train.schedule.", "train.steps", "train.dropout_final", "train.evaluate_every",
    "train.sample_every", "train.sample_prompt", "train.sample_tokens", "train.checkpoint_every", "train.watch_every",
)  # fmt: skip
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(kw_only=True)
class Progress:
    """The part of a training's state that is not a tensor; what was chosen by measuring stays chosen on resuming.

    chosen_for: the precision, compile and device that the settings asked for when it was chosen. why: the choice in
    words. Both are empty in checkpoints of earlier versions.
    """

    step: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    precision: str = ""
    compiled: bool = False
    chosen_for: str = ""
    why: str = ""

    def problem(self) -> str | None:
        """What can't be, in words."""
        if type(self.step) is not int or not 0 <= self.step < 2**53:
            return f"step is {self.step!r:.50}, no whole number from 0 on"
        if type(self.seconds) not in (int, float) or not 0 <= self.seconds < math.inf:
            return f"seconds is {self.seconds!r:.50}, no number from 0 on"
        if self.best_loss is not None and not (type(self.best_loss) in (int, float) and math.isfinite(self.best_loss)):
            return f"best_loss is {self.best_loss!r:.50}, neither a finite number nor null"
        if self.precision not in ("", "fp32", "bf16") or type(self.compiled) is not bool:
            return f"precision and compiled are {self.precision!r:.50} and {self.compiled!r:.50}"
        if type(self.chosen_for) is not str or type(self.why) is not str:
            return "chosen_for and why must be texts"
        return None


def save_checkpoint(run: Run, model: Transformer, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """One file, so that its parts can't disagree. Raises RunError for weights that are not finite, and stores none."""
    if not run.folder.is_dir():
        raise RunError(f"{run.folder} is gone: the run was deleted or moved while it trained; make a new one")
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model/{name}": parameter for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer/{names[parameter]}/{key}": value for key, value in state.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RunError(f"after step {progress.step}, {name} is not finite: the training has diverged. {kept(run)}")
    settings = {"model": run.model_config.to_dict(), "train": run.train_config.to_dict()}
    facts = {"progress": asdict(progress), "settings": settings, "tokenizer": run.tokenizer.fingerprint}
    write_tensors(run.checkpoint_path, tensors, facts | {"tensors": len(tensors)})


def load_checkpoint(run: Run, model: Transformer, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts model and optimizer where the run stopped; a run that never was trained starts at step 0.

    Raises RunError for a checkpoint that is damaged, and where settings were changed since that can't change.
    """
    check_resumable(run)
    if not run.checkpoint_path.exists():
        return Progress()
    tensors, facts = read_tensors(run.checkpoint_path)
    progress = read_progress(run, facts)
    check_settings(run, facts, progress)
    check_tensors(run, model, tensors, facts, progress)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    names = {parameter: name for name, parameter in model.named_parameters()}
    states = {}
    for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        prefix = f"optimizer/{names[parameter]}/"
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        states |= {index: state} if state else {}
    # the optimizer knows on which device each of its tensors has to be
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def check_resumable(run: Run) -> None:
    """Raises RunError where there are weights, but nothing to go on from."""
    if run.weights_path.exists() and not run.checkpoint_path.exists():
        raise RunError(f"run {run.name!r} has no checkpoint (shipped runs have none); start a new one")


def check_current(run: Run) -> None:
    """Raises RunError where the run's settings files were changed since `run` was opened."""
    stored = Run.open(run.folder)
    if (stored.model_config, stored.train_config) != (run.model_config, run.train_config):
        raise RunError(
            f"the settings in {run.folder} were changed since this run was opened: open it again to go on with them, "
            f"run = Run.open({run.name!r})"
        )


def check_resumption(run: Run) -> None:
    """What can be told without reading a tensor: raises RunError where `train(run)` could not go on."""
    check_resumable(run)
    if run.checkpoint_path.exists():
        _, facts = read_header(run.checkpoint_path)
        check_settings(run, facts, read_progress(run, facts))


def read_progress(run: Run, facts: dict[str, str]) -> Progress:
    try:
        progress = Progress(**json.loads(facts["progress"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(run, f"its progress can't be read ({type(error).__name__}: {error})") from error
    if progress.problem():
        raise damaged(run, f"in its progress, {progress.problem()}")
    return progress


def check_settings(run: Run, facts: dict[str, str], progress: Progress) -> None:
    """Raises RunError where the run's files differ from what it was trained with, in what can't change.

    Checkpoints of earlier versions say nothing of their settings: there nothing can be told.
    """
    if progress.step > run.train_config.steps:
        raise RunError(
            f"run {run.name!r} has reached step {progress.step}, and steps={run.train_config.steps} in its "
            f"train_config.json; set it to {progress.step} or more"
        )
    if "settings" not in facts or progress.step == 0:
        return
    try:
        stored = json.loads(facts["settings"])
        before = settings_by_name(ModelConfig.from_dict(stored["model"]), TrainConfig.from_dict(stored["train"]))
    except (ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise damaged(run, f"its settings can't be read ({error})") from error
    now = settings_by_name(run.model_config, run.train_config)
    before["tokenizer.json"], now["tokenizer.json"] = facts.get("tokenizer"), run.tokenizer.fingerprint
    may_change = (*MAY_CHANGE, *(("train.data.source",) if run.text and run.text.is_gone() else ()))
    changed = [
        f"{name} is {now.get(name, 'gone')} and was {before.get(name, 'not there')}"
        for name in before | now
        if before.get(name) != now.get(name) and not name.startswith(may_change)
    ]
    if changed:
        raise RunError(
            f"run {run.name!r} was trained up to step {progress.step} with other settings: {'; '.join(changed)}. These "
            "can't change within a training: set them back, or train a new run with them"
        )


def check_tensors(
    run: Run, model: Transformer, tensors: dict[str, Tensor], facts: dict[str, str], progress: Progress
) -> None:
    """Raises RunError unless these are the tensors of this model and its optimizer, of right shape, type and value."""
    expected = expected_tensors(model, progress.step)
    missing = [name for name in expected if name.startswith("model/") and name not in tensors]
    missing += [name for name in half_states(tensors) if name not in tensors]
    problems = [f"{name} is missing" for name in missing]
    for name, tensor in tensors.items():
        shape, dtype = expected.get(name, (None, None))
        if shape is None:
            problems.append(f"{name} belongs to no part of the model at step {progress.step}")
        elif (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
            problems.append(f"{name} is {tuple(tensor.shape)} {tensor.dtype}, and {shape} {dtype} is right")
        elif not tensor.isfinite().all() or (name.endswith("/exp_avg_sq") and (tensor < 0).any()):
            problems.append(f"{name} holds values that can't be")
        elif name.endswith("/step") and not (1 <= tensor.item() <= progress.step):
            problems.append(f"{name} is {tensor.item():g} at step {progress.step}")
    if not problems and facts.get("tensors", str(len(tensors))) != str(len(tensors)):
        problems.append(f"it has {len(tensors)} tensors of {facts['tensors']:.20}")
    if problems:
        raise damaged(run, "; ".join(problems[:3]))


def expected_tensors(model: Transformer, step: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every tensor that a checkpoint can have; before the first step AdamW has none."""
    found = {}
    for name, parameter in model.named_parameters():
        found[f"model/{name}"] = (tuple(parameter.shape), parameter.dtype)
        if step and parameter.requires_grad:
            found[f"optimizer/{name}/step"] = ((), torch.float32)
            found |= {f"optimizer/{name}/{key}": (tuple(parameter.shape), parameter.dtype) for key in MOMENTS}
    return found


def half_states(tensors: dict[str, Tensor]) -> list[str]:
    """All that AdamW keeps of a parameter, for each of which the file has something."""
    parameters = {name.rpartition("/")[0] for name in tensors if name.startswith("optimizer/")}
    return [f"{parameter}/{key}" for parameter in sorted(parameters) for key in ("step", *MOMENTS)]


def damaged(run: Run, problem: str) -> RunError:
    return RunError(
        f"{run.checkpoint_path} is damaged: {problem}. Restore it from a copy, or train a new run with the same "
        f"settings: python tools.py train --like {run.name}"
    )


def kept(run: Run) -> str:
    """What a run that can't go on still holds, as its files say: a sentence."""
    found = []
    if run.weights_path.exists():
        loss = run.validation_loss()
        measured = "" if math.isnan(loss) else f" (validation loss {loss:.4f})"
        found.append(f"the weights of step {run.stored_at()}{measured}")
    if run.checkpoint_path.exists():
        found.append(f"the checkpoint of step {read_progress(run, read_header(run.checkpoint_path)[1]).step}")
    return f"The run still holds {' and '.join(found)}" if found else "The run holds no weights yet"
