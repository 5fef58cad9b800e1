"""The checkpoint of a training: weights, optimizer, progress and settings in one file, checked before they are used."""

import json
import math
from dataclasses import asdict

import torch
from torch import Tensor, nn

from config import ModelConfig, TrainConfig
from lab.compute.sharding import part_like, whole
from lab.compute.training_state import Progress, TrainingState
from lab.runs.run import Run
from lab.runs.settings import settings_by_name
from lab.runs.weights import read_header, read_tensors, write_tensors
from settings.errors import ConfigError, RunError

# Settings that may change between two parts of a training. A name that ends in a dot stands for all below it
MAY_CHANGE = (
    "model.dropout.", "train.device", "train.precision", "train.compile", "train.micro_batch_size",
    "train.gradient_checkpointing", "train.learning_rate", "train.muon_rate", "train.muon_momentum",
    "train.weight_decay", "train.beta1", "train.beta2", "train.gradient_clip", "train.schedule.", "train.steps",
    "train.dropout_final", "train.evaluate_every", "train.sample_every", "train.sample_prompt", "train.sample_tokens",
    "train.checkpoint_every", "train.watch_every",
)
# What the optimizers keep for each parameter
ADAMW, MUON = ("step", "exp_avg", "exp_avg_sq"), ("momentum_buffer",)


def save_checkpoint(run: Run, state: TrainingState) -> None:
    """Writes one file, so that its parts always fit together. Raises RunError, and writes nothing, if a weight is not
    finite.

    Every rank must call it: the first gets all rows of what is split over them, and writes the same file as one process
    does. So a training can go on with any number of ranks.
    """
    if not run.folder.is_dir():
        raise RunError(f"{run.folder} is gone: the run was deleted or moved while it trained; make a new one")
    names = trained_parameters(state.learner)
    tensors = {f"model/{name}": parameter for parameter, name in names.items()}
    for parameter, values in state.optimizer.state.items():
        tensors |= {f"optimizer/{names[parameter]}/{key}": value for key, value in values.items()}
    step, first, kept = state.progress.step, state.ranks.is_first, {}
    for name, tensor in tensors.items():
        tensor = whole(tensor)
        if not tensor.isfinite().all():
            raise RunError(f"after step {step}, {name} is not finite: the training has diverged. {still_holds(run)}")
        if first:
            kept[name] = tensor.cpu() if state.sharded else tensor
    if not first:
        return
    settings = {"model": run.model_config.to_dict(), "train": run.train_config.to_dict()}
    facts = {"progress": asdict(state.progress), "settings": settings, "tokenizer": run.tokenizer.fingerprint}
    write_tensors(run.checkpoint_path, kept, facts | {"tensors": len(kept)})


def load_checkpoint(run: Run, state: TrainingState) -> None:
    """Puts the state where the run stopped. It stays as it is if the run has not been trained.

    Raises RunError for a damaged checkpoint, and for changed settings that can't change within a training.
    """
    check_resumable(run)
    if not run.checkpoint_path.exists():
        return
    tensors, facts = read_tensors(run.checkpoint_path)
    progress = read_progress(run, facts)
    check_unchanged(run, facts, progress)
    check_tensors(run, state, tensors, facts, progress)
    names = trained_parameters(state.learner)
    with torch.no_grad():
        for parameter, name in names.items():
            parameter.copy_(part_like(tensors[f"model/{name}"], parameter))
    states = {}
    for index, parameter in enumerate(p for group in state.optimizer.param_groups for p in group["params"]):
        prefix = f"optimizer/{names[parameter]}/"
        stored = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        values = {key: part_like(value, parameter) if value.dim() else value for key, value in stored.items()}
        states |= {index: values} if values else {}
    # load_state_dict puts each tensor on the device where the optimizer needs it
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": states, "param_groups": groups})
    state.progress = progress


def check_resumable(run: Run) -> None:
    """Raises RunError if there are weights but no checkpoint to go on from."""
    if run.weights_path.exists() and not run.checkpoint_path.exists():
        raise RunError(f"run {run.name!r} has no checkpoint (shipped runs have none); start a new one")


def check_current(run: Run) -> None:
    """Raises RunError if the run's settings files were changed since `run` was opened."""
    stored = Run.open(run.folder)
    if (stored.model_config, stored.train_config) != (run.model_config, run.train_config):
        raise RunError(
            f"the settings in {run.folder} were changed since this run was opened: open it again to go on with them, "
            f"run = Run.open({run.name!r})"
        )


def check_resumption(run: Run) -> None:
    """Raises RunError if `train(run)` could not go on, as far as that shows without reading a tensor."""
    check_resumable(run)
    if run.checkpoint_path.exists():
        _, facts = read_header(run.checkpoint_path)
        check_unchanged(run, facts, read_progress(run, facts))


