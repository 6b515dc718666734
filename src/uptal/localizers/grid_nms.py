"""BMN's Soft-NMS for many videos at once, whose candidates are the same segments in fractions of each video.

One video with any candidates is `postprocess.soft_nms`, which this equals to the bit. Letters: M candidates, V videos.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from uptal.types import Detections


class GridSoftNMS:
    """Which candidates each one lowers, and by how much, depends on the segments alone: it is worked out once for all.

    A candidate's row is computed when some video takes that candidate for the first time, and kept: at most about
    5,000 rows of a few kilobytes for the 4,950 candidates of a map of 100 steps.
    """

    def __init__(self, segments: Float[np.ndarray, "M 2"], *, alpha: float, low: float, high: float):
        self.segments, self._alpha, self._low, self._high = segments, alpha, low, high
        self._rows: dict[int, tuple[Int[np.ndarray, " P"], Float[np.ndarray, " P"]]] = {}

    def __call__(self, scores: Float[np.ndarray, "V M"], max_output: int) -> list[Detections]:
        """Soft-NMS of every video, best first; as in the public code the very last candidate is never returned."""
        return [self._one(row, max_output) for row in scores]

    def _one(self, scores: Float[np.ndarray, " M"], max_output: int) -> Detections:
        order = np.argsort(-scores, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rest = scores[order].astype(np.float64)
        taken: list[int] = []
        final: list[float] = []
        while len(taken) < min(max_output, len(order) - 1):
            best = int(rest.argmax())
            taken.append(int(order[best]))
            final.append(float(rest[best]))
            rest[best] = -np.inf
            lowered, factors = self._row(taken[-1])
            rest[place[lowered]] *= factors
        return Detections(self.segments[taken].reshape(-1, 2), np.array(final, np.float64))

    def _row(self, one: int) -> tuple[Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
        """The candidates that `one` lowers, and the factors."""
        if one not in self._rows:
            start, end = self.segments.T
            first, last = self.segments[one].tolist()
            inside = (np.minimum(end, last) - np.maximum(start, first)).clip(min=0)
            overlap = inside / (end - start - inside + last - first)
            much = overlap > self._low + (self._high - self._low) * (last - first)
            much[one] = False
            self._rows[one] = np.flatnonzero(much), np.exp(-np.square(overlap[much]) / self._alpha)
        return self._rows[one]
