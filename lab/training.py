"""Training as a generator: every step is yielded, and everything else is ordinary code around the loop.

    run = Run.create("mine", *preset("llama-tiny"))
    for step in train(run):
        print(step.step, step.loss)

Batches and random numbers depend on (seed, step) alone. So the state of a training is its weights, its optimizer and
one number, and stopping anywhere leaves a run that `train(run)` takes up again to the same numbers, bit for bit.
"""

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from config import ModelConfig, RunError, TrainConfig
from lab.card import write_card
from lab.checks import check_trainable, room_for_sample
from lab.data import TokenData
from lab.device import autocast, check_compiler, choose, memory_in_use, pick_device
from lab.evaluation import evaluate
from lab.generation import generate_text
from lab.log import StepLog
from lab.optimizer import build_optimizer
from lab.runs import Run, code_version
from lab.schedule import learning_rate
from lab.watch import Watch
from lab.weights import check_shapes, read_tensors, write_tensors
from modules.dropout import set_dropout_share
from modules.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step left behind.

    step counts from 1; loss is the mean next-token loss of the batch in nats per token, before the update;
    gradient_norm is before clipping; seconds have been spent training so far, memory is in bytes. validation_loss and
    sample are there on the steps that made them; others are the further losses of architectures that have any.
    """

    step: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    memory: int
    validation_loss: float | None = None
    sample: str | None = None
    others: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Progress:
    """The part of a training's state that is not a tensor; what was chosen by measuring stays chosen on resuming."""

    step: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    precision: str = ""
    compiled: bool = False


def train(run: Run, data: TokenData | None = None, stopping: threading.Event | None = None) -> Iterator[Step]:
    """Trains `run` from where it is to its last step, yielding each; a finished run yields nothing.

    Leaving the loop, Ctrl-C and a notebook's stop button all end it after the current step with a checkpoint, and so
    does `stopping` when it is set; Ctrl-C sets it.
    Raises RunError where a loss or gradient stops being finite: the weights then still are the last good ones.
    """
    config = run.train_config
    data = data or run.load_data()
    run.check_data(data)
    check_trainable(run.model_config, config, data)
    device = pick_device(config.device)
    model = untrained(run.model_config, config, device)
    optimizer = build_optimizer(model, config)
    progress = load_checkpoint(run, model, optimizer)
    if progress.step >= config.steps:
        return
    if not progress.precision:
        with seeded(config.seed, 0, device):
            windows = next(micro_batches(data, config, 0, run.model_config.context_length, device))
            progress.precision, progress.compiled, why = choose(model, windows, config)
        print(f"{device.type}, {why}")
        save_checkpoint(run, model, optimizer, progress)  # killed at any moment, it can be resumed, as it was chosen
    losses_of = compiled(model.losses, device) if progress.compiled else model.losses
    log = StepLog(run.log_path, keep_steps=progress.step)
    watch = Watch(model, StepLog(run.watch_path, keep_steps=progress.step))
    with stop_after_step(stopping or threading.Event()) as stopping:
        try:
            while progress.step < config.steps and not stopping.is_set():
                watching = watch if watch_due(progress.step + 1, config) else None
                record = one_step(model, optimizer, losses_of, data, config, progress, device, watching)
                last = record.step == config.steps
                if last or record.step % config.evaluate_every == 0:
                    record = validated(record, model, data, run, progress)
                if config.sample_every and (last or record.step % config.sample_every == 0):
                    record = sampled(record, model, run)
                log.write(record)
                if record.step % config.checkpoint_every == 0:
                    save_checkpoint(run, model, optimizer, progress)
                yield record
        except GeneratorExit:  # the loop around us was left; any other exception may have left a step half done
            finish(run, model, optimizer, progress, data)
            raise
    finish(run, model, optimizer, progress, data)
    if progress.step < config.steps:
        print(f"stopped after step {progress.step} of {config.steps}; train(run) goes on from there", file=sys.stderr)


