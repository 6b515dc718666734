"""What is wrong or odd in a file of annotations, before training or a number depends on it; printing is elsewhere."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uptal.annotations import AnnotationSummary, IdMatch, match_ids, read_annotations, summarise, write_annotations
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.types import Video
from uptal.video import find_videos


@dataclass(frozen=True, kw_only=True)
class AnnotationCheck:
    """Everything that is known about a file of annotations."""

    videos: dict[str, Video]
    """What can be used."""
    problems: list[str]
    """Instances that cannot, each with its place and reason."""
    summary: AnnotationSummary
    """What there is, and what in it is odd."""
    matches: dict[str, IdMatch]
    """Against `videos` and `features`, where they were given."""

    @property
    def unusable(self) -> list[str]:
        """Reasons why this file should not be used as it is."""
        reasons = [f"{len(self.problems)} instances cannot be read"] if self.problems else []
        if self.summary.outside:
            reasons.append(f"{len(self.summary.outside)} instances begin after the end of their video")
        if not self.summary.instances:
            reasons.append("no instance is annotated")
        unmatched = [name for name, match in self.matches.items() if not match.both]
        return reasons + [f"none of the annotated videos is among the {name}" for name in unmatched]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        matches = {
            name: {
                "both": len(match.both),
                "only_annotated": list(match.only_annotated),
                "only_at_hand": list(match.only_at_hand),
                "hint": match.hint,
            }
            for name, match in self.matches.items()
        }
        return {"problems": self.problems, **self.summary.to_json(), "matches": matches, "unusable": self.unusable}


def check_annotations(
    path: str,
    *,
    subset: str | None = None,
    videos: str | None = None,
    features: str | None = None,
    fps: float | int | None = None,
    drop: Collection[str] = (),
) -> AnnotationCheck:
    """Reads annotations, passing over what is wrong in single instances, and compares them with what is at hand.

    Args:
        path: File or folder in any format that uptal reads.
        subset: Only this split.
        videos: Folder of videos.
        features: Feature store.
        fps: Frame rate for Label Studio's frames.
        drop: Labels whose instances are left out, such as THUMOS'14's `Ambiguous`.

    Raises:
        AnnotationError: It cannot be read at all.
        ConfigError: No instance bears a label of `drop`.
    """
    problems: list[str] = []
    truth = read_annotations(path, subset, problems=problems, fps=fps)
    _check_known(drop, truth)
    truth = {id: _without(video, drop) for id, video in truth.items()}
    at_hand: dict[str, Sequence[str]] = {}
    if videos is not None:
        at_hand["videos"] = [each.stem for each in find_videos(videos)]
    if features is not None:
        at_hand["features"] = FeatureStore(features).ids
    return AnnotationCheck(
        videos=truth,
        problems=problems,
        summary=summarise(truth),
        matches={name: match_ids(list(truth), ids) for name, ids in at_hand.items()},
    )


def _check_known(labels: Collection[str], videos: Mapping[str, Video]) -> None:
    known = {segment.label for video in videos.values() for segment in video.segments if segment.label is not None}
    if unknown := [label for label in labels if label not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise ConfigError(
            f"--drop-labels {unknown[0]}: no instance bears this label. "
            + (f"Did you mean {near[0]}?" if near else f"Labels there: {', '.join(sorted(known)[:30]) or 'none'}.")
        )


def _without(video: Video, labels: Collection[str]) -> Video:
    kept = tuple(segment for segment in video.segments if segment.label not in labels)
    return dataclasses.replace(video, segments=kept)


def convert(check: AnnotationCheck, path: str) -> str:
    """Writes what can be used as another file; says what was written."""
    write_annotations(path, check.videos)
    return f"{path}: {check.summary.instances} instances of {check.summary.videos} videos"
