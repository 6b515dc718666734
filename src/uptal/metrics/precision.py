"""Average precision from a ranked list of hits: the three definitions that benchmarks of this field use.

Letters: T thresholds, M predictions of one class, best first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

Area = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(hits (T, M), counted (T, M), instances (T,)) -> average precision at each threshold (T,)."""

RECALL_POINTS = np.concatenate([np.arange(5) * 0.1, 1 - np.arange(5, -1, -1) * 0.1])
"""0, 0.1 … 1 as MATLAB's `0:0.1:1` has them: counted from both ends, so that 0.3 is one bit above the decimal."""


def interpolated_ap(
    hits: Bool[np.ndarray, "T M"], counted: Bool[np.ndarray, "T M"], num_truth: Int[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """Area under the precision-recall curve whose precision is made non-increasing (all points, as in VOC since 2010).

    Args:
        hits: True positives.
        counted: Predictions that count at all: hits and false positives.
        num_truth: Instances of the class, at least 1.
    """
    found, precision = _found_and_precision(hits, counted)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (np.diff(found / num_truth[:, None], axis=1, prepend=0.0) * envelope).sum(axis=1)


def precision_at_hits(
    hits: Bool[np.ndarray, "T M"], counted: Bool[np.ndarray, "T M"], num_truth: Int[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """Precision summed at every hit and divided by the number of instances: average precision without interpolation."""
    _, precision = _found_and_precision(hits, counted)
    return np.where(hits, precision, 0.0).sum(axis=1) / num_truth


def eleven_point_ap(
    hits: Bool[np.ndarray, "T M"], counted: Bool[np.ndarray, "T M"], num_truth: Int[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """Mean over the recalls 0, 0.1 … 1 of the best precision at that recall or more (VOC until 2009)."""
    found, precision = _found_and_precision(hits, counted)
    recall = found / num_truth[:, None]
    best = [np.where(counted & (recall >= point), precision, 0.0).max(axis=1, initial=0.0) for point in RECALL_POINTS]
    return np.mean(best, axis=0)


def _found_and_precision(
    hits: Bool[np.ndarray, "T M"], counted: Bool[np.ndarray, "T M"]
) -> tuple[np.ndarray, Float[np.ndarray, "T M"]]:
    found = np.cumsum(hits, axis=1)
    return found, found / np.maximum(np.cumsum(counted, axis=1), 1)
