"""What a set of annotations holds and what in it is odd; reading it is left to `truth`, printing to the commands."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from uptal.annotations.fields import quoted
from uptal.annotations.thumos import AMBIGUOUS
from uptal.types import Segment, Video

_ROUNDING = 0.01


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """One class."""

    instances: dict[str, int]
    """Annotated segments in each split."""
    videos: int
    """Videos in which it occurs."""
    median: float
    """Median length of its segments in seconds."""
    shortest: float
    longest: float


@dataclass(frozen=True, kw_only=True)
class AnnotationSummary:
    """What a set of annotations holds, and how much of it is odd though allowed."""

    videos: int
    """Annotated videos."""
    instances: int
    """Annotated segments."""
    labels: tuple[str, ...]
    """Classes, by name."""
    subsets: dict[str, int]
    """Videos of each split."""
    without_instances: int
    """Videos that show no action, or whose annotations are withheld."""
    without_duration: int
    """Videos of unknown length."""
    hours: float
    """Length of all videos of known length."""
    classes: dict[str, ClassSummary]
    """Each class by name."""
    zero_length: tuple[str, ...]
    """Instances that end where they start: no prediction of positive length can match them."""
    beyond_duration: tuple[str, ...]
    """Instances that end after their video by more than a hundredth of a second, which rounding explains."""
    outside: tuple[str, ...]
    """Instances that begin when their video is over; nothing can be learnt from them."""
    duplicates: tuple[str, ...]
    """Instances that repeat another's times and label."""
    two_labels: tuple[str, ...]
    """Instances that repeat another's times under another label, as THUMOS'14's cliff dives do."""
    overlapping: tuple[str, ...]
    """Pairs of instances of one class that share time."""
    ambiguous: tuple[str, ...]
    """Instances labelled `Ambiguous`, which in THUMOS'14 is no class but a mark of doubt; training takes it as one."""
    one_split_only: dict[str, str]
    """Classes that only one of several splits with instances knows, and which: nothing to learn from, or to score."""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values; where a list is long its length and first entries."""
        lists = ("zero_length", "beyond_duration", "outside", "duplicates", "two_labels", "overlapping", "ambiguous")
        plain = {name: value for name, value in vars(self).items() if name not in ("classes", *lists)}
        classes = {label: dict(vars(each)) for label, each in self.classes.items()}
        odd = {name: {"count": len(getattr(self, name)), "first": list(getattr(self, name)[:20])} for name in lists}
        return plain | {"labels": list(self.labels), "classes": classes, "odd": odd}


def summarise(videos: Mapping[str, Video]) -> AnnotationSummary:
    """Count what is there."""
    pairs = [(video, segment) for video in videos.values() for segment in video.segments]
    known = [video.duration for video in videos.values() if not math.isnan(video.duration)]
    classes = {label: _of_class(label, pairs) for label in sorted({s.label for _, s in pairs if s.label is not None})}
    return AnnotationSummary(
        videos=len(videos),
        instances=len(pairs),
        labels=tuple(classes),
        subsets=dict(Counter(video.subset for video in videos.values())),
        without_instances=sum(not video.segments for video in videos.values()),
        without_duration=len(videos) - len(known),
        hours=sum(known) / 3600,
        classes=classes,
        zero_length=_named(pairs, lambda _, segment: segment.duration == 0),
        beyond_duration=_named(pairs, lambda video, segment: segment.end > video.duration + _ROUNDING),
        outside=_named(pairs, lambda video, segment: segment.start >= video.duration),
        duplicates=_repeated(videos, same_label=True),
        two_labels=_repeated(videos, same_label=False),
        overlapping=_overlapping(videos),
        ambiguous=_named(pairs, lambda _, segment: segment.label == AMBIGUOUS),
        one_split_only=_one_split_only(classes),
    )


def _of_class(label: str, pairs: list[tuple[Video, Segment]]) -> ClassSummary:
    mine = [(video, segment) for video, segment in pairs if segment.label == label]
    lengths = [segment.duration for _, segment in mine]
    return ClassSummary(
        instances=dict(Counter(video.subset for video, _ in mine)),
        videos=len({video.id for video, _ in mine}),
        median=statistics.median(lengths),
        shortest=min(lengths),
        longest=max(lengths),
    )


def _one_split_only(classes: Mapping[str, ClassSummary]) -> dict[str, str]:
    splits = {subset for each in classes.values() for subset in each.instances}
    if len(splits) < 2:
        return {}
    return {label: next(iter(each.instances)) for label, each in classes.items() if len(each.instances) == 1}


def _named(pairs: list[tuple[Video, Segment]], odd) -> tuple[str, ...]:
    return tuple(_name(video, segment) for video, segment in pairs if odd(video, segment))


def _repeated(videos: Mapping[str, Video], *, same_label: bool) -> tuple[str, ...]:
    found = []
    for video in videos.values():
        labels: dict[tuple[float, float], list[str | None]] = {}
        for segment in video.segments:
            before = labels.setdefault((segment.start, segment.end), [])
            if before and (segment.label in before) is same_label:
                found.append(_name(video, segment))
            before.append(segment.label)
    return tuple(found)


def _overlapping(videos: Mapping[str, Video]) -> tuple[str, ...]:
    found = []
    for video in videos.values():
        of_class: dict[str | None, list[Segment]] = {}
        for segment in video.segments:
            of_class.setdefault(segment.label, []).append(segment)
        for segments in of_class.values():
            for one, other in combinations(segments, 2):
                if min(one.end, other.end) > max(one.start, other.start) and one != other:
                    found.append(f"{_name(video, one)} and {other.start:g} to {other.end:g} s")
    return tuple(found)


def _name(video: Video, segment: Segment) -> str:
    return f"{quoted(video.id)}, {segment.start:g} to {segment.end:g} s, {quoted(segment.label)}"
