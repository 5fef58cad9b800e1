"""Training as a generator: every step is yielded, and everything else is ordinary code around the loop.

    run = Run.create("mine", *preset("llama-tiny"))
    for step in train(run):
        print(step.step, step.loss)

Batches and random numbers depend on (seed, step) alone. So the state of a training is its weights, its optimizer and
one number, and stopping anywhere leaves a run that `train(run)` takes up again to the same numbers, bit for bit.
"""

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config import ModelConfig, TrainConfig
from lab.compute.device import (
    autocast,
    choose,
    compiler_problem,
    cuda_in_use,
    explaining_memory,
    memory_in_use,
    pick_device,
)
from lab.compute.optimizer import build_optimizer
from lab.compute.schedule import learning_rate
from lab.data.packing import TokenData
from lab.evaluation.evaluate import evaluate
from lab.files.atomic import remove_unfinished
from lab.generation.generate import generate_text
from lab.runs.checks import check_trainable, room_for_sample
from lab.runs.lock import hold
from lab.runs.run import Run, code_version
from lab.runs.weights import write_tensors
from lab.training.card import write_card
from lab.training.checkpoint import (
    Progress,
    check_current,
    check_resumable,
    check_resumption,
    kept,
    load_checkpoint,
    save_checkpoint,
)
from lab.training.log import StepLog
from lab.training.step import Step
from lab.training.stopping import stop_after_step
from lab.training.watch import Watch
from modules.dropout import set_dropout_share
from modules.transformer import Transformer
from settings.errors import RunError

# What a training writes into its run, beside the checkpoint
WRITTEN = ("log_data.csv", "watch_data.csv", "model.safetensors", "loss.png", "watch.png", "README.md", "holder.json")


@dataclass(kw_only=True)
class TrainingState:
    """A training between two steps: the run it belongs to, what it reads, and all that a step changes."""

    run: Run
    data: TokenData
    model: Transformer
    optimizer: torch.optim.Optimizer
    progress: Progress

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def train(run: Run, data: TokenData | None = None, stopping: threading.Event | None = None) -> Iterator[Step]:
    """Trains `run` from where it is to its last step, yielding each; a finished run yields nothing.

    Leaving the loop, Ctrl-C and a notebook's stop button all end it after the current step with a checkpoint, and so
    does `stopping` when it is set; Ctrl-C sets it. SIGTERM and SIGHUP do so too, and take their effect afterwards. A
    run that was killed while its end was written gets what is missing.
    One process holds the run meanwhile. Raises RunError where another one does, where checkpoint, log or settings keep
    it from going on, where memory runs out, and where a loss or gradient stops being finite: the message says what the
    run then still holds.
    """
    check_resumable(run)
    check_current(run)
    if run.is_finished():
        return
    config = run.train_config
    with hold(run.folder), stop_after_step(stopping or threading.Event()) as stopping:
        remove_unfinished(run.folder, WRITTEN)
        remove_unfinished(run.checkpoint_path.parent, [run.checkpoint_path.name])
        check_resumption(run)
        run.tell("reading the data" if data is None else "building the model")
        data = data or run.load_data()
        run.check_data(data)
        check_trainable(run.model_config, config, data)
        with explaining_memory(config):
            model = untrained(run.model_config, config, pick_device(config.device))
        optimizer = build_optimizer(model, config)
        progress = load_checkpoint(run, model, optimizer)
        state = TrainingState(run=run, data=data, model=model, optimizer=optimizer, progress=progress)
        yield from steps(state, stopping)


def steps(state: TrainingState, stopping: threading.Event) -> Iterator[Step]:
    """The steps from where the state is to the run's last one, or until `stopping` is set, and then its end."""
    run, progress, config = state.run, state.progress, state.run.train_config
    log = StepLog(run.log_path, keep_steps=progress.step, every_step=True)
    watch = Watch(state.model, StepLog(run.watch_path, keep_steps=progress.step))
    try:
        if not stopping.is_set():
            choose_computing(state)
        losses_of = torch.compile(state.model.losses) if progress.compiled else state.model.losses
        if progress.step < config.steps and not stopping.is_set():
            run.tell(f"{'compiling and taking' if progress.compiled else 'taking'} step {progress.step + 1:,}")
        while progress.step < config.steps and not stopping.is_set():
            watching = watch if watch_due(progress.step + 1, config) else None
            with explaining_memory(config), explaining_compiler(progress):
                record = one_step(state, losses_of, watching)
                last = record.step == config.steps
                if last or record.step % config.evaluate_every == 0:
                    record = replace(record, validation_loss=validation_loss(state))
                if config.sample_every and (last or record.step % config.sample_every == 0):
                    record = replace(record, sample=sample_text(state.model, run))
            log.write(record)
            keep_best(state, record)
            if record.step % config.checkpoint_every == 0:
                save_checkpoint(run, state.model, state.optimizer, progress)
            yield record
    except GeneratorExit:  # the loop around us was left; any other exception may have left a step half done
        try:
            finish(state)
        except RunError as error:  # where nobody closes the generator by name, Python passes no exception on
            print(f"{run.name} could not be kept as it was at step {progress.step}: {error}", file=sys.stderr)
            raise
        raise
    finish(state)
    if progress.step < config.steps:
        print(f"stopped after step {progress.step} of {config.steps}; train(run) goes on from there", file=sys.stderr)


