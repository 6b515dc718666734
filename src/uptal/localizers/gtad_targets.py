"""What G-TAD learns to predict, by the rules of its two public codes; the losses are those of `targets`.

Source: frostinassiky's G-TAD, branch `anet` for ActivityNet and `master` for THUMOS'14.
Letters: M segments, T steps, D durations.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from uptal.localizers.targets import LossWeights, best_iou, boundary_curve, fractions

Form = Literal["activitynet", "thumos14"]
"""Which public code's rules hold: for whole videos resampled to T steps, or for windows at the features' own rate."""

LOSS_WEIGHTS: dict[Form, LossWeights] = {
    "activitynet": LossWeights(),
    "thumos14": LossWeights(regression=1.0, classification=10.0, guard=10),
}
"""The factor 10 stands on different terms, and the counts of THUMOS'14 are guarded against zero (public code)."""


def labels(
    segments: Float[np.ndarray, "M 2"],
    duration: float,
    num_steps: int,
    max_duration: int,
    form: Form,
    *,
    map_shift: float = 0.0,
) -> tuple[Float32[np.ndarray, "D T"], Float32[np.ndarray, " T"], Float32[np.ndarray, " T"]]:
    """The tIoU map, the start curve and the end curve of one video or window.

    Args:
        segments: Annotated instances in seconds since the first step's beginning; parts outside are cut off.
        duration: Seconds that the T steps cover.
        num_steps: T.
        max_duration: D.
        form: `activitynet` compares boundaries with stretches that are *two* steps wide, [i - 0.5, i + 1.5];
            `thumos14` with the step itself, [i, i + 1], in windows that cut boundaries off at their ends.
        map_shift: Steps by which the map's instances are moved. The public code for THUMOS'14 rounds the window's
            beginning to whole frames for the map and not for the curves, a tenth of a step; we leave that out.

    Returns:
        Row k, column s of the map holds the best tIoU of [s, s + k + 1) with an instance, also where that reaches
        beyond the last step, which the losses leave out.

    Raises:
        AnnotationError: The duration is not positive, or a segment ends before it starts.
    """
    step = duration / num_steps
    start, end = fractions(segments + map_shift * step, duration)
    first, last = np.arange(num_steps) / num_steps, (np.arange(max_duration)[:, None] + 1) / num_steps
    low, high = np.broadcast_arrays(first, first + last)
    best = best_iou(low.ravel(), high.ravel(), start, end).reshape(low.shape).astype(np.float32)
    if form == "activitynet":
        return best, boundary_curve(start, num_steps, after=1.5), boundary_curve(end, num_steps, after=1.5)
    fractions(segments, duration)
    start, end = segments.astype(np.float64).T / duration
    return best, boundary_curve(start, num_steps, 0.0, 1.0), boundary_curve(end, num_steps, 0.0, 1.0)
