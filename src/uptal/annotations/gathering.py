"""From single instances, as every tool writes them, to videos; what the tools' files look like is for their readers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from uptal.annotations.fields import Place, quoted, span, text
from uptal.errors import AnnotationError
from uptal.types import Segment, Video

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of an annotation table, whatever the file: an instance, or a video without any."""

    place: Place
    """Where it stands."""
    video: str
    """Id of the video."""
    segment: Segment | None
    """The instance; None only declares the video."""
    subset: str = ""
    """Split of the video, where the file tells."""
    duration: float = math.nan
    """Seconds of the video, where the file tells."""


def instance(start: float, end: float, label: object, place: Place) -> Segment:
    """An annotated instance with a label.

    Raises:
        AnnotationError: It begins before 0, ends before it begins, or has no label.
    """
    start, end = span(start, end, place)
    return Segment(start, end, text(label, place.inside("label"), "a label (text)"))


def gather(rows: Iterable[Row], place: Place) -> dict[str, Video]:
    """The rows by video, videos and instances in their order.

    Raises:
        AnnotationError: There is none, or two rows disagree about their video.
    """
    about: dict[str, tuple[float, str]] = {}
    segments: dict[str, list[Segment]] = {}
    for row in rows:
        with place.excused():
            _agree(about, row)
            here = segments.setdefault(row.video, [])
            if row.segment is not None:
                here.append(row.segment)
    videos = {
        id: Video(id=id, duration=duration, subset=subset, segments=tuple(segments[id]))
        for id, (duration, subset) in about.items()
    }
    return some(videos, place)


def some(entries: dict[str, Entry], place: Place) -> dict[str, Entry]:
    """What was read, if it is anything.

    Raises:
        AnnotationError: It is nothing.
    """
    if not entries:
        raise place.error("no video is listed; expected at least one.")
    return entries


def file_stem(name: str) -> str:
    """The id of a video from a path or address of its file: the file name without its ending.

    >>> file_stem("file:///videos/My%20jump.mp4"), file_stem("https://host/jump.mp4?raw=1")
    ('My jump', 'jump')
    """
    path = urlsplit(name).path if "://" in name or "?" in name else name
    return PurePosixPath(unquote(path).replace("\\\\", "/")).stem


def merge(parts: Iterable[dict[str, Video]], place: Place) -> dict[str, Video]:
    """The videos of several files.

    Raises:
        AnnotationError: Two files annotate one video.
    """
    videos: dict[str, Video] = {}
    for part in parts:
        for id, video in part.items():
            if id in videos:
                raise place.error(f"video {quoted(id)} is annotated in two files. Remove or join one of them.")
            videos[id] = video
    return videos


def _agree(about: dict[str, tuple[float, str]], row: Row) -> None:
    told, before = (row.duration, row.subset), about.setdefault(row.video, (row.duration, row.subset))
    same = before[1] == told[1] and (before[0] == told[0] or (math.isnan(before[0]) and math.isnan(told[0])))
    if not same:
        raise AnnotationError(
            f"{row.place.path}, {row.place.at}: video {quoted(row.video)} has duration and subset {told} here, but "
            f"{before} in an earlier row. Make them agree."
        )