def one_step(
    model: Transformer, optimizer: torch.optim.Optimizer, losses_of, data: TokenData, config: TrainConfig,
    progress: Progress, device: torch.device, watch: Watch | None,
) -> Step:  # fmt: skip
    """Forward and backward over the micro-batches, clip, update; watched from within where there is a `watch`."""
    start, step = time.perf_counter(), progress.step
    rate = learning_rate(step, config)
    sums = gradients(model, losses_of, data, config, step, device, progress.precision, watch)
    if watch:
        watch.write(step + 1)
    norm = clip(model, config)
    if not all(map(math.isfinite, (norm, *sums.values()))):
        raise RunError(explain_non_finite(model, data, config, progress, device))
    descend(optimizer, rate)
    spent, tokens = time.perf_counter() - start, config.batch_size * model.config.context_length
    progress.step, progress.seconds = step + 1, progress.seconds + spent
    return Step(
        step=step + 1, tokens=(step + 1) * tokens, seconds=progress.seconds, loss=sums.pop("loss"), learning_rate=rate,
        gradient_norm=norm, tokens_per_second=tokens / spent, memory=memory_in_use(device), others=sums,
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


def validated(record: Step, model: Transformer, data: TokenData, run: Run, progress: Progress) -> Step:
    """The record with its validation loss; the weights are stored where it is the best so far."""
    loss = evaluate(model, data.validation, run.tokenizer, run.train_config.evaluation_tokens).loss
    if progress.best_loss is None or loss < progress.best_loss:
        progress.best_loss = loss
        store_weights(run, model, {"step": record.step, "validation_loss": loss})
    return replace(record, validation_loss=loss)


def sampled(record: Step, model: Transformer, run: Run) -> Step:
    return replace(record, sample=sample_text(model, run))


def sample_text(model: Transformer, run: Run) -> str:
    """The run's own prompt continued, always with the same seed, within the positions the model accepts."""
    config = run.train_config
    n_tokens = min(config.sample_tokens, room_for_sample(run.model_config, config, run.tokenizer))
    return generate_text(model, run.tokenizer, config.sample_prompt, max_tokens=n_tokens, seed=config.seed)


def finish(
    run: Run, model: Transformer, optimizer: torch.optim.Optimizer, progress: Progress, data: TokenData
) -> None:
    """Leaves the folder whole: checkpoint, weights (the present ones where nothing was validated yet), card."""
    save_checkpoint(run, model, optimizer, progress)
    if progress.best_loss is None:
        store_weights(run, model, {"step": progress.step})
    write_card(run, data, sample_text(model, run))


def store_weights(run: Run, model: Transformer, facts: dict) -> None:
    write_tensors(run.weights_path, dict(model.named_parameters()), facts | {"code": code_version()})


def save_checkpoint(run: Run, model: Transformer, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Weights, optimizer state and progress in one file, so that they can't disagree."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model/{name}": parameter for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"optimizer/{names[parameter]}/{key}": value for key, value in state.items()}
    write_tensors(run.checkpoint_path, tensors, {"progress": asdict(progress)})


def load_checkpoint(run: Run, model: Transformer, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts model and optimizer where the run stopped; a run that never was trained starts at step 0."""
    check_resumable(run)
    if not run.checkpoint_path.exists():
        return Progress()
    tensors, facts = read_tensors(run.checkpoint_path)
    device = next(model.parameters()).device
    stored = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    check_shapes({name: tuple(t.shape) for name, t in stored.items()}, run.model_config, run.checkpoint_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(stored[name])
            prefix = f"optimizer/{name}/"
            optimizer.state[parameter] = {
                key.removeprefix(prefix): value if key.endswith("/step") else value.to(device)
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
    return Progress(**json.loads(facts["progress"]))


def check_resumable(run: Run) -> None:
    """Raises RunError where there are weights, but nothing to go on from."""
    if run.weights_path.exists() and not run.checkpoint_path.exists():
        raise RunError(f"run {run.name!r} has no checkpoint (shipped runs have none); start a new one")


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on (seed, step) alone; the generators outside are as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed * 1_000_003 + step)
        yield


@contextmanager
def stop_after_step(stopping: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of breaking in on a step; a second one interrupts at once, as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield stopping  # signals reach the main thread alone
        return
    previous = signal.getsignal(signal.SIGINT)

    def request_stop(number, frame):
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    signal.signal(signal.SIGINT, request_stop)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, previous)


def compiled(losses, device: torch.device):
    """torch.compile of the losses alone: the model stays as it is, and so do the names of its weights."""
    check_compiler(device)
    return torch.compile(losses)


def explain_non_finite(
    model: Transformer, data: TokenData, config: TrainConfig, progress: Progress, device: torch.device
) -> str:
    """Which layer a non-finite number came from: the first whose output, or else whose gradient, has one."""
    found: list[str] = []

    def look(name: str):
        def hook(module, inputs, output):
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules() if name]
    try:
        with seeded(config.seed, progress.step + 1, device), torch.no_grad():
            for windows in micro_batches(data, config, progress.step, model.config.context_length, device):
                with autocast(device, progress.precision):
                    model.losses(windows)
    finally:
        for handle in handles:
            handle.remove()
    gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    where = f"the output of {found[0]}" if found else f"the gradient of {gradients[-1]}" if gradients else "the loss"
    return (
        f"step {progress.step + 1}: {where} is not finite. The run still holds its last good checkpoint "
        f"and weights, from step {progress.step} or before. Lower learning_rate, lengthen the warm-up, "
        "or set gradient_clip or precision='fp32'"
    )
