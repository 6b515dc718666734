"""Segments of one video as subtitles, SubRip (.srt) and WebVTT (.vtt): detections out, for players, and labels in."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from uptal.annotations.fields import Place
from uptal.annotations.gathering import Row, instance
from uptal.files import atomic_write
from uptal.types import Detections, Segment

_CUE = re.compile(r"\s*((?:\d+:)?\d+:\d+[.,]\d+)\s*-->\s*((?:\d+:)?\d+:\d+[.,]\d+)(?:\s.*)?$")
_SCORE = re.compile(r"\s*\(\d\.\d\d\)$")
"""The score that `write_srt` and `write_vtt` put behind a label."""


def is_subtitles(begin: str) -> bool:
    """Whether a file that begins like this holds subtitles."""
    return begin.startswith("WEBVTT") or any(_CUE.match(line) for line in begin.splitlines()[:3])


def subtitle_rows(content: str, place: Place) -> Iterator[Row]:
    """Every cue as an instance, its text as the label; the file's name is the video's.

    A score behind the label, as `uptal detect` writes it, is left out, so that its subtitles can be corrected in a
    subtitle editor and used as annotations. The tags of WebVTT are left out, too.

    Raises:
        AnnotationError: A cue has no text or ends before it starts; the message names the line.
    """
    yield Row(place=place, video=place.path.stem, segment=None)
    lines = content.splitlines()
    for index, line in enumerate(lines):
        match = _CUE.match(line)
        if match is None:
            continue
        here = place.inside(f"line {index + 1}")
        spoken = lines[index + 1 :]
        end = next((number for number, each in enumerate(spoken) if not each.strip()), len(spoken))
        words = html.unescape(re.sub(r"</?[A-Za-z][^>]*>", "", " ".join(spoken[:end])))
        with here.excused():
            label = _SCORE.sub("", " ".join(words.split()))
            yield Row(
                place=here, video=place.path.stem, segment=instance(_seconds(match[1]), _seconds(match[2]), label, here)
            )


def _seconds(clock: str) -> float:
    """Seconds of a time such as `01:02:03,046` or `02:03.046`.

    >>> _seconds("01:02:03,046")
    3723.046
    """
    seconds = 0.0
    for part in clock.replace(",", ".").split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


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
