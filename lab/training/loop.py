"""Training as a generator: it yields every step, and everything else is ordinary code around the loop.

    run = Run.create("mine", *preset("llama-tiny"))
    for step in train(run):
        print(step.step, step.loss)

Stopping anywhere leaves a run that `train(run)` goes on with to the same numbers, bit for bit.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Literal

from config import TrainConfig
from lab.compute.allocator import freed_memory_kept
from lab.compute.compiling import explain_compiler_failure
from lab.compute.device import memory_in_use
from lab.compute.ranks import join_ranks
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
from lab.runs.settings import settings_by_name
from lab.training.checkpoint import (
    check_current,
    check_resumable,
    check_resumption,
    load_checkpoint,
    save_checkpoint,
)
from lab.training.computing import choose_computing
from lab.training.diagnosis import check_finite
from lab.training.launch import machine_facts
from lab.training.log import StepLog
from lab.training.step import Step
from lab.training.stopping import stop_after_step
from lab.training.storing import evaluate_on_validation, mfu_of, sample_of, store_if_best, store_run
from lab.training.watch import Watch
from settings.errors import RunError

# The files that a training writes into its run, beside the checkpoint
WRITTEN = (
    "log_data.csv", "watch_data.csv", "model.safetensors", "adapter.safetensors", "loss.png", "watch.png",
    "mixture.png", "README.md", "holder.json",
)


def train(
    run: Run, data: TokenData | None = None, stopping: threading.Event | None = None,
    sharding: Literal["none", "full"] = "none",
) -> Iterator[Step]:
    """Trains `run` from where it is to its last step, and yields each step. A finished run yields nothing.

    The training ends after the current step, with a checkpoint, when the loop is left, on Ctrl-C, on a notebook's stop
    button, and when `stopping` is set; Ctrl-C sets it. It does so on SIGTERM and SIGHUP too, which take their usual
    effect afterwards. If a run was killed while its end was written, the missing files are written.
    Only one process at a time can train a run. Raises RunError if another one does, if checkpoint, log or settings do
    not allow to go on, if memory runs out, and if a loss or gradient is not finite; the message says what the run
    still holds.

    In each of several processes that torchrun started it trains the run together with the others, each on an equal part
    of each micro-batch. sharding: "full" splits parameters, gradients and the optimizer's state over them, too. The run
    folder must be visible to all. A signal at one of them stops all after the same step; torchrun passes on SIGTERM and
    kills what still runs after 30 seconds, so a step and the storing must fit into that time. One rank raises what is
    wrong, and the others raise ToldByAnotherRank.
    """
    with join_ranks(sharding == "full") as ranks, freed_memory_kept():
        ranks.attempt(lambda: check_resumable(run))
        ranks.attempt(lambda: check_current(run))
        if all(ranks.exchange(run.is_finished())):
            return
        with stop_after_step(stopping or threading.Event()) as stopping, ExitStack() as held:
            ranks.first(lambda: take_over(run, held))
            if ranks.size > 1 and data is None:
                data = ranks.in_turn(run.load_data)
            state = ranks.attempt(lambda: open_state(run, data))
            check_same_training(run, state)
            state.data.train.listen(run.tell, stopping if ranks.size == 1 else threading.Event())
            with ranks.explaining():
                try:
                    yield from take_steps(run, state, stopping)
                finally:
                    state.data.train.close()
                ranks.exchange("stored")


def take_over(run: Run, held: ExitStack) -> None:
    """Holds the run until `held` is closed, and removes what a killed process left. Raises RunError if another process
    trains it, or if it can't go on."""
    held.enter_context(hold(run.folder))
    remove_unfinished(run.folder, WRITTEN)
    remove_unfinished(run.checkpoint_path.parent, [run.checkpoint_path.name])
    check_resumption(run)


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


def check_same_training(run: Run, state: TrainingState) -> None:
    """Raises ConfigError unless all ranks train the same."""
    ranks, data = state.ranks, state.data
    if ranks.size > 1:
        texts = [data.train.fingerprint, data.validation.fingerprint, data.tokenizer.fingerprint]
        settings = settings_by_name(run.model_config, run.train_config)
        facts = machine_facts(ranks) | {"data": texts}
        ranks.check_same(facts | {name: str(value) for name, value in settings.items()})


