"""Training a classifier: a generator that yields every step.

    task = load_task("prose-or-code")
    classifier = build_classifier(run, task, ClassifierConfig(full=True))
    for step in train_classifier(classifier, task):
        print(step.step, step.loss)
    print(measure_classifier(classifier, task))
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from config import TrainConfig
from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.labelled import LabelledTask, LabelledText
from lab.adapting.text_classifier import TextClassifier, pad
from lab.compute.device import remedy_for_memory, seeded
from lab.compute.optimizer import build_optimizer, update
from lab.compute.schedule import learning_rate
from settings.errors import ConfigError, RunError

REMEDY = "set a smaller batch_size or max_tokens, or train the head alone (full=False)"


@dataclass(frozen=True, kw_only=True)
class ClassifierStep:
    """The record of one step, counted from 1. loss: the mean −log p(label) of its texts in nats, before the update."""

    step: int
    loss: float
    learning_rate: float


def train_classifier(classifier: TextClassifier, task: LabelledTask) -> Iterator[ClassifierStep]:
    """Trains an untrained classifier on the task's training texts, and yields each step.

    Minimises the mean −log p(label) by AdamW, with the learning rate warmed up and decayed as in `train`. Frozen, what
    the head reads is computed once. Batches and dropout depend on (seed, step) alone. Leaving the loop leaves the
    classifier as it is then. Raises ConfigError for the classes of another task, RunError where memory runs out or a
    loss is not finite.
    """
    check_classes(classifier, task)
    config, module = training_config(classifier.config), classifier.module
    texts, labels = classifier.encode([one.text for one in task.training]), label_numbers(task.training, task)
    optimizer = build_optimizer(module, config)
    with remedy_for_memory(REMEDY):
        features = None if classifier.config.full else classifier.features(texts)
    try:
        for step in range(config.steps):
            rows = batch_rows(classifier.config, step, len(texts))
            with remedy_for_memory(REMEDY), seeded(config.seed, step + 1, classifier.device):
                module.train()
                if features is None:
                    logits = module(*(part.to(classifier.device) for part in pad([texts[i] for i in rows])))
                else:
                    logits = module.head(features[rows].to(classifier.device))
                loss = F.cross_entropy(logits, labels[rows].to(classifier.device))
                loss.backward()
            rate = learning_rate(step, config)
            check_loss(loss.item(), step + 1, rate)
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.gradient_clip)
            update(optimizer, rate)
            yield ClassifierStep(step=step + 1, loss=loss.item(), learning_rate=rate)
    finally:
        module.eval()


def training_config(config: ClassifierConfig) -> TrainConfig:
    """The settings that the optimizer and the schedule read."""
    return TrainConfig(
        steps=config.steps, batch_size=config.batch_size, learning_rate=config.peak_rate, seed=config.seed,
        device=config.device, optimizer="adamw",
    )


def batch_rows(config: ClassifierConfig, step: int, n_texts: int) -> Tensor:
    """Which texts the step learns from: different ones, drawn by (seed, step)."""
    random = np.random.default_rng((config.seed, step))
    return torch.from_numpy(random.choice(n_texts, size=min(config.batch_size, n_texts), replace=False))


def label_numbers(texts: Sequence[LabelledText], task: LabelledTask) -> Tensor:
    """The place of each text's label among the task's classes."""
    place = {name: number for number, name in enumerate(task.classes)}
    return torch.tensor([place[one.label] for one in texts])


def check_classes(classifier: TextClassifier, task: LabelledTask) -> None:
    """Raises ConfigError for a classifier of other classes than the task's."""
    if classifier.classes != task.classes:
        raise ConfigError(
            f"the classes of {classifier!r} are not those of {task.name!r}; make one by build_classifier(run, task)"
        )


def check_loss(loss: float, step: int, rate: float) -> None:
    """Raises RunError for a loss that is no finite number."""
    if not math.isfinite(loss):
        raise RunError(f"step {step}: the loss is {loss} at learning rate {rate:.2g}; begin again with a lower one")
