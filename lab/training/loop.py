"""Training as a generator: it yields every step, and everything else is ordinary code around the loop.

    run = Run.create("mine", *preset("llama-tiny"))
    for step in train(run):
        print(step.step, step.loss)

Stopping anywhere leaves a run that `train(run)` goes on with to the same numbers, bit for bit.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

from config import TrainConfig
from lab.compute.compiling import explain_compiler_failure
from lab.compute.device import memory_in_use
from lab.compute.readings import Readings
from lab.compute.schedule import learning_rate
from lab.compute.training_state import TrainingState
from lab.costs.fitting import explain_out_of_memory
from lab.data.packing import TokenData
from lab.data.shards import Stopped
from lab.files.atomic import remove_unfinished
from lab.runs.checks import check_trainable
from lab.runs.lock import hold
from lab.runs.run import Run
from lab.training.checkpoint import (
    check_current,
    check_resumable,
    check_resumption,
    load_checkpoint,
    save_checkpoint,
)
from lab.training.computing import choose_computing
from lab.training.diagnosis import check_finite
from lab.training.log import StepLog
from lab.training.step import Step
from lab.training.stopping import stop_after_step
from lab.training.storing import evaluate_on_validation, mfu_of, sample_text, store_if_best, store_run
from lab.training.watch import Watch
from settings.errors import RunError

# The files that a training writes into its run, beside the checkpoint
WRITTEN = (
    "log_data.csv", "watch_data.csv", "model.safetensors", "adapter.safetensors", "loss.png", "watch.png",
    "mixture.png", "README.md", "holder.json",
)


def train(run: Run, data: TokenData | None = None, stopping: threading.Event | None = None) -> Iterator[Step]:
    """Trains `run` from where it is to its last step, and yields each step. A finished run yields nothing.

    The training ends after the current step, with a checkpoint, when the loop is left, on Ctrl-C, on a notebook's stop
    button, and when `stopping` is set; Ctrl-C sets it. It does so on SIGTERM and SIGHUP too, which take their usual
    effect afterwards. If a run was killed while its end was written, the missing files are written.
    Only one process at a time can train a run. Raises RunError if another one does, if checkpoint, log or settings do
    not allow to go on, if memory runs out, and if a loss or gradient is not finite; the message says what the run
    still holds.
    """
    check_resumable(run)
    check_current(run)
    if run.is_finished():
        return
    with hold(run.folder), stop_after_step(stopping or threading.Event()) as stopping:
        remove_unfinished(run.folder, WRITTEN)
        remove_unfinished(run.checkpoint_path.parent, [run.checkpoint_path.name])
        check_resumption(run)
        state = open_state(run, data)
        state.data.train.listen(run.tell, stopping)
        try:
            yield from take_steps(run, state, stopping)
        finally:
            state.data.train.close()


def open_state(run: Run, data: TokenData | None) -> TrainingState:
    """The state in which the run's training starts or goes on. data: None reads the run's own."""
    run.tell("reading the data" if data is None else "building the model")
    data = data or run.load_data()
    run.check_data(data)
    teacher = run.base() if run.train_config.distil else None
    check_trainable(run.model_config, run.train_config, data, teacher)
    with explain_out_of_memory(run.model_config, run.train_config):
        teaching = teacher and teacher.load_model()
        state = TrainingState.start(run.model_config, run.train_config, data, teaching)
    if run.model_config.lora or (starts_from_weights(run) and not run.checkpoint_path.exists()):
        run.read_base(state.model)
    load_checkpoint(run, state)
    return state


def starts_from_weights(run: Run) -> bool:
    """Whether the training starts from the weights of another run."""
    return run.origin is not None and run.origin.how == "fine_tuned"


def take_steps(run: Run, state: TrainingState, stopping: threading.Event) -> Iterator[Step]:
    """Takes steps until the run's last one or until `stopping` is set, and then stores the run."""
    progress = state.progress
    log = StepLog(run.log_path, keep_steps=progress.step, every_step=True)
    watch = Watch(state.model, StepLog(run.watch_path, keep_steps=progress.step), state.learner)
    if not stopping.is_set():
        choose_computing(run, state)
    config = state.config
    if progress.compiled:
        state.compile_losses()
    if progress.step < config.steps and not stopping.is_set():
        run.tell(f"{'compiling and taking' if progress.compiled else 'taking'} step {progress.step + 1:,}")
    note, per_token = progress.why, mfu_of(state)
    while progress.step < config.steps and not stopping.is_set():
        watching = watch if watch_due(progress.step + 1, config) else None
        compiling = explain_compiler_failure(progress.step + 1) if progress.compiled else nullcontext()
        try:
            with explain_out_of_memory(run.model_config, config), compiling:
                record = replace(take_step(run, state, watching), note=note)
                used = per_token and per_token * record.tokens_per_second
                record = replace(record, mfu=used, **measure(run, state))
        except Stopped:  # while the step waited for its text; nothing of it was computed
            break
        log.write(record)
        store_if_best(run, state, record)
        if record.step % config.checkpoint_every == 0:
            save_checkpoint(run, state)
        note = None
        try:
            yield record
        except GeneratorExit:  # the loop around us was left
            keep_left_run(run, state)
            raise
    store_run(run, state)
    if progress.step < config.steps:
        run.tell(f"stopped after step {progress.step} of {config.steps}; train(run) goes on from there")


