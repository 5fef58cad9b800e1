"""How many parameters and tokens a number of training FLOPs should go into. Imports no torch by itself.

Hoffmann et al. 2022 (arXiv 2203.15556) trained models of 70 million to 16 billion parameters. They estimated the best
size N for C FLOPs as N ∝ C^a in three ways, with D = C / 6N tokens: the exponents are those of table 2, where a range
is from the 10th to the 90th percentile of a bootstrap; the sizes that the first two pass through are those of tables 3
and A3. The third way fits the loss L(N, D) = E + A / N^α + B / D^β. Besiroglu et al. 2024 (arXiv 2404.10102) fitted it
again to the same runs, and found the range of the first fit far too narrow: it leaves out that fit's own exponent.
"""

from typing import NamedTuple

TOKENS_PER_PARAMETER = 20  # the rule of thumb that table 3 comes to
FITTED_FROM, FITTED_TO = 70e6, 16e9  # parameters of the models


class Fit(NamedTuple):
    """L(N, D) = E + A / N^α + B / D^β in nats per token."""

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    @property
    def exponent(self) -> float:
        """a of N ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    def parameters(self, flops: float) -> float:
        """The best size: equation 4 of Hoffmann et al."""
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        return scale * (flops / 6) ** self.exponent


HOFFMANN = Fit(1.6934, 406.4, 410.7, 0.3392, 0.2849)  # α and β as in the paper's source, before they were rounded
BESIROGLU = Fit(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # standard errors of α and β: 0.02


class Law(NamedTuple):
    """N = parameters · (C / flops)^exponent; low and high: the range of the exponent."""

    name: str
    flops: float
    parameters: float
    exponent: float
    low: float
    high: float

    def suggest(self, flops: float) -> tuple[float, float, float]:
        """The best size for so many FLOPs, and its range."""
        best, *ends = (
            self.parameters * (flops / self.flops) ** exponent for exponent in (self.exponent, self.low, self.high)
        )
        return best, min(best, *ends), max(best, *ends)


SIZE = 1e9  # parameters where the laws are anchored: a row of tables 3 and A3
LAWS = (
    Law("approach 1, training curves", 1.21e20, SIZE, 0.50, 0.488, 0.502),
    Law("approach 2, equal FLOPs", 1.20e20, SIZE, 0.49, 0.462, 0.534),
    Law("approach 3, fitted loss", 1.62e20, HOFFMANN.parameters(1.62e20), HOFFMANN.exponent, 0.454, 0.455),
    Law("fitted again (Besiroglu)", 1.62e20, BESIROGLU.parameters(1.62e20), BESIROGLU.exponent, 0.487, 0.538),
)


def rule_of_thumb(flops: float) -> float:
    """The size N that takes 20 N tokens: flops = 6 N · 20 N."""
    return (flops / (6 * TOKENS_PER_PARAMETER)) ** 0.5


def tokens_for(parameters: float, flops: float) -> float:
    """The tokens that a model of this size reads for so many FLOPs: 6 for each parameter and token."""
    return flops / (6 * parameters)