def read_progress(run: Run, facts: dict[str, str]) -> Progress:
    try:
        progress = Progress(**json.loads(facts["progress"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(run, f"its progress can't be read ({type(error).__name__}: {error})") from error
    problem = progress_problem(progress)
    if problem:
        raise damaged(run, f"in its progress, {problem}")
    return progress


def progress_problem(progress: Progress) -> str | None:
    """What is wrong with the values of a progress, in words; None if nothing is."""
    step, seconds, best = progress.step, progress.seconds, progress.best_loss
    if type(step) is not int or not 0 <= step < 2**53:
        return f"step is {step!r:.50}, no whole number from 0 on"
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        return f"seconds is {seconds!r:.50}, no number from 0 on"
    if best is not None and not (type(best) in (int, float) and math.isfinite(best)):
        return f"best_loss is {best!r:.50}, neither a finite number nor null"
    if progress.precision not in ("", "fp32", "tf32", "bf16") or type(progress.compiled) is not bool:
        return f"precision and compiled are {progress.precision!r:.50} and {progress.compiled!r:.50}"
    if type(progress.chosen_for) is not str or type(progress.why) is not str:
        return "chosen_for and why must be texts"
    size = progress.micro_batch_size
    if type(size) is not int or not 0 <= size <= 2**20:
        return f"micro_batch_size is {size!r:.50}, no whole number from 0 to 2**20"
    return None


def check_unchanged(run: Run, facts: dict[str, str], progress: Progress) -> None:
    """Raises RunError if a setting that can't change differs from what the run was trained with.

    Checkpoints of earlier versions do not hold their settings, so that nothing can be checked there.
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
    may_change = may_change_in(run.train_config)
    if run.text and run.text.is_gone():
        may_change += ("train.data.source",)
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


def may_change_in(config: TrainConfig) -> tuple[str, ...]:
    """The settings that may change within a training, by what their names begin with. The weights of a mixture move
    over all steps, so that their number is fixed from the beginning."""
    fixed = {"train.steps"} if config.data.mixture.sources else set()
    return tuple(name for name in MAY_CHANGE if name not in fixed)


def check_tensors(
    run: Run, state: TrainingState, tensors: dict[str, Tensor], facts: dict[str, str], progress: Progress
) -> None:
    """Raises RunError unless these are the tensors of this model and its optimizer, with possible values."""
    expected = expected_tensors(state, progress.step)
    updated = {owner(name) for name in tensors if name.startswith("optimizer/")}
    missing = [
        name for name in expected if name not in tensors and (name.startswith("model/") or owner(name) in updated)
    ]
    problems = [f"{name} is missing" for name in missing]
    for name, tensor in tensors.items():
        shape, dtype = expected.get(name, (None, None))
        if shape is None:
            problems.append(f"{name} is no tensor of this model at step {progress.step}")
        elif (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
            problems.append(f"{name} is {tuple(tensor.shape)} {tensor.dtype}; it must be {shape} {dtype}")
        elif not tensor.isfinite().all() or (name.endswith("/exp_avg_sq") and (tensor < 0).any()):
            problems.append(f"{name} holds impossible values")
        elif name.endswith("/step") and not (1 <= tensor.item() <= progress.step):
            problems.append(f"{name} is {tensor.item():g} at step {progress.step}")
    if not problems and facts.get("tensors", str(len(tensors))) != str(len(tensors)):
        problems.append(f"it has {len(tensors)} tensors of {facts['tensors']:.20}")
    if problems:
        raise damaged(run, "; ".join(problems[:3]))


def expected_tensors(state: TrainingState, step: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every tensor that a checkpoint can have. An optimizer has none before the first step, and later
    none for a parameter that never had a gradient."""
    names, found = trained_parameters(state.learner), {}
    for parameter, name in names.items():
        found[f"model/{name}"] = (tuple(parameter.shape), parameter.dtype)
    for group in state.optimizer.param_groups if step else ():
        keys = MUON if "ns_steps" in group else ADAMW
        for parameter in group["params"]:
            for key in keys:
                like = ((), torch.float32) if key == "step" else (tuple(parameter.shape), parameter.dtype)
                found[f"optimizer/{names[parameter]}/{key}"] = like
    return found


def owner(name: str) -> str:
    """The parameter that a tensor of the optimizer belongs to."""
    return name.rpartition("/")[0]


def trained_parameters(model: nn.Module) -> dict[torch.nn.Parameter, str]:
    """The parameters that the training changes, with their names: all of them, or an adapter's."""
    return {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}


def damaged(run: Run, problem: str) -> RunError:
    return RunError(
        f"{run.checkpoint_path} is damaged: {problem}. Restore it from a copy, or train a new run with the same "
        f"settings: python tools.py train --like {run.name}"
    )


def still_holds(run: Run) -> str:
    """What is stored in a run that can't go on, as its files say: a sentence."""
    found = []
    if run.weights_path.exists():
        try:
            loss = run.validation_loss()
            measured = "" if math.isnan(loss) else f" (validation loss {loss:.4f})"
            found.append(f"the weights of step {run.stored_at()}{measured}")
        except RunError as error:  # a second fault, told behind the first
            found.append(f"weights that can't be used ({error})")
    if run.checkpoint_path.exists():
        try:
            found.append(f"the checkpoint of step {read_progress(run, read_header(run.checkpoint_path)[1]).step}")
        except RunError as error:
            found.append(f"a checkpoint that can't be used ({error})")
    return f"The run still holds {' and '.join(found)}" if found else "The run holds no weights yet"
