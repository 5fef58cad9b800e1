"""The state of a training between two steps, and the parts of a step. It knows no run.

    state = TrainingState.start(model_config, config, data)
    losses = state.backward(state.batch())
    norm = state.clip()
    state.update(rate)

None of them waits for the device: losses and norm are tensors there, and `Readings` reads them.
Batches and random numbers depend on (seed, step) alone. So a training is determined by its settings, its weights, its
optimizer and its progress.

Several ranks (lab/compute/ranks.py) take an equal part of each micro-batch. Their gradients are averaged in the last
micro-batch's backward pass: by DistributedDataParallel (Li et al. 2020, arXiv 2006.15704), or by FSDP2 where parameters
are split, too (lab/compute/sharding.py). So the losses are those of one process, but for the order of additions.
"""

import inspect
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from config import ModelConfig, TrainConfig
from lab.compute.compiling import LossesOf, compile_losses
from lab.compute.device import autocast, matmul_precision, pick_device, repeatable, seeded, unmeasured_precision
from lab.compute.optimizer import build_optimizer, update
from lab.compute.ranks import Ranks, current_ranks
from lab.compute.sharding import average_single_numbers, clip_gradients, shard, split_again
from lab.data.packing import TokenData
from modules.distillation import Distillation
from modules.dropout import Dropout, set_dropout_share
from modules.foresight import set_rows_share
from modules.transformer import Transformer
from settings.errors import ConfigError


@dataclass(kw_only=True)
class Progress:
    """How far a training is, and how it computes. What was chosen by measuring stays chosen after a stop.

    step: how many steps are done. precision: "" until it is chosen. chosen_for: the precision, compile and device that
    the settings asked for at that time. why: the choice in words. micro_batch_size: what was found for "auto"; 0 where
    the settings say it. Checkpoints of earlier versions lack the last three.
    """

    step: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    precision: str = ""
    compiled: bool = False
    chosen_for: str = ""
    why: str = ""
    micro_batch_size: int = 0


