"""Detections of one video as subtitles, so that any player shows them: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

from uptal.files import atomic_write
from uptal.types import Detections, Segment


def write_srt(path: str | Path, found: Detections) -> None:
    """Write SubRip subtitles, by start time: label and score of each segment while it lasts.

    Raises:
        UptalError: The file cannot be written.
    """
    with atomic_write(path) as file:
        for index, segment in enumerate(_by_time(found), start=1):
            file.write(f"{index}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n{_line(segment)}\n\n")


def write_vtt(path: str | Path, found: Detections) -> None:
    """Write WebVTT subtitles for the `<track>` of a web page, by start time.

    Raises:
        UptalError: The file cannot be written.
    """
    with atomic_write(path) as file:
        file.write("WEBVTT\n\n")
        for segment in _by_time(found):
            line = html.escape(_line(segment), quote=False)
            file.write(f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}\n{line}\n\n")


def _by_time(found: Detections) -> Iterator[Segment]:
    """Segments in order of start; those that end where or before they start cannot be shown."""
    shown = [segment for segment in found.as_segments() if max(segment.start, 0.0) < segment.end]
    yield from sorted(shown, key=lambda segment: (segment.start, segment.end))


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds, milliseconds.

    >>> _clock(3723.0456, ",")
    '01:02:03,046'
    """
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _line(segment: Segment) -> str:
    """Label and score on one line; neither line breaks nor arrows can end the cue early."""
    label = " ".join((segment.label or "proposal").split()).replace("-->", "→")
    return label if segment.score is None else f"{label} ({segment.score:.2f})"
