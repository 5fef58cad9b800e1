"""Probes: questions about held-out stories, each with a right and a wrong ending."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from config import DataConfig
from lab.compute.eval_mode import eval_mode
from lab.data import tales
from lab.data.sources import DEFAULT_TALES
from lab.data.splitting import held_out_place
from lab.data.tokenizers import Tokenizer
from lab.evaluation.wilson import wilson_interval
from modules.losses import shift

CHANCE = 0.5  # a probe has two endings
PROBED_STORIES = 60


@dataclass(frozen=True, kw_only=True)
class Answers:
    """right of `asked` probes answered; over several seeds that answer the same probes, `right` is their mean."""

    right: float
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, as if the probes were independent of each other."""
        return wilson_interval(self.right, self.asked)

    @property
    def can_be_told(self) -> bool:
        """Whether the interval excludes what guessing gives."""
        low, high = self.interval
        return not low <= CHANCE <= high

    def __str__(self) -> str:
        low, high = self.interval
        verdict = "" if self.can_be_told else ": tells nothing"
        return f"{100 * self.share:.1f} % of {self.asked:,} ({100 * low:.0f} to {100 * high:.0f} %{verdict})"


def probe_accuracy(model: nn.Module, tokenizer: Tokenizer, probes: Iterable[tales.Probe]) -> dict[str, Answers]:
    """By skill, for how many probes the model finds the right ending likelier than the wrong one; guessing gives half.

    Where a prompt is longer than the context that the model was trained on, its beginning is cut off.
    """
    outcomes: dict[str, list[bool]] = {}
    with torch.inference_mode(), eval_mode(model):
        for probe in probes:
            right, wrong = (
                _ending_log_probability(model, tokenizer, probe.prompt, ending)
                for ending in (probe.right, probe.wrong)
            )
            outcomes.setdefault(probe.skill, []).append(right > wrong)
    return {skill: Answers(right=sum(found), asked=len(found)) for skill, found in sorted(outcomes.items())}


def _ending_log_probability(model: nn.Module, tokenizer: Tokenizer, prompt: str, ending: str) -> float:
    before, ids = len(tokenizer.encode(prompt)), tokenizer.encode(prompt + ending)
    n_scored = min(len(ids) - before, model.config.context_length)
    window = torch.tensor([ids[-(model.config.context_length + 1) :]], device=next(model.parameters()).device)
    inputs, targets = shift(window)
    losses = model.head.token_losses(model.hidden(inputs), targets)
    return -losses[0, -n_scored:].sum().item()


def skills(
    model: nn.Module, tokenizer: Tokenizer, config: DataConfig, n_stories: int = PROBED_STORIES
) -> dict[str, Answers]:
    """By skill, the answers to the questions about the first n_stories held-out tales; {} for any other source."""
    if config.sources != ("tales",):
        return {}
    stories = tales.stories(config.max_documents or DEFAULT_TALES, config.seed)
    held = (tale for tale in stories if held_out_place(tale.text) < config.validation_fraction)
    probes = (probe for tale in islice(held, n_stories) for probe in tale.probes)
    return probe_accuracy(model, tokenizer, probes)
