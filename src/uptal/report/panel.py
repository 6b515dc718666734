"""What the player of the page needs to know about one video, as plain data; the page's script draws it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from uptal.errors import AnnotationError
from uptal.report.figures import map_payload
from uptal.report.sections import VideoPanel
from uptal.types import Segment

UNNAMED = "action"
"""How proposals are called: segments that something found without saying what they are."""


def panel_payload(panel: VideoPanel, video: Mapping[str, str]) -> dict[str, Any]:
    """Everything the player shows, times in seconds.

    Args:
        panel: The video and what was found in it.
        video: `data` (a data URI), `file` (a name beside the page) or `reason` (why there is no picture).

    Raises:
        AnnotationError: A segment or a score is not a finite number.
    """
    found = None if panel.predictions is None else panel.predictions.as_segments()
    _check_numbers(panel.id, [*(found or ()), *(panel.truth or ())])
    return {
        "id": panel.id,
        "note": panel.note,
        "duration": _length(panel, [*(found or ()), *(panel.truth or ())]),
        "step": 1.0 if panel.timebase is None else panel.timebase.stride / panel.timebase.fps,
        "video": dict(video),
        "truth": None if panel.truth is None else [_record(segment) for segment in panel.truth],
        "predictions": None if found is None else [_judged(segment, panel.truth) for segment in found],
        "threshold": panel.threshold,
        "map": None if panel.similarity is None else map_payload(panel.similarity, panel.timebase, panel.duration),
    }


def best_overlap(segment: Segment, truth: Iterable[Segment]) -> float:
    """Largest tIoU of a segment with the annotated ones of its label; a segment without label meets all of them.

    >>> best_overlap(Segment(0.0, 2.0, "jump"), [Segment(1.0, 3.0, "jump"), Segment(0.0, 2.0, "run")])
    0.3333333333333333
    """
    rivals = [one for one in truth if segment.label is None or one.label is None or one.label == segment.label]
    return max((_tiou(segment, one) for one in rivals), default=0.0)


def _tiou(one: Segment, other: Segment) -> float:
    shared = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    union = one.duration + other.duration - shared
    return shared / union if union > 0 else 0.0


def _judged(segment: Segment, truth: tuple[Segment, ...] | None) -> dict[str, Any]:
    overlap = None if truth is None else best_overlap(segment, truth)
    return {**_record(segment), "score": segment.score, "overlap": overlap}


def _record(segment: Segment) -> dict[str, Any]:
    return {"start": segment.start, "end": segment.end, "label": segment.label or UNNAMED}


def _length(panel: VideoPanel, segments: list[Segment]) -> float:
    """Length of the timeline: where a damaged file gives none, it reaches to the last segment."""
    return panel.duration if panel.duration > 0 else max((one.end for one in segments), default=1.0)


def _check_numbers(name: str, segments: list[Segment]) -> None:
    for segment in segments:
        numbers = (segment.start, segment.end, 0.0 if segment.score is None else segment.score)
        if not all(map(math.isfinite, numbers)):
            raise AnnotationError(
                f"Video {name!r}: a segment has start, end, score {numbers}, expected finite numbers. "
                f"Look at the model that produced it: its output has overflowed."
            )