def choose_computing(state: TrainingState) -> None:
    """Sets precision and compiling: as the settings say, and where they say "auto", as was measured here or is now."""
    run, progress, config, device = state.run, state.progress, state.run.train_config, state.device
    asked = f"{config.precision} {config.compile} {device.type}"
    if progress.step >= config.steps:
        return
    precision, compiling = config.precision, config.compile
    before = (progress.chosen_for or f"auto auto {device.type}").split()
    if progress.precision and before[-1] == device.type:  # what "auto" has measured on this device stays
        if precision == before[0] == "auto":
            precision = progress.precision
        if compiling == before[1] == "auto" and (config.dropout_final == 1 or not progress.compiled):
            works = not progress.compiled or not compiler_problem(device.type)
            compiling = ("on" if progress.compiled else "off") if works else "auto"
    if (precision, compiling) != (progress.precision, "on" if progress.compiled else "off"):
        run.tell("measuring how long a step takes" + ", in both precisions" * (precision == "auto"))
        with seeded(config.seed, 0, device), explaining_memory(config):
            windows = next(micro_batches(state.data, config, 0, run.model_config.context_length, device))
            settings = config.replace(precision=precision, compile=compiling)
            progress.precision, progress.compiled, why = choose(state.model, windows, settings)
        progress.why = f"{device.type}, {why}"
        run.tell(progress.why)
    if progress.chosen_for != asked:
        progress.chosen_for = asked
        save_checkpoint(run, state.model, state.optimizer, progress)  # killed at any moment, it goes on as chosen


def one_step(state: TrainingState, losses_of, watch: Watch | None) -> Step:
    """Forward and backward over the micro-batches, clip, update; watched from within where there is a `watch`."""
    start, model, progress, config = time.perf_counter(), state.model, state.progress, state.run.train_config
    step = progress.step
    rate = learning_rate(step, config)
    sums = gradients(model, losses_of, state.data, config, step, state.device, progress.precision, watch)
    if watch:
        watch.write(step + 1)
    norm = clip(model, config)
    if not all(map(math.isfinite, (norm, *sums.values()))):
        raise RunError(explain_non_finite(state))
    descend(state.optimizer, rate)
    spent, tokens = time.perf_counter() - start, config.batch_size * model.config.context_length
    progress.step, progress.seconds = step + 1, progress.seconds + spent
    return Step(
        step=step + 1, tokens=(step + 1) * tokens, seconds=progress.seconds, loss=sums.pop("loss"), learning_rate=rate,
        gradient_norm=norm, tokens_per_second=tokens / spent, memory=memory_in_use(state.device), others=sums,
    )  # fmt: skip


def untrained(model_config: ModelConfig, config: TrainConfig, device: torch.device) -> Transformer:
    """The model as training starts with it."""
    with seeded(config.seed, 0, device):
        model = Transformer(model_config)
    model = model.to(device).train()
    model.gradient_checkpointing = config.gradient_checkpointing
    return model


def gradients(
    model: Transformer, losses_of, data: TokenData, config: TrainConfig, step: int, device: torch.device,
    precision: str, watch: Watch | None = None,
) -> dict[str, float]:  # fmt: skip
    """Forward and backward over the micro-batches of `step`, counted from 0; returns their mean losses."""
    set_dropout_share(model, 1 + (config.dropout_final - 1) * step / max(1, config.steps - 1))
    sums: dict[str, float] = {}
    with seeded(config.seed, step + 1, device):
        for windows in micro_batches(data, config, step, model.config.context_length, device):
            with autocast(device, precision):
                losses = watch.losses(windows) if watch and not sums else losses_of(windows)
            (model.objective(losses) / config.accumulation).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / config.accumulation
    return sums


def clip(model: Transformer, config: TrainConfig) -> float:
    """Scales the gradients down to the config's largest norm; returns the norm before."""
    limit = config.gradient_clip if config.gradient_clip is not None else math.inf
    return torch.nn.utils.clip_grad_norm_(model.parameters(), limit).item()


