"""From logits to the next token: pure functions on (B, V), in any combination and always in the same order.

    logits ─ repetition penalty ─ temperature ─ top-k ─ top-p ─ min-p ─ softmax ─ draw

Each step sees what the one before it left. An excluded token has the logit −∞. Ties are broken towards the lowest id,
so that top-k keeps exactly k and a greedy choice is always the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from config import Config, ConfigError, suggest


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Config):
    """How the next token is chosen.

    temperature: logits are divided by it; below 1 sharper, above 1 flatter, 0 takes the likeliest (greedy).
    top_k: only the k likeliest (Fan et al. 2018, arXiv 1805.04833).
    top_p: only the smallest set whose probability reaches p (Holtzman et al. 2019, arXiv 1904.09751).
    min_p: only what has at least this share of the likeliest one's probability (arXiv 2407.01082).
    repetition_penalty: makes the tokens so far less likely where above 1 (Keskar et al. 2019, arXiv 1909.05858).
    None, and a penalty of 1, change nothing.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def problems(self):
        if not (self.temperature == 0 or 0.001 <= self.temperature <= 1000):
            yield f"temperature must be 0 (greedy) or lie between 0.001 and 1000, not {self.temperature}"
        if self.top_k is not None and self.top_k < 1:
            yield f"top_k must be 1 or more, not {self.top_k}; None keeps every token"
        if self.top_p is not None and not 0 < self.top_p <= 1:
            yield f"top_p must lie above 0 and at most at 1, not {self.top_p}; None keeps every token"
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            yield f"min_p must lie between 0 and 1, not {self.min_p}; None keeps every token"
        if not 0.001 <= self.repetition_penalty <= 1000:
            yield f"repetition_penalty must lie between 0.001 and 1000, not {self.repetition_penalty}; 1 is none"


STRATEGIES: dict[str, SamplingConfig] = {
    "greedy": SamplingConfig(temperature=0.0),
    "precise": SamplingConfig(temperature=0.4, top_p=0.9),
    "balanced": SamplingConfig(temperature=0.8, top_p=0.95),
    "creative": SamplingConfig(temperature=1.2, min_p=0.05, repetition_penalty=1.1),
}


def strategy(name: str) -> SamplingConfig:
    """The settings of that name. Raises ConfigError for an unknown one."""
    if name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}; {suggest(name, STRATEGIES)}")
    return STRATEGIES[name]


def penalise(logits: Tensor, previous: Tensor, penalty: float) -> Tensor:
    """x / penalty where x > 0, else x · penalty, for the tokens marked in `previous` (B, V).

    The paper's x / penalty, but for negative logits, which division would make likelier.
    """
    return torch.where(previous, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Exactly the k likeliest (all, if there are no more than k)."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    above, tied = logits > least, logits == least
    room = k - above.sum(dim=-1, keepdim=True)
    return logits.masked_fill(~(above | tied & (tied.cumsum(dim=-1) <= room)), -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The likeliest, one after the other, until their probability reaches p."""
    if p == 1:
        return logits  # all of them, whatever the sum of the rounded probabilities is
    ordered, ids = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    reached = ordered.cumsum(dim=-1) >= p
    late = torch.zeros_like(reached).scatter(-1, ids[..., 1:], reached[..., :-1])  # p was reached before it
    return logits.masked_fill(late, -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Those with at least p times the probability of the likeliest."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -torch.inf)


def filter_logits(logits: Tensor, previous: Tensor | None, config: SamplingConfig) -> Tensor:
    """The logits (B, V) that `config` leaves, −∞ where a token is excluded; greedy leaves one.

    previous: a boolean (B, V) that marks the tokens each row has so far, for the repetition penalty; None for none.
    """
    logits = logits.float()
    if previous is not None and config.repetition_penalty != 1:
        logits = penalise(logits, previous, config.repetition_penalty)
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
    """What `sample` draws from: (B, V), rows sum to 1."""
    return filter_logits(logits, previous, config).softmax(dim=-1)


def sample(
    logits: Tensor, previous: Tensor | None, config: SamplingConfig,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Tensor:  # fmt: skip
    """One token id for each row: (B,). One generator serves all rows, or each row brings its own.

    Draws by inversion, id = the first whose cumulated probability exceeds u ~ U[0, 1), in float64 on the CPU: so a
    seed gives the same ids on every device, and slightly different logits hardly ever give another one.
    """
    if config.temperature == 0:
        if previous is not None and config.repetition_penalty != 1:
            logits = penalise(logits.float(), previous, config.repetition_penalty)
        return logits.argmax(dim=-1)
    cumulated = probabilities(logits, previous, config).cpu().double().cumsum(dim=-1)
    if isinstance(generator, torch.Generator):
        drawn = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64)
    else:
        drawn = torch.cat([torch.rand(1, 1, generator=each, dtype=torch.float64) for each in generator])
    return torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True).squeeze(-1).to(logits.device)
