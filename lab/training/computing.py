"""Choosing how a run computes, when its training starts or goes on."""

from lab.compute.choice import choose
from lab.compute.compiling import compiler_problem
from lab.compute.device import is_repeatable
from lab.compute.training_state import TrainingState
from lab.costs.fitting import explain_out_of_memory
from lab.runs.run import Run
from lab.training.checkpoint import save_checkpoint
from lab.training.micro_batches import settle_micro_batch

NOT_REPEATABLE = "; a repeated step differs in its last digits, because attention's backward pass does in bf16 on CUDA"


def choose_computing(run: Run, state: TrainingState) -> None:
    """Sets precision, compiling and the size of micro-batches as the settings say; "auto" is what was measured before
    on this device, or is now.

    A new choice is stored in the checkpoint: a training that is killed at any moment goes on as chosen.
    """
    progress, device_type = state.progress, state.device.type
    if progress.step >= state.config.steps:
        return
    resized = settle_micro_batch(run, state)
    config = state.config
    asked = f"{config.precision} {config.compile} {device_type}"
    kept = measured_before(state)
    settings = config.replace(**kept)
    chosen = (progress.precision, "on" if progress.compiled else "off")
    if resized or (settings.precision, settings.compile) != chosen or (progress.why and progress.chosen_for != asked):
        run.tell("measuring how long a step takes" + ", in both precisions" * (settings.precision == "auto"))
        with state.seeded(), explain_out_of_memory(run.model_config, config):
            windows, left = next(state.batch()), config.steps - progress.step
            progress.precision, progress.compiled, why = choose(state.learner, windows, settings, kept, left)
        size = f"micro-batches of {config.at_once}, the most that fit; " if progress.micro_batch_size else ""
        exact = "" if is_repeatable(state.device, progress.precision) else NOT_REPEATABLE
        progress.why = f"{device_type}, {size}{why}{exact}"
        run.tell(progress.why)
    if resized or progress.chosen_for != asked:
        progress.chosen_for = asked
        save_checkpoint(run, state)


def measured_before(state: TrainingState) -> dict[str, str]:
    """The settings that are "auto" now and were "auto" when they were measured on this device, with their values."""
    progress, config, device_type = state.progress, state.config, state.device.type
    precision, compiling, device_then = (progress.chosen_for or f"auto auto {device_type}").split()
    kept = {}
    if not progress.precision or device_then != device_type:
        return kept
    if config.precision == precision == "auto":
        kept["precision"] = progress.precision
    if config.compile == compiling == "auto":
        if not progress.compiled:
            kept["compile"] = "off"
        elif config.dropout_final == 1 and not compiler_problem(device_type):
            kept["compile"] = "on"
    return kept
