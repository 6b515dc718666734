"""Whose rules a number follows: the evaluation protocols by name, with what each does to the ground truth.

The arithmetic is in `uptal.metrics`; docs/evaluation.md says how the protocols differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uptal.annotations import AMBIGUOUS
from uptal.metrics import (
    ACTIVITYNET_RULES,
    DEVKIT_RULES,
    STRICT_TIOUS,
    UPDATED_DEVKIT_RULES,
    Rules,
)
from uptal.types import Video

_THUMOS_TIOUS: tuple[float, ...] = tuple(np.linspace(0.3, 0.7, 5).tolist())


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a benchmark's evaluator fixes."""

    subset: str | None
    """Split that it scores; used where the annotation file names it."""
    tious: tuple[float, ...]
    """Thresholds of its tables."""
    rules: Rules = ACTIVITYNET_RULES
    """Matching and averaging of detections."""
    ambiguous: Literal["a class", "dropped", "ignored"] = "a class"
    """Instances labelled `Ambiguous`: a class like others, as if they were not there, or regions without penalty."""
    absent: tuple[str, ...] = ()
    """Videos that its ground truth lacks though the annotations have them; predictions on them stay, and are wrong."""
    proposals: bool = True
    """Whether it scores proposals, too."""

    def ground_truth(self, truth: Mapping[str, Video]) -> tuple[dict[str, Video], dict[str, Any]]:
        """The ground truth as this protocol has it, and what was done to get there, for the record."""
        kept = {id: video for id, video in truth.items() if id not in self.absent}
        ambiguous = sum(segment.label == AMBIGUOUS for video in kept.values() for segment in video.segments)
        done = {
            "ambiguous": {"instances": ambiguous, "treated_as": self.ambiguous},
            "absent_videos": [id for id in truth if id in self.absent],
        }
        if self.ambiguous == "dropped":
            kept = {id: _without_ambiguous(video) for id, video in kept.items()}
        return kept, done


def _without_ambiguous(video: Video) -> Video:
    return dataclasses.replace(video, segments=tuple(each for each in video.segments if each.label != AMBIGUOUS))


_GTAD = Protocol(
    subset="test",
    tious=_THUMOS_TIOUS,
    ambiguous="dropped",
    absent=("video_test_0000270", "video_test_0001292", "video_test_0001496"),
)

PROTOCOLS = {
    "activitynet": Protocol(subset="validation", tious=STRICT_TIOUS),
    "thumos14": _GTAD,
    "thumos14-gtad": _GTAD,
    "thumos14-devkit": Protocol(
        subset="test", tious=_THUMOS_TIOUS, rules=DEVKIT_RULES, ambiguous="ignored", proposals=False
    ),
    "thumos14-devkit-updated": Protocol(
        subset="test", tious=_THUMOS_TIOUS, rules=UPDATED_DEVKIT_RULES, ambiguous="ignored", proposals=False
    ),
}
"""Protocols of detection and proposals. `thumos14` is G-TAD's, which most papers since 2020 follow."""
