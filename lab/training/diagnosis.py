"""Numbers that are not finite: where they came from, and what to change."""

import math

import torch
from torch import Tensor

from lab.compute.device import autocast, matmul_precision
from lab.compute.sharding import local
from lab.compute.training_state import TrainingState
from lab.runs.run import Run
from lab.training.checkpoint import still_holds
from settings.errors import RunError


def check_finite(run: Run, state: TrainingState, by_rank: list[dict[str, float]], step: int) -> None:
    """Raises RunError unless all numbers of the step, its losses and its gradient's norm, are finite on every rank.

    step: from 1. If its update is done already, the weights are no longer those that gave the numbers, and the message
    names the number instead of the part that it came from.
    """
    wrong = [
        (name, rank) for rank, numbers in enumerate(by_rank) for name in numbers if not math.isfinite(numbers[name])
    ]
    if wrong:
        name, rank = min(wrong, key=lambda found: found[0] == "gradient_norm")  # the norm is the same on all ranks
        said = {"loss": "the loss", "gradient_norm": "the norm of the gradients"}.get(name, f"the loss {name}")
        done = state.progress.step == step
        where = said if done else state.ranks.exchange(find_non_finite(state))[rank]
        of_rank = f" on rank {rank}" if state.ranks.size > 1 and name != "gradient_norm" else ""
        raise RunError(f"step {step}: {where}{of_rank} is not finite. {still_holds(run)}. {advice(state)}")


def check_validation_loss(run: Run, state: TrainingState, loss: float) -> None:
    """Raises RunError unless the validation loss is finite."""
    if not math.isfinite(loss):
        raise RunError(
            f"step {state.progress.step}: the validation loss is {loss}, though the training losses up to here were "
            f"finite. {still_holds(run)}. {advice(state)}"
        )


def find_non_finite(state: TrainingState) -> str:
    """The first module whose output is not finite in the next step, else the last parameter whose gradient is not."""
    found = []

    def look(name: str):
        def hook(module, inputs, output):
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in state.learner.named_modules() if name]
    try:
        with state.seeded(), torch.no_grad(), matmul_precision(state.device, state.precision):
            for windows in state.batch():
                with autocast(state.device, state.precision):
                    state.learner.losses(windows)
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"the output of {found[0]}"
    parameters = state.learner.named_parameters()
    gradients = [name for name, p in parameters if p.grad is not None and not local(p.grad).isfinite().all()]
    return f"the gradient of {gradients[-1]}" if gradients else "the loss"


def advice(state: TrainingState) -> str:
    """Which settings to change in the run's file; a training that goes on obeys these changes."""
    config = state.config
    clip = "set gradient_clip" if config.gradient_clip is None else f"set gradient_clip below {config.gradient_clip:g}"
    fp32 = ", or set precision to 'fp32'" if state.precision == "bf16" else ""
    return (
        f"In its train_config.json lower learning_rate (now {config.learning_rate:g}), lengthen the warm-up, or "
        f"{clip}{fp32}; then resume"
    )
