"""The interval of a share: how far a count of right answers would move with other questions."""

import math
from statistics import NormalDist

from lab.evaluation.bootstrap import CONFIDENCE


def wilson_interval(right: float, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share p = right / asked (1927), as if the n asked were independent of each other:

    (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
    """
    p, n, z = right / asked, asked, NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = ((middle + side) / (1 + z**2 / n) for side in (-half, half))
    return low, high
