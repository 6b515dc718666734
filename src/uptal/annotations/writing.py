"""Annotations out: ActivityNet's JSON or a CSV table, whatever they were read from."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path

from uptal.errors import ConfigError
from uptal.files import atomic_write
from uptal.types import Video


def write_annotations(path: str | Path, videos: Mapping[str, Video]) -> None:
    """Write annotations that `read_annotations` reads back the same: `.json` as ActivityNet's, `.csv` as our table.

    Raises:
        ConfigError: The file's name has another ending.
        UptalError: The file cannot be written.
    """
    endings = {".json": _json, ".csv": _csv}
    path = Path(path)
    if path.suffix.lower() not in endings:
        raise ConfigError(f"{path}: annotations are written as .json (ActivityNet) or .csv, found {path.suffix!r}.")
    content = endings[path.suffix.lower()](videos)
    with atomic_write(path) as file:
        if isinstance(content, str):
            file.write(content)
        else:
            csv.writer(file, lineterminator="\n").writerows(content)


def _json(videos: Mapping[str, Video]) -> str:
    database = {}
    for id, video in videos.items():
        known = {} if math.isnan(video.duration) else {"duration": video.duration}
        listed = [{"segment": [segment.start, segment.end], "label": segment.label} for segment in video.segments]
        database[id] = {"subset": video.subset, **known, "annotations": listed}
    return json.dumps({"version": "uptal", "taxonomy": [], "database": database}, indent=1) + "\n"


def _csv(videos: Mapping[str, Video]) -> list[tuple[object, ...]]:
    table: list[tuple[object, ...]] = [("video", "start", "end", "label", "subset", "duration")]
    for id, video in videos.items():
        about = (video.subset, "" if math.isnan(video.duration) else video.duration)
        table += [(id, segment.start, segment.end, segment.label, *about) for segment in video.segments]
        if not video.segments:
            table.append((id, "", "", "", *about))
    return table