def descend(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """One update at this rate; the gradients are gone afterwards."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def watch_due(step: int, config: TrainConfig) -> bool:
    """Whether `step`, from 1 on, is watched: the first, whose gradients are the untrained model's, and every n-th."""
    return config.watch_every > 0 and (step == 1 or step % config.watch_every == 0)


def micro_batches(
    data: TokenData, config: TrainConfig, step: int, length: int, device: torch.device
) -> Iterator[Tensor]:
    """The windows (B, T+1) of one optimizer step, as many at a time as pass through the model at once."""
    windows = torch.from_numpy(data.train.batch(config.seed, step, config.batch_size, length))
    for part in windows.split(config.micro_batch_size or config.batch_size):
        yield part.to(device, non_blocking=True)


def keep_best(state: TrainingState, record: Step) -> None:
    """Stores the weights where the record's validation loss is the best so far; after its row, so that the log never
    ends before the weights."""
    loss, progress = record.validation_loss, state.progress
    if loss is not None and (progress.best_loss is None or loss < progress.best_loss):
        progress.best_loss = loss
        store_weights(state.run, state.model, {"step": record.step, "validation_loss": loss})


def validation_loss(state: TrainingState) -> float:
    """Nats per token on the run's held-out tokens. Raises RunError where it is not finite."""
    config, step = state.run.train_config, state.progress.step
    state.run.tell("validating on held-out tokens")
    loss = evaluate(state.model, state.data.validation, state.run.tokenizer, config.evaluation_tokens).loss
    if not math.isfinite(loss):
        raise RunError(
            f"step {step}: the validation loss is {loss}, though the training losses up to here were finite. "
            f"{kept(state.run)}. {advice(state)}"
        )
    return loss


def sample_text(model: Transformer, run: Run) -> str:
    """The run's own prompt continued, always with the same seed, within the positions the model accepts."""
    config = run.train_config
    run.tell("writing a sample")
    n_tokens = min(config.sample_tokens, room_for_sample(run.model_config, config, run.tokenizer))
    return generate_text(model, run.tokenizer, config.sample_prompt, max_tokens=n_tokens, seed=config.seed)


def finish(state: TrainingState) -> None:
    """Leaves the folder whole: checkpoint, weights (the present ones where there are none yet), card.

    Killed in between, it can be done again. The card comes last: it says at which step the rest is.
    """
    run, progress = state.run, state.progress
    run.tell("storing the run")
    save_checkpoint(run, state.model, state.optimizer, progress)
    if progress.step == 0:
        return
    if not run.weights_path.exists():
        unvalidated = progress.best_loss is None
        loss = {} if unvalidated else {"validation_loss": validation_loss(state)}
        store_weights(run, state.model, {"step": progress.step} | loss)
    elif progress.best_loss is None:
        store_weights(run, state.model, {"step": progress.step})
    write_card(run, state.data, sample_text(state.model, run), progress.why)


def store_weights(run: Run, model: Transformer, facts: dict) -> None:
    write_tensors(run.weights_path, dict(model.named_parameters()), facts | {"code": code_version()})


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on (seed, step) alone; the generators outside are as before afterwards."""
    if device.type == "cuda":
        torch.cuda.init()
    with torch.random.fork_rng(cuda_in_use()):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


@contextmanager
def explaining_compiler(progress: Progress) -> Iterator[None]:
    """What the compiler can't do with this model is told, with the way on."""
    if not progress.compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # takes 1.6 s, and is there where something is compiled

    try:
        yield
    except TorchDynamoException as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RunError(
            f"step {progress.step + 1}: this model can't be compiled here: {reason}. Set compile to 'off' in the run's "
            "train_config.json and resume"
        ) from error


def explain_non_finite(state: TrainingState) -> str:
    """Which layer a non-finite number came from: the first whose output, or else whose gradient, has one."""
    model, config, progress, found = state.model, state.run.train_config, state.progress, []

    def look(name: str):
        def hook(module, inputs, output):
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with seeded(config.seed, progress.step + 1, state.device), torch.no_grad():
            for windows in micro_batches(state.data, config, progress.step, model.config.context_length, state.device):
                with autocast(state.device, progress.precision):
                    model.losses(windows)
    finally:
        for handle in handles:
            handle.remove()
    gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    where = f"the output of {found[0]}" if found else f"the gradient of {gradients[-1]}" if gradients else "the loss"
    return f"step {progress.step + 1}: {where} is not finite. {kept(state.run)}. {advice(state)}"


def advice(state: TrainingState) -> str:
    """What to change against numbers that are not finite, in a file whose changes are obeyed."""
    config = state.run.train_config
    clip = "set gradient_clip" if config.gradient_clip is None else f"set gradient_clip below {config.gradient_clip:g}"
    fp32 = ", or set precision to 'fp32'" if state.progress.precision == "bf16" else ""
    return (
        f"In its train_config.json lower learning_rate (now {config.learning_rate:g}), lengthen the warm-up, or "
        f"{clip}{fp32}; then resume"
    )
