"""How far a number would move on other documents: the bootstrap (Efron 1979), which draws whole documents.

The tokens of one document depend on each other, documents do not. So the bootstrap draws documents and not tokens.
"""

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


def resampled_sums(sums: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Sums over documents drawn with replacement, as many as there are, `resamples` times.

    sums: (documents, quantities). Gives (resamples, quantities); the same seed gives the same numbers.
    """
    random, n = np.random.default_rng(seed), len(sums)
    return np.array([np.bincount(random.integers(n, size=n), minlength=n) @ sums for _ in range(resamples)])


def interval(statistics: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The percentile interval of a statistic's resampled values."""
    outside = (1 - confidence) / 2
    low, high = np.quantile(statistics, [outside, 1 - outside])
    return float(low), float(high)
