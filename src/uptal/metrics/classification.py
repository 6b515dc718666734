"""Classification of videos: top-k accuracy and how far a share of a few hundred videos can be trusted.

Letters: V videos, K classes.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int


def top_k(scores: Float[np.ndarray, "V K"], target: Int[np.ndarray, " V"], k: int = 1) -> float:
    """Share of videos whose class is among the k best; of equal scores the first class counts as better.

    >>> top_k(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
    0.5
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((order == target[:, None]).any(1).mean())


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of `count` trials (Wilson), which stays sensible near 0 and 1.

    >>> [round(bound, 3) for bound in wilson(0.5, 100)]
    [0.404, 0.596]
    """
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
