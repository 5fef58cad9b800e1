"""From logits to the next token: pure functions on (B, V), in any combination and always in the same order.

    logits ─ repetition penalty ─ temperature ─ top-k ─ top-p ─ min-p ─ softmax ─ draw

Each step works on the result of the one before. An excluded token has the logit −∞. Of equal logits the lowest id wins,
so top-k keeps exactly k and a greedy choice is always the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lab.generation.sampling_settings import SamplingConfig


def penalise(logits: Tensor, previous: Tensor | None, penalty: float) -> Tensor:
    """x / penalty where x > 0, else x · penalty, for the tokens marked in `previous` (B, V).

    The paper divides always. But division makes a token with a negative logit likelier, so these are multiplied.
    """
    if previous is None or penalty == 1:
        return logits
    return torch.where(previous, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k likeliest tokens (all, if there are no more than k)."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    above, tied = logits > least, logits == least
    room = k - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | tied & (tied.cumsum(dim=-1) <= room)), -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The likeliest tokens, one after the other, until the sum of their probabilities reaches p."""
    if p == 1:
        return logits  # all of them, whatever the sum of the rounded probabilities is
    ordered, ids = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(dim=-1) >= p
    late = torch.zeros_like(reached).scatter(-1, ids[..., 1:], reached[..., :-1])  # p was reached before it
    return logits.masked_fill(late, -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """The tokens with at least p times the probability of the likeliest one."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def filter_logits(logits: Tensor, previous: Tensor | None, config: SamplingConfig) -> Tensor:
    """The logits (B, V) after all steps of `config`, −∞ where a token is excluded; greedy leaves one token.

    previous: a boolean (B, V) that marks the tokens of each row so far, for the repetition penalty; None for none.
    """
    logits = penalise(logits.float(), previous, config.repetition_penalty)
    if config.temperature == 0:
        return keep_top_k(logits, 1)
    logits = logits / config.temperature
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p is not None:
        logits = keep_min_p(logits, config.min_p)
    return logits


def probabilities(logits: Tensor, previous: Tensor | None, config: SamplingConfig) -> Tensor:
    """The distribution that `sample` draws from: (B, V), rows sum to 1."""
    return filter_logits(logits, previous, config).softmax(dim=-1)


def sample(
    logits: Tensor, previous: Tensor | None, config: SamplingConfig,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Tensor:
    """One token id for each row: (B,). generator: one for all rows, or one for each row.

    It draws in float64 on the CPU: so a seed gives the same ids on every device, and slightly different logits hardly
    ever give another id.
    """
    if config.temperature == 0:
        return penalise(logits.float(), previous, config.repetition_penalty).argmax(dim=-1)
    return draw_ids(probabilities(logits, previous, config).cpu().double(), generator).to(logits.device)


def draw_ids(weights: Tensor, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """One id (B,) for each row of weights (B, V), whose sum may be any number. generator: as in `sample`."""
    if isinstance(generator, torch.Generator):
        drawn = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64)
    else:
        drawn = torch.cat([torch.rand(1, 1, generator=each, dtype=torch.float64) for each in generator])
    return pick_ids(weights, drawn[:, 0])


def pick_ids(weights: Tensor, uniform: Tensor) -> Tensor:
    """For each row of weights (B, V) the first id whose cumulated weight exceeds `uniform` (B), from [0, 1), times
    their sum."""
    cumulated = weights.cumsum(dim=-1)
    found = torch.searchsorted(cumulated, uniform[:, None] * cumulated[:, -1:], right=True).squeeze(-1)
    return found.clamp(max=weights.shape[-1] - 1)  # NaN is found nowhere; who gives weights checks them
