"""Readers of what people annotated: which of the formats a file is in, and ActivityNet's own.

The other formats stand in files of their own beside this one.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from uptal.annotations import elan, label_studio, subtitles, tables, thumos, via
from uptal.annotations.content import parse_json, parse_table, read_text
from uptal.annotations.fields import Place, pair, quoted, record, rows, text
from uptal.annotations.gathering import gather, instance, merge, some
from uptal.errors import AnnotationError
from uptal.files import digest
from uptal.types import Video

_ENDINGS = (".eaf", ".srt", ".vtt", ".json", ".csv")
"""Files that a folder of annotations may hold, one or several videos each."""


def read_annotations(
    path: str | Path,
    subset: str | None = None,
    *,
    problems: list[str] | None = None,
    fps: float | int | None = None,
) -> dict[str, Video]:
    """Annotated videos from any file or folder in a format of this package; the content tells which, not the name.

    ActivityNet's JSON (or the BMN layout), CSV with columns video,start,end,label, THUMOS'14's class files or G-TAD's
    tables, ELAN, the VGG Image Annotator, Label Studio, subtitles (SRT, WebVTT). A folder holds THUMOS'14's class
    files, or files of the other kinds that annotate different videos.

    Args:
        path: The file or folder.
        subset: Keep only the videos of this split.
        problems: Collects what is wrong with single instances, which are then left out; None stops at the first.
        fps: Frames per second, for Label Studio's ranges of frames where the export does not tell.

    Raises:
        AnnotationError: It cannot be read as any of these; the message names the place.
    """
    place = Place(Path(path), problems=problems)
    videos = _from_folder(place, fps) if place.path.is_dir() else _from_file(place, fps)
    return _of_subset(videos, subset, place.path)


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
    return _of_subset(_from_activitynet(parse_json(read_text(path), path), Place(path)), subset, path)


def read_csv(path: str | Path, subset: str | None = None) -> dict[str, Video]:
    """Annotated videos from a table (see `tables.table_rows`), by id, in file order.

    Args:
        path: The file.
        subset: Keep only the videos of this split.

    Raises:
        AnnotationError: The file is something else; the message names line and column.
    """
    path = Path(path)
    place = Place(path)
    return _of_subset(gather(tables.table_rows(read_text(path), place), place), subset, path)


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
    return some(labels, Place(path))


def annotations_digest(path: str | Path) -> str:
    """SHA-256 of a file of annotations; of a folder, over the names and contents of the files that are read there.

    Raises:
        UptalError: A file is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        return digest(path)
    total = hashlib.sha256()
    for file in thumos.class_files(path) or _annotation_files(path):
        total.update(f"{file.relative_to(path).as_posix()} {digest(file)}\n".encode())
    return total.hexdigest()


def _annotation_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _ENDINGS)


def _from_folder(place: Place, fps: float | int | None) -> dict[str, Video]:
    files = thumos.class_files(place.path)
    if files:
        return gather(thumos.class_rows(files, place.problems), place)
    files = _annotation_files(place.path)
    if not files:
        raise place.error(
            "the folder cannot be read as annotations: found neither <class>_test.txt nor files that end in "
            f"{' '.join(_ENDINGS)}."
        )
    return merge((_from_file(Place(file, problems=place.problems), fps) for file in files), place)


def _from_file(place: Place, fps: float | int | None) -> dict[str, Video]:
    content = read_text(place.path)
    begin = content.lstrip()
    if begin[0] in "{[":
        return _from_json(parse_json(content, place.path), place, fps)
    if begin[0] == "<":
        return gather(elan.elan_rows(content, place), place)
    if subtitles.is_subtitles(begin):
        return gather(subtitles.subtitle_rows(content, place), place)
    if via.is_table(begin):
        return gather(via.table_rows(content, place), place)
    if thumos.is_class_file(place.path, begin):
        return gather(thumos.class_rows([place.path], place.problems), place)
    return gather(tables.table_rows(content, place), place)


def _from_json(value: object, place: Place, fps: float | int | None) -> dict[str, Video]:
    if label_studio.is_export(value):
        assert isinstance(value, list)
        return gather(label_studio.task_rows(value, place, fps), place)
    if isinstance(value, dict) and value.keys() >= via.PROJECT_KEYS:
        return gather(via.project_rows(value, place), place)
    return _from_activitynet(value, place)


def _from_activitynet(value: object, place: Place) -> dict[str, Video]:
    top = record(value, place, 'an object with the key "database"')
    if "results" in top and "database" not in top:
        raise place.error('these are predictions (key "results"); expected annotations (key "database").')
    database = record(top.get("database", top), place.inside("database"), "an object {id: video}")
    return some({id: _video(id, entry, place.inside(f"video {quoted(id)}")) for id, entry in database.items()}, place)


def _video(id: str, entry: object, place: Place) -> Video:
    text(id, place, "an id")
    fields = record(entry, place, 'an object with the key "annotations"')
    subset = fields.get("subset", "")
    if not isinstance(subset, str):
        raise place.inside("subset").wrong(subset, "the name of a split")
    key = "duration_second" if "duration_second" in fields else "duration"
    listed = rows(fields.get("annotations"), place.inside("annotations"), "a list of annotated segments")
    segments = []
    for index, each in enumerate(listed):
        here = place.inside(f"annotations[{index}]")
        with here.excused():
            about = record(each, here, 'an object {"segment": [start, end], "label": text}')
            start, end = pair(about.get("segment"), here.inside("segment"))
            segments.append(instance(start, end, about.get("label"), here))
    return Video(
        id=id,
        duration=tables.seconds(fields[key], place.inside(key)) if key in fields else math.nan,
        subset=subset,
        segments=tuple(segments),
    )


def _of_subset(videos: dict[str, Video], subset: str | None, path: Path) -> dict[str, Video]:
    if subset is None:
        return videos
    chosen = {id: video for id, video in videos.items() if video.subset == subset}
    if not chosen:
        there = ", ".join(repr(name) for name in dict.fromkeys(video.subset for video in videos.values()))
        raise AnnotationError(f"{path}: no video is in subset {subset!r}; the file has {there}. Choose one of these.")
    return chosen
