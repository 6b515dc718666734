"""Instances from CSV tables: our own columns, those of G-TAD's two tables for THUMOS'14, and class labels of videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from uptal.annotations.content import parse_table
from uptal.annotations.fields import Place, number, span, text
from uptal.annotations.gathering import Row
from uptal.annotations.thumos import class_at
from uptal.types import Segment


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How a kind of table calls what it holds."""

    video: str = "video"
    start: str = "start"
    end: str = "end"
    label: str = "label"
    duration: str = "duration"
    numbered: bool = False
    """Whether labels are places in THUMOS'14's list of classes, -1 for `Ambiguous`."""

    @property
    def required(self) -> tuple[str, str, str, str]:
        """Without these it is no such table."""
        return self.video, self.start, self.end, self.label


OWN = Columns()
DIALECTS = (
    OWN,
    Columns(label="type"),
    Columns(
        video="video-name", start="t-init", end="t-end", label="label-idx", duration="video-duration", numbered=True
    ),
)


def table_rows(content: str, place: Place) -> Iterator[Row]:
    """The rows of a table with a header and the columns video,start,end,label.

    Optional columns: subset, duration (seconds); others are ignored. One row is one instance; a row whose start, end
    and label are empty declares a video without any. G-TAD's tables call the columns otherwise and are known by that.

    Raises:
        AnnotationError: It is something else; the message names line and column.
    """
    header = [cell.strip().lower() for cell in content.lstrip().splitlines()[0].split(",")]
    columns = next((kind for kind in DIALECTS if set(kind.required) <= set(header)), OWN)
    for at, row in parse_table(content, place.path, columns.required):
        here = place.inside(at.at)
        with here.excused():
            yield _row(row, columns, here)


def seconds(value: object, place: Place) -> float:
    """The length of a video.

    Raises:
        AnnotationError: It is not a positive number.
    """
    result = number(value, place, "the video's length in seconds")
    if result <= 0:
        raise place.wrong(value, "a positive number of seconds")
    return result


def _row(row: Mapping[str, str], columns: Columns, place: Place) -> Row:
    def cell(name: str) -> tuple[str, Place]:
        return row[name], place.inside(f"column {name!r}")

    duration = row.get(columns.duration, "")
    return Row(
        place=place,
        video=text(*cell(columns.video), "the name of a video"),
        segment=_segment(row, columns, place),
        subset=row.get("subset", ""),
        duration=seconds(*cell(columns.duration)) if duration else math.nan,
    )


def _segment(row: Mapping[str, str], columns: Columns, place: Place) -> Segment | None:
    names = (columns.start, columns.end, columns.label)
    start, end, label = (place.inside(f"column {name!r}") for name in names)
    if not any(row[name] for name in names):
        return None
    first, last = number(row[names[0]], start, "seconds"), number(row[names[1]], end, "seconds")
    first, last = span(first, last, place)
    named = class_at(number(row[names[2]], label), label) if columns.numbered else text(row[names[2]], label, "a label")
    return Segment(first, last, named)
