"""Choosing how a run computes, when its training starts or goes on."""

from dataclasses import asdict

from config import TrainConfig
from lab.compute.choice import Choice, choose
from lab.compute.compiling import compiler_problem
from lab.compute.device import is_repeatable, precisions
from lab.compute.training_state import TrainingState
from lab.costs.fitting import explain_out_of_memory
from lab.runs.run import Run
from lab.training.checkpoint import save_checkpoint
from lab.training.micro_batches import settle_micro_batch

NOT_REPEATABLE = "; a repeated step differs in its last digits, because attention's backward pass does in bf16 on CUDA"


def choose_computing(run: Run, state: TrainingState) -> None:
    """Sets precision, compiling and the size of micro-batches as the settings say; "auto" is what was measured before
    on this device, or is now, by the first rank on its part of a batch.

    A new choice is stored in the checkpoint: a training that is killed at any moment goes on as chosen.
    """
    if state.progress.step >= state.config.steps:
        return
    is_new, progress = state.ranks.first(lambda: measure_computing(run, state))
    vars(state.progress).update(progress)
    if state.config.micro_batch_size == "auto":
        state.config = state.config.replace(micro_batch_size=state.progress.micro_batch_size)
    if is_new:
        save_checkpoint(run, state)


def measure_computing(run: Run, state: TrainingState) -> tuple[bool, dict]:
    """Chooses on this rank. Returns whether the choice is new, and the progress that holds it."""
    progress, device_type = state.progress, state.device.type
    resized, config = settle_micro_batch(run, state), state.config
    asked = f"{config.precision} {config.compile} {device_type}"
    kept = measured_before(state)
    settings = config.replace(**kept)
    chosen = (progress.precision, "on" if progress.compiled else "off")
    if resized or (settings.precision, settings.compile) != chosen or (progress.why and progress.chosen_for != asked):
        choice = unmeasured(state) if state.sharded else measured(run, state, settings, kept)
        progress.precision, progress.compiled, why = choice
        size = f"micro-batches of {config.at_once}, the most that fit; " if progress.micro_batch_size else ""
        ranks = f"{state.ranks.size} ranks{', sharded' * state.sharded}; " if state.ranks.launched else ""
        exact = "" if is_repeatable(state.device, progress.precision) else NOT_REPEATABLE
        progress.why = f"{device_type}, {ranks}{size}{why}{exact}"
        run.tell(progress.why)
    is_new, progress.chosen_for = resized or progress.chosen_for != asked, asked
    return is_new, asdict(progress)


def measured(run: Run, state: TrainingState, config: TrainConfig, kept: dict[str, str]) -> Choice:
    """What is fastest for this rank's part of a micro-batch. kept: what of config was chosen before."""
    run.tell("measuring how long a step takes" + ", in both precisions" * (config.precision == "auto"))
    with state.seeded(), explain_out_of_memory(run.model_config, state.config):
        windows, left = next(state.batch()), config.steps - state.progress.step
        return choose(state.learner, windows, config, kept, left)


def unmeasured(state: TrainingState) -> Choice:
    """What a model that is split over ranks computes in: no rank can run a step alone to measure it."""
    config = state.config
    auto = precisions(state.device)[-1] if state.device.type == "cuda" else "fp32"
    precision = auto if config.precision == "auto" else config.precision
    on = "on" if config.compile == "on" else "off"
    return Choice(precision, on == "on", f"{precision}, compile {on}; nothing is measured where a model is sharded")


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
