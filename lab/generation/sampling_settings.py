"""The settings of sampling, without torch, so that the terminal's help can show them at once."""

from settings.checked import Config, settings
from settings.errors import ConfigError
from settings.messages import suggest
from settings.types import Number, Whole

# A place in tales where the likely next tokens are whole words: near, next, on, under, beside, behind
LESSON_PROMPT = "They ran to the garden and sat down"


@settings
class SamplingConfig(Config):
    """How the next token is chosen.

    temperature: logits are divided by it; below 1 sharper, above 1 flatter, 0 takes the likeliest token (greedy).
    top_k: only the k likeliest tokens (Fan et al. 2018, arXiv 1805.04833).
    top_p: only the smallest set of tokens whose probability reaches p (Holtzman et al. 2019, arXiv 1904.09751).
    min_p: only tokens with at least this share of the likeliest token's probability (arXiv 2407.01082).
    repetition_penalty: above 1 it makes the tokens so far less likely (Keskar et al. 2019, arXiv 1909.05858).
    None, and a penalty of 1, change nothing.
    """

    temperature: Number = 0.8
    top_k: Whole[1, 10**12] | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    repetition_penalty: Number = 1.0

    def problems(self):
        if not (self.temperature == 0 or 0.001 <= self.temperature <= 1000):
            yield f"temperature must be 0 (greedy) or lie between 0.001 and 1000, not {self.temperature}"
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
