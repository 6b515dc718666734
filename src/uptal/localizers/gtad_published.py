"""What G-TAD's public code for THUMOS'14 writes to its result file, rounding included, to check published numbers with.

`uptal predict` does not round and keeps the proposals of a class together; both change how ties are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from uptal.localizers.gtad import GTADConfig, suppress
from uptal.types import Detections


def thumos14_detections(
    windows: Sequence[Detections],
    fps: float,
    num_frames: float,
    class_scores: Mapping[str, float],
    cfg: GTADConfig,
    top_classes: int = 2,
) -> Detections:
    """Detections of one video in seconds, from the proposals of its windows in frames of the video.

    All windows' proposals go through Soft-NMS once more. Then every proposal is written with each of the best classes
    in turn, scores rounded to six digits and times to a tenth of a second. Of equally likely classes the later wins.
    """
    found = suppress(Detections.joined(windows), replace(cfg, longest=None))
    ranked = sorted((score, place, label) for place, (label, score) in enumerate(class_scores.items()))
    best = [(label, score) for score, _, label in ranked[::-1][:top_classes]]
    seconds = np.round(found.segments.clip(0, num_frames) / fps, 1)
    scores = np.round(found.scores[:, None] * np.array([score for _, score in best]), 6)
    labels = tuple(label for label, _ in best) * len(found)
    return Detections(np.repeat(seconds, len(best), axis=0), scores.ravel(), labels)
