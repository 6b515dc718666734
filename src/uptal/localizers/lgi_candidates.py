"""Several candidates from a network that answers with one: an extension of ours, for R@5 and mAP and for people.

The first candidate is always the network's own interval, untouched. The others are stretches of high temporal attention
and variations of the first one, the best by how much attention they hold. Letters: M segments, K candidates.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from uptal.metrics.grounding import hull_tiou
from uptal.types import Detections

LEVELS = (0.75, 0.5, 0.25, 0.1)
"""Shares of the highest attention above which a stretch of segments becomes a candidate."""
VARIATIONS = ((-0.5, 1.0), (0.5, 1.0), (0.0, 0.5), (0.0, 2.0), (-0.25, 1.5), (0.25, 1.5))
"""Shift in lengths of the network's interval, and factor on its length."""
APART = 0.7
"""tIoU above which a candidate is the same as a better one."""

CHANCE = 1e-3
"""Share of attention beyond a candidate's share of the video that makes it better than chance."""


def candidates(
    answer: tuple[float, float], attention: Float[np.ndarray, " M"], duration: float, most: int
) -> Detections:
    """Up to `most` candidates in seconds, best first.

    The network gives no confidence. The first score is 1 by definition; the others are the share of the attention that
    a candidate holds, minus the share of the video that it takes; what is no better than chance is left out.

    Args:
        answer: Start and end from the network in seconds, as they are.
        attention: Temporal attention over the video's own segments; they are taken to tile the video.
        duration: Seconds of the video.
        most: Candidates at most.
    """
    kept, scores = [np.array(answer, np.float64)], [1.0]
    pool = np.array(_stretches(attention, duration) + _variations(answer, duration)).reshape(-1, 2)
    pool = pool[pool[:, 1] > pool[:, 0]]
    worth = np.array([held(attention, span, duration) - (span[1] - span[0]) / duration for span in pool])
    for index in np.argsort(-worth, kind="stable"):
        new = (hull_tiou(np.array(kept), pool[index]) < APART).all()
        if len(kept) < most and worth[index] > CHANCE and new:
            kept.append(pool[index])
            scores.append(min(float(worth[index]), 1.0))
    return Detections(np.array(kept), np.array(scores))


def _stretches(attention: Float[np.ndarray, " M"], duration: float) -> list[tuple[float, float]]:
    """Runs of segments above each level, in seconds."""
    step = duration / len(attention)
    found = []
    for level in LEVELS:
        above = np.concatenate([[False], attention >= level * attention.max(), [False]])
        edges = np.flatnonzero(above[1:] != above[:-1]).reshape(-1, 2)
        found += [(float(first * step), float(last * step)) for first, last in edges]
    return found


def _variations(answer: tuple[float, float], duration: float) -> list[tuple[float, float]]:
    """The network's interval shifted and stretched, within the video."""
    low, high = sorted(min(max(value, 0.0), duration) for value in answer)
    middle, length = (low + high) / 2, high - low
    spans = [(middle + shift * length - factor * length / 2, middle + shift * length + factor * length / 2)
             for shift, factor in VARIATIONS]  # fmt: skip
    return [(max(start, 0.0), min(end, duration)) for start, end in spans]


def held(attention: Float[np.ndarray, " M"], span: Float[np.ndarray, " 2"], duration: float) -> float:
    """Share of the attention within a span in seconds; a segment that lies in it by half counts by half."""
    place = np.clip(span / duration * len(attention), 0, len(attention))
    total = np.concatenate([[0.0], np.cumsum(attention)])
    low, high = np.interp(place, np.arange(len(total)), total)
    return float(high - low)
