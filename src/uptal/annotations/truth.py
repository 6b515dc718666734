"""Readers of what people annotated: ActivityNet's JSON and its relatives, CSV tables, lists of labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from uptal.annotations.content import parse_json, parse_table, read_text
from uptal.annotations.fields import Place, number, pair, quoted, record, rows, span, text
from uptal.errors import AnnotationError
from uptal.types import Segment, Video

Entry = TypeVar("Entry")

_ROUNDING = 0.01


def read_annotations(path: str | Path, subset: str | None = None) -> dict[str, Video]:
    """Annotated videos from any file this module reads; the content tells which, not the name.

    Args:
        path: ActivityNet JSON (or the BMN layout), or CSV with columns video,start,end,label.
        subset: Keep only the videos of this split.

    Raises:
        AnnotationError: The file cannot be read as either; the message names the place.
    """
    path = Path(path)
    content = read_text(path)
    parse = _from_json if content.lstrip()[:1] in ("{", "[") else _from_table
    return _of_subset(parse(content, path), subset, path)


def read_activitynet(path: str | Path, subset: str | None = None) -> dict[str, Video]:
    """Annotated videos from JSON in one of the two layouts in use, by id, in file order.

    Official: `{"database": {id: {"subset", "duration", "annotations": [{"segment": [start, end], "label"}]}}}`; what
    else stands there (`taxonomy`, `version`, `url`, …) is not needed. BMN's: `{id: {"duration_second", "annotations"}}`
    without a wrapper. A subset that the file does not name is `""`; a duration that it does not give is NaN.

    Args:
        path: The file.
        subset: Keep only the videos of this split.

    Raises:
        AnnotationError: The file is something else; the message names video and field.
    """
    path = Path(path)
    return _of_subset(_from_json(read_text(path), path), subset, path)


def read_csv(path: str | Path, subset: str | None = None) -> dict[str, Video]:
    """Annotated videos from a table with a header and the columns video,start,end,label, by id, in file order.

    Optional columns: subset, duration (seconds); others are ignored. One row is one instance; a row whose start, end
    and label are empty declares a video without any.

    Args:
        path: The file.
        subset: Keep only the videos of this split.

    Raises:
        AnnotationError: The file is something else; the message names line and column.
    """
    path = Path(path)
    return _of_subset(_from_table(read_text(path), path), subset, path)


def read_labels(path: str | Path) -> dict[str, str]:
    """Class of each trimmed video, from a table with a header and the columns video,label.

    Raises:
        AnnotationError: The file is something else, or names a video twice; the message names line and column.
    """
    path = Path(path)
    labels: dict[str, str] = {}
    for place, row in parse_table(read_text(path), path, ("video", "label")):
        id = text(row["video"], place.inside("column 'video'"), "the name of a video")
        if id in labels:
            raise place.error(f"video {quoted(id)} is listed twice. Remove one of the two rows.")
        labels[id] = text(row["label"], place.inside("column 'label'"), "a label")
    return _some(labels, path)


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
    zero_length: int
    """Instances that end where they start: no prediction of positive length can match them."""
    beyond_duration: int
    """Instances that end after their video by more than a hundredth of a second, which rounding explains."""


def summarise(videos: Mapping[str, Video]) -> AnnotationSummary:
    """Count what is there."""
    pairs = [(video, segment) for video in videos.values() for segment in video.segments]
    names = [video.subset for video in videos.values()]
    return AnnotationSummary(
        videos=len(videos),
        instances=len(pairs),
        labels=tuple(sorted({segment.label for _, segment in pairs if segment.label is not None})),
        subsets={name: names.count(name) for name in dict.fromkeys(names)},
        without_instances=sum(not video.segments for video in videos.values()),
        without_duration=sum(math.isnan(video.duration) for video in videos.values()),
        zero_length=sum(segment.duration == 0 for _, segment in pairs),
        beyond_duration=sum(segment.end > video.duration + _ROUNDING for video, segment in pairs),
    )


def _from_json(content: str, path: Path) -> dict[str, Video]:
    place = Place(path)
    top = record(parse_json(content, path), place, 'an object with the key "database"')
    if "results" in top and "database" not in top:
        raise place.error('these are predictions (key "results"); expected annotations (key "database").')
    database = record(top.get("database", top), place.inside("database"), "an object {id: video}")
    return _some({id: _video(id, entry, place.inside(f"video {quoted(id)}")) for id, entry in database.items()}, path)


def _video(id: str, entry: object, place: Place) -> Video:
    text(id, place, "an id")
    fields = record(entry, place, 'an object with the key "annotations"')
    subset = fields.get("subset", "")
    if not isinstance(subset, str):
        raise place.inside("subset").wrong(subset, "the name of a split")
    key = "duration_second" if "duration_second" in fields else "duration"
    listed = rows(fields.get("annotations"), place.inside("annotations"), "a list of annotated segments")
    return Video(
        id=id,
        duration=_duration(fields[key], place.inside(key)) if key in fields else math.nan,
        subset=subset,
        segments=tuple(_segment(each, place.inside(f"annotations[{index}]")) for index, each in enumerate(listed)),
    )


def _segment(entry: object, place: Place) -> Segment:
    fields = record(entry, place, 'an object {"segment": [start, end], "label": text}')
    start, end = pair(fields.get("segment"), place.inside("segment"))
    start, end = span(start, end, place)
    return Segment(start, end, text(fields.get("label"), place.inside("label"), "a label (text)"))


def _duration(value: object, place: Place) -> float:
    seconds = number(value, place, "the video's length in seconds")
    if seconds <= 0:
        raise place.wrong(value, "a positive number of seconds")
    return seconds


def _from_table(content: str, path: Path) -> dict[str, Video]:
    about: dict[str, tuple[float, str]] = {}
    segments: dict[str, list[Segment]] = {}
    for place, row in parse_table(content, path, ("video", "start", "end", "label")):
        id = text(row["video"], place.inside("column 'video'"), "the name of a video")
        duration = _duration(row["duration"], place.inside("column 'duration'")) if row.get("duration") else math.nan
        told = duration, row.get("subset", "")
        if about.setdefault(id, told) != told:
            raise place.error(
                f"video {quoted(id)} has duration and subset {told} here, but {about[id]} in an earlier row. "
                "Make them agree."
            )
        segments.setdefault(id, []).extend(_row_segments(row, place))
    videos = {
        id: Video(id=id, duration=duration, subset=subset, segments=tuple(segments[id]))
        for id, (duration, subset) in about.items()
    }
    return _some(videos, path)


def _row_segments(row: Mapping[str, str], place: Place) -> Iterator[Segment]:
    if not (row["start"] or row["end"] or row["label"]):
        return
    start = number(row["start"], place.inside("column 'start'"), "seconds")
    end = number(row["end"], place.inside("column 'end'"), "seconds")
    start, end = span(start, end, place)
    yield Segment(start, end, text(row["label"], place.inside("column 'label'"), "a label"))


def _some(entries: dict[str, Entry], path: Path) -> dict[str, Entry]:
    if not entries:
        raise AnnotationError(f"{path}: no video is listed; expected at least one.")
    return entries


def _of_subset(videos: dict[str, Video], subset: str | None, path: Path) -> dict[str, Video]:
    if subset is None:
        return videos
    chosen = {id: video for id, video in videos.items() if video.subset == subset}
    if not chosen:
        there = ", ".join(repr(name) for name in summarise(videos).subsets)
        raise AnnotationError(f"{path}: no video is in subset {subset!r}; the file has {there}. Choose one of these.")
    return chosen
