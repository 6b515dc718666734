"""Video grounding: how often the interval found for a sentence overlaps the true one enough.

Source: the evaluation of the public LGI code (R@1 at several tIoU and mIoU); R@n and mAP over several candidates are an
extension of ours. Letters: Q queries, T thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from uptal.errors import AnnotationError
from uptal.metrics.selection import check_tious

GROUNDING_TIOUS = (0.3, 0.5, 0.7)
"""Thresholds of the paper's Table 2."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundingScores:
    """Recall per number of candidates and threshold, and mean overlaps."""

    tious: tuple[float, ...]
    """Thresholds, as given."""
    recall: dict[int, Float[np.ndarray, " T"]]
    """Share of the queries that one of the first n candidates answers, by n."""
    mean_tiou: float
    """Mean overlap of the first candidates, mIoU; a query without candidates counts as 0."""
    mean_ap: Float[np.ndarray, " T"]
    """Mean over the queries of 1 / rank of the first candidate that answers them (average precision with one truth)."""
    num_queries: int
    """Q."""
    num_answered: int
    """Queries that have a candidate."""

    def to_json(self) -> dict[str, Any]:
        """Fractions under the names that `uptal evaluate --json` promises."""
        names = [f"{value:g}" for value in self.tious]
        recall = {f"R@{n}": dict(zip(names, row.tolist(), strict=True)) for n, row in self.recall.items()}
        more = {"mIoU": self.mean_tiou, "mAP": dict(zip(names, self.mean_ap.tolist(), strict=True))}
        return recall | more | {"queries": {"truth": self.num_queries, "answered": self.num_answered}}


def hull_tiou(found: Float[np.ndarray, "... 2"], truth: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "..."]:
    """Overlap divided by the span of both, which is their union wherever they overlap; inverted intervals give 0.

    Two equal intervals without length have no span; they give 0 (the public code divides by zero there).
    """
    inside = np.minimum(found[..., 1], truth[..., 1]) - np.maximum(found[..., 0], truth[..., 0])
    span = np.maximum(found[..., 1], truth[..., 1]) - np.minimum(found[..., 0], truth[..., 0])
    return np.divide(np.maximum(inside, 0.0), span, out=np.zeros_like(span, dtype=np.float64), where=span > 0)


def grounding_recall(
    truth: Float[np.ndarray, "Q 2"],
    found: Sequence[Float[np.ndarray, "_ 2"]],
    *,
    tious: Sequence[float] = GROUNDING_TIOUS,
    candidates: Sequence[int] = (1, 5),
) -> GroundingScores:
    """R@n and mIoU of intervals found for queries.

    Args:
        truth: True interval of every query in seconds, not clipped to the video.
        found: Candidates of every query in seconds, best first; any number, also none.
        tious: Thresholds; an overlap equal to the threshold counts.
        candidates: The n of R@n.

    Raises:
        AnnotationError: There is no query, or another number of answers.
    """
    if not len(truth) or len(found) != len(truth):
        raise AnnotationError(f"Grounding is scored per query: found {len(found)} answers to {len(truth)} queries.")
    thresholds = check_tious(tious)
    ranks = np.full((len(truth), len(thresholds)), np.inf)
    first = np.zeros(len(truth))
    for index, (one, several) in enumerate(zip(truth, found, strict=True)):
        overlap = hull_tiou(np.asarray(several, np.float64).reshape(-1, 2), one)
        if len(overlap):
            first[index] = overlap[0]
            hits = overlap[:, None] >= thresholds
            ranks[index] = np.where(hits.any(0), hits.argmax(0) + 1, np.inf)
    return GroundingScores(
        tious=tuple(float(value) for value in tious),
        recall={int(n): (ranks <= n).mean(0) for n in candidates},
        mean_tiou=float(first.mean()),
        mean_ap=(1 / ranks).mean(0),
        num_queries=len(truth),
        num_answered=sum(len(several) > 0 for several in found),
    )