@dataclass(kw_only=True)
class TrainingState:
    """Everything that a training step reads and changes.

    model: what is evaluated and stored in the end. learner: what is trained; the model itself, or a `Distillation` that
    holds the model and more. It has `losses` and `objective`, and its parameters are those of the optimizer.
    ranks: who trains it together.
    """

    model: Transformer
    learner: nn.Module | None = None  # None: the model.
    optimizer: torch.optim.Optimizer
    data: TokenData
    config: TrainConfig
    progress: Progress = field(default_factory=Progress)
    ranks: Ranks = field(default_factory=current_ranks)
    losses_of: LossesOf = field(init=False)  # learner.losses, or compiled
    replica: nn.Module | None = field(init=False, default=None)  # averages the gradients of whole parameters
    prepared: tuple[tuple[int, int], Tensor] | None = field(init=False, default=None)  # windows, sent ahead

    def __post_init__(self):
        self.learner = self.model if self.learner is None else self.learner
        self.losses_of = self.learner.losses

    @classmethod
    def start(
        cls, model_config: ModelConfig, config: TrainConfig, data: TokenData, teacher: Transformer | None = None
    ) -> "TrainingState":
        """The state before the first step, on the device of the settings. teacher: of a distillation."""
        model = build_model(model_config, config, pick_device(config.device))
        return cls.of_model(model, config, data, teacher)

    @classmethod
    def of_model(
        cls, model: Transformer, config: TrainConfig, data: TokenData, teacher: Transformer | None = None
    ) -> "TrainingState":
        """The state before the first step of training this model."""
        learner, ranks = build_learner(model, config, teacher), current_ranks()
        if ranks.sharded:
            shard(learner, model, ranks.size)
        return cls(model=model, learner=learner, optimizer=build_optimizer(learner, config), data=data, config=config)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def runs_ahead(self) -> bool:
        """Whether the device works by itself while Python goes on, so that work should be given to it early."""
        return self.device.type == "cuda"

    @property
    def sharded(self) -> bool:
        """Whether the parameters are split over the ranks."""
        return self.ranks.sharded

    @property
    def precision(self) -> str:
        """The one chosen, else the one set, else fp32, or TF32 on CUDA."""
        if self.progress.precision:
            return self.progress.precision
        return unmeasured_precision(self.device) if self.config.precision == "auto" else self.config.precision

    def compile_losses(self) -> None:
        """From now on `backward` runs the compiled model."""
        at_once = self.config.accumulation == 1 and not self.ranks.launched
        self.losses_of = compile_losses(self.learner.losses, self.device, at_once)

    def let_go(self) -> None:
        """After a pass without gradients: parameters that are split are not whole any more."""
        if self.sharded:
            split_again(self.model)

    def connect(self) -> None:
        """From now on `backward` averages the gradients over the ranks. Every rank must call it, before the first."""
        set_rows_share(self.model, self.ranks.rank, self.ranks.size)
        if self.ranks.size > 1 and not self.sharded:
            unused = 0.0 in self.learner.loss_weights.values()  # parameters that only such a loss reads
            replicate = nn.parallel.DistributedDataParallel
            named = inspect.signature(replicate).parameters  # torch 2.13 has a new name for it
            sync = "forward_sync_buffers" if "forward_sync_buffers" in named else "broadcast_buffers"
            settings = {sync: False, "find_unused_parameters": unused, "gradient_as_bucket_view": True}
            self.replica = replicate(Losses(self.learner), **settings)

    def batch(self) -> Iterator[Tensor]:
        """The windows (B, T+1) of the next step, as many at a time as pass through the model at once; this rank's."""
        self.prepare_batch()
        yield from self.prepared[1].split(self.config.at_once // self.ranks.size)

    def prepare_batch(self) -> None:
        """Sends the windows of the next step to the device, unless they are there. Waits for no copy to end."""
        which = step, _ = self.progress.step, self.config.at_once
        if self.prepared is None or self.prepared[0] != which:
            windows = torch.from_numpy(self.data.batch(self.config, step, self.model.config.context_length))
            windows = windows.unflatten(0, (self.config.accumulation, self.ranks.size, -1))[:, self.ranks.rank]
            windows = windows.flatten(0, 1)
            if self.device.type == "cuda":
                windows = windows.pin_memory()  # only from such memory does a copy run beside other work
            self.prepared = which, windows.to(self.device, non_blocking=True)

    def seeded(self):
        """A context: random numbers inside are those of the next step. With dropout each rank has its own."""
        seed = self.config.seed
        if self.ranks.rank and any(isinstance(module, Dropout) and module.rate for module in self.learner.modules()):
            seed += 1_000_000 * self.ranks.rank
        return seeded(seed, self.progress.step + 1, self.device)

    def averaging(self, last: bool) -> AbstractContextManager:
        """The context for both passes of a micro-batch: only the last one's gradients travel between the ranks."""
        if self.sharded:
            self.learner.set_requires_gradient_sync(last)
            self.learner.set_is_last_backward(last)
        return nullcontext() if last or self.replica is None else self.replica.no_sync()

    def backward(self, batch: Iterable[Tensor], first: LossesOf | None = None) -> dict[str, Tensor]:
        """Adds the gradients of a batch, given in parts (B, T+1); returns the mean of each named loss, on the device.

        The losses are those of this rank's part, the gradients those of all. first: computes the losses of the first
        part instead of `losses_of`.
        """
        config, device = self.config, self.device
        if config.dropout_final != 1:
            done = min(1.0, self.progress.step / max(1, config.steps - 1))  # a test of rates may take more steps
            set_dropout_share(self.model, 1 + (config.dropout_final - 1) * done)
        sums: dict[str, Tensor] = {}
        with self.seeded(), matmul_precision(device, self.precision), repeatable(device, self.precision):
            for part, windows in enumerate(batch, 1):
                compute = first if first and part == 1 else self.losses_of
                with self.averaging(last=part == config.accumulation):
                    with autocast(device, self.precision):
                        losses = self.replica(windows, compute) if self.replica else compute(windows)
                    (self.learner.objective(losses) / config.accumulation).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + loss.detach().float() / config.accumulation
        if self.sharded:
            average_single_numbers(self.learner, self.ranks.size)
        return sums

    def clip(self) -> Tensor:
        """Scales the gradients down to the largest norm that the settings allow; returns the norm before, on the
        device."""
        limit = self.config.gradient_clip if self.config.gradient_clip is not None else math.inf
        return clip_gradients(self.learner.parameters(), limit)

    def update(self, rate: float) -> None:
        """One update of the parameters at this learning rate. Deletes the gradients and counts the step."""
        with autocast(self.device, self.precision), matmul_precision(self.device, self.precision):
            update(self.optimizer, rate)
        self.progress.step += 1


class Losses(nn.Module):
    """The losses of a learner as a module's forward pass, as DistributedDataParallel takes it."""

    def __init__(self, learner: nn.Module):
        super().__init__()
        self.learner = learner

    def forward(self, windows: Tensor, compute: LossesOf) -> dict[str, Tensor]:
        return compute(windows)


def build_model(model_config: ModelConfig, config: TrainConfig, device: torch.device) -> Transformer:
    """The model with the initial weights of the seed, ready to train."""
    with seeded(config.seed, 0, device):
        model = Transformer(model_config)
    model = model.to(device).train()
    model.gradient_checkpointing = config.gradient_checkpointing
    return model


def build_learner(model: Transformer, config: TrainConfig, teacher: Transformer | None) -> nn.Module:
    """The model itself, or with `distil` in the settings its distillation, whose stitches depend on the seed alone."""
    if config.distil is None:
        return model
    if teacher is None:
        raise ConfigError(f"these settings distil {config.distil.teacher!r}: give that model as teacher")
    device = next(model.parameters()).device
    with seeded(config.seed, 0, device):
        learner = Distillation(model, teacher.to(device), config.distil)
    return learner.to(device)