def take_step(run: Run, state: TrainingState, watch: Watch | None) -> Step:
    """Computes the gradients, clips them and updates the parameters. watch: measures this step, and writes it.

    A device that runs ahead gets the update and the next batch before its numbers are read, and so has work meanwhile.
    The step's time ends when its numbers are there; its update is in the time of the next step.
    """
    start, progress, config = time.perf_counter(), state.progress, state.config
    rate, step = learning_rate(progress.step, config), progress.step + 1
    losses = state.backward(state.batch(), watch and watch.losses)
    if watch:
        watch.write(step)
    readings = Readings(losses | {"gradient_norm": state.clip()})
    if state.runs_ahead:
        state.update(rate)
        if step < config.steps and state.data.is_there:
            state.prepare_batch()
    losses = readings.read()
    check_finite(run, state, losses, step)
    if not state.runs_ahead:
        state.update(rate)
    norm = losses.pop("gradient_norm")
    spent, tokens = time.perf_counter() - start, config.batch_size * state.model.config.context_length
    progress.seconds += spent
    return Step(
        step=step, tokens=step * tokens, seconds=progress.seconds, loss=losses.pop("loss"),
        learning_rate=rate, gradient_norm=norm, tokens_per_second=tokens / spent, memory=memory_in_use(state.device),
        others=losses, shares=state.data.shares(config, step - 1),
    )


def measure(run: Run, state: TrainingState) -> dict[str, object]:
    """The validation loss and the sample of the step just taken, where they are due."""
    step, config, found = state.progress.step, state.config, {}
    last = step == config.steps
    if last or step % config.evaluate_every == 0:
        found["validation_loss"] = evaluate_on_validation(run, state)
    if config.sample_every and (last or step % config.sample_every == 0):
        run.tell("writing a sample")
        found["sample"] = sample_text(state.model, run)
    return found


def keep_left_run(run: Run, state: TrainingState) -> None:
    """Stores the run after its loop was left. Raises RunError if that fails.

    If nobody closed the generator, Python can't raise the error there and prints it instead.
    """
    try:
        store_run(run, state)
    except RunError as error:
        raise RunError(f"{run.name} could not be kept as it was at step {state.progress.step}: {error}") from error


def watch_due(step: int, config: TrainConfig) -> bool:
    """Whether `step`, from 1 on, is watched: the first, whose gradients are the untrained model's, and every n-th."""
    return config.watch_every > 0 and (step == 1 or step % config.watch_every == 0)
