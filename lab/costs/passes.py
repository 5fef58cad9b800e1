"""Passes of a model that only its costs are read from: on the meta device, and on fake tensors."""

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from config import ModelConfig, TrainConfig
from lab.compute.device import autocast
from lab.compute.optimizer import build_optimizer
from lab.costs.alive import AliveBytes, Inside, fake_tensors
from lab.costs.parts import UPDATE
from modules.kernels import attention_by_pytorch
from modules.transformer import Transformer


def meta_model(config: ModelConfig) -> Transformer:
    with Inside().explaining(), torch.device("meta"):
        return Transformer(config)


def windows(train: TrainConfig, length: int) -> Iterator[Tensor]:
    """The first two micro-batches (B, T+1) of a step: any further ones are like the second."""
    whole = torch.zeros(train.batch_size, length + 1, dtype=torch.long)
    yield from whole.split(train.at_once)[:2]


def count_flops(config: ModelConfig, checkpointing: bool) -> tuple[int, int]:
    """FLOPs of the forward pass of one sequence, and of its training step. See `estimate` for what counts."""
    model, length, inside = meta_model(config), config.context_length, Inside()
    model.gradient_checkpointing = checkpointing
    inside.follow(model)
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = False  # the products of the formula are counted, and not those of one device's kernel
    with inside.explaining(), torch.device("meta"):
        with torch.no_grad(), FlopCounterMode(display=False) as forward:
            model.eval()(torch.zeros(1, length, dtype=torch.long))
        with FlopCounterMode(display=False) as training:
            losses = model.train().losses(torch.zeros(1, length + 1, dtype=torch.long))
            model.objective(losses).backward()
    return forward.get_total_flops(), training.get_total_flops()


def count_update(config: ModelConfig, train: TrainConfig) -> int:
    """FLOPs of an update: of Muon's products, since AdamW has none."""
    model = meta_model(config)
    optimizer = build_optimizer(model, train)
    with torch.device("meta"), FlopCounterMode(display=False) as update:
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return update.get_total_flops()


def tensors_of(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def run_step(config: ModelConfig, train: TrainConfig, precision: str, kernels: str) -> AliveBytes:
    """One training step with the optimizer's state in place. kernels: see `step_bytes`."""
    device, attention = ("cpu", attention_by_pytorch()) if kernels == "near-cuda" else (kernels, nullcontext())
    with fake_tensors(device) as alive, attention:
        model = Transformer(config).train()
        model.gradient_checkpointing = train.gradient_checkpointing
        alive.name(tensors_of(model), "weights")
        optimizer = build_optimizer(model, train)
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        alive.name((t for state in optimizer.state.values() for t in state.values()), "optimizer")
        alive.follow(model)
        alive.forget_moments()
        for part in windows(train, config.context_length):
            alive.phase = "forward"
            with autocast(torch.device(device), precision):
                losses = model.losses(part)
            objective = model.objective(losses) / train.accumulation
            alive.phase = "backward"
            objective.backward()
        alive.phase = UPDATE
        limit = math.inf if train.gradient_clip is None else train.gradient_clip
        nn.utils.clip_grad_norm_(model.parameters(), limit)
        with autocast(torch.device(device), precision):
            optimizer.step()
    return alive


def run_decoding(config: ModelConfig, batch: int, length: int) -> AliveBytes:
    """The step that fills a cache of `length` tokens for each of `batch` sequences."""
    with fake_tensors("cpu") as alive:
        model = Transformer(config).eval()
        alive.name(tensors_of(model), "weights")
        cache = model.new_cache(batch, length)
        cache.lengths = [length - 1] * batch
        alive.name((t for layer in cache.layers for t in (layer.keys, layer.values)), "cache")
        alive.follow(model)
        alive.phase = "a step"
        alive.forget_moments()
        with torch.no_grad():
            model(torch.zeros(batch, 1, dtype=torch.long), cache)
    return alive