def starts_from_weights(run: Run) -> bool:
    """Whether the training starts from the weights of another run."""
    return run.origin is not None and run.origin.how == "fine_tuned"


def take_steps(run: Run, state: TrainingState, stopping: threading.Event) -> Iterator[Step]:
    """Takes steps until the run's last one or until `stopping` is set on any rank, and then stores the run."""
    progress, ranks = state.progress, state.ranks
    log = StepLog(run.log_path, keep_steps=progress.step, every_step=True) if ranks.is_first else None
    watched = StepLog(run.watch_path, keep_steps=progress.step) if ranks.is_first else None
    watch = Watch(state.model, watched, state.learner)
    stop = any(ranks.exchange(stopping.is_set()))
    if not stop:
        choose_computing(run, state)
    config = state.config
    if progress.compiled:
        state.compile_losses()
    state.connect()
    stop = any(ranks.exchange(stopping.is_set()))
    if progress.step < config.steps and not stop:
        run.tell(f"{'compiling and taking' if progress.compiled else 'taking'} step {progress.step + 1:,}")
    note, per_token = progress.why, mfu_of(state)
    while progress.step < config.steps and not stop:
        watching = watch if watch_due(progress.step + 1, config) else None
        compiling = explain_compiler_failure(progress.step + 1) if progress.compiled else nullcontext()
        try:
            with explain_out_of_memory(run.model_config, config), compiling:
                record, stop = take_step(run, state, watching, stopping)
                used = per_token and per_token * record.tokens_per_second
                record = replace(record, note=note, mfu=used, **measure(run, state))
        except Stopped:  # while the step waited for its text; nothing of it was computed
            break
        if log:
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
        stop = stop or (ranks.size == 1 and stopping.is_set())  # several ranks tell each other in the next step
    store_run(run, state)
    if progress.step < config.steps:
        run.tell(f"stopped after step {progress.step} of {config.steps}; train(run) goes on from there")


def take_step(
    run: Run, state: TrainingState, watch: Watch | None, stopping: threading.Event
) -> tuple[Step, bool]:
    """Computes the gradients, clips them and updates the parameters. Returns the record, and whether any rank wishes to
    stop. watch: measures this step, and writes it.

    A device that runs ahead gets the update and the next batch before its numbers are read, and so has work meanwhile.
    The step's time ends when its numbers are there; its update is in the time of the next step.
    """
    start, progress, config = time.perf_counter(), state.progress, state.config
    rate, step = learning_rate(progress.step, config), progress.step + 1
    state.ranks.begin_step(step)
    losses = state.backward(state.batch(), watch and watch.losses)
    if watch:
        watch.write(step)
    norm = state.clip()
    wish = {"stop": norm.new_full((), float(stopping.is_set()))} if state.ranks.size > 1 else {}
    readings = Readings(losses | {"gradient_norm": norm} | wish, state.ranks)
    if state.runs_ahead:
        state.update(rate)
        if step < config.steps and state.data.is_there:
            state.prepare_batch()
    check_finite(run, state, readings.by_rank(), step)
    losses = readings.read()
    if not state.runs_ahead:
        state.update(rate)
    norm, stop = losses.pop("gradient_norm"), losses.pop("stop", 0.0) > 0
    spent, tokens = time.perf_counter() - start, config.batch_size * state.model.config.context_length
    progress.seconds += spent
    return Step(
        step=step, tokens=step * tokens, seconds=progress.seconds, loss=losses.pop("loss"),
        learning_rate=rate, gradient_norm=norm, tokens_per_second=tokens / spent, memory=memory_in_use(state.device),
        others=losses, shares=state.data.shares(config, step - 1),
    ), stop


def measure(run: Run, state: TrainingState) -> dict[str, object]:
    """The validation loss and the sample of the step just taken, where they are due."""
    step, config, found = state.progress.step, state.config, {}
    last = step == config.steps
    if last or step % config.evaluate_every == 0:
        found["validation_loss"] = evaluate_on_validation(run, state)
    if config.sample_every and (last or step % config.sample_every == 0):
        found["sample"] = sample_of(run, state)
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
