"""Label Studio's JSON export: labelled ranges on a video's timeline, a time series or an audio track."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from uptal.annotations.fields import Place, number, quoted, record, rows
from uptal.annotations.gathering import Row, file_stem, instance

_LABELS = ("timelinelabels", "timeserieslabels", "labels", "hypertextlabels", "paragraphlabels")
_SOURCES = ("video", "video_url", "url", "audio", "csv", "timeseries", "ts")
_RATES = ("fps", "frame_rate", "framerate", "frameRate")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def is_export(value: object) -> bool:
    """Whether a JSON value is a list of tasks."""
    return isinstance(value, list) and bool(value) and all(isinstance(task, dict) for task in value)


def task_rows(tasks: Sequence[Mapping[str, Any]], place: Place, fps: float | int | None) -> Iterator[Row]:
    """The labelled ranges of every task, in the full export or in the short one (JSON-MIN).

    Ranges on a video's timeline are frames, counted from 1, both ends included. The export does not hold the frame
    rate: a task's data may (`fps`), or it is given. Ranges on time series and audio are seconds. Regions of other
    kinds (boxes, whole-video choices) are passed over. Of several annotations of one task the one marked as ground
    truth counts; cancelled ones do not.

    Args:
        tasks: The export.
        place: The file.
        fps: Frames per second of videos whose task does not tell.

    Raises:
        AnnotationError: A task or range is something else, or its frame rate is unknown; the message names the task.
    """
    for index, task in enumerate(tasks):
        here = place.inside(f"task {task.get('id', index)}")
        data = task.get("data", task)
        with here.excused():
            data = record(data, here.inside("data"), "an object")
            name = _video(data, here)
            yield Row(place=here, video=name, segment=None)
            rate = next((data[key] for key in _RATES if key in data), fps)
            rate = None if rate is None else number(rate, here.inside("fps"), "frames per second")
            for at, value in _regions(task, here):
                with at.excused():
                    yield from _rows(name, value, rate, at)


def _video(data: Mapping[str, Any], place: Place) -> str:
    names = [data[key] for key in _SOURCES if isinstance(data.get(key), str)]
    names += [value for value in data.values() if isinstance(value, str) and "." in value]
    if not names:
        raise place.inside("data").error(f"found the keys {sorted(data)[:5]}, expected the address of a video.")
    return _UPLOAD.sub("", file_stem(names[0])) if "upload" in names[0] else file_stem(names[0])


def _regions(task: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The values of all regions with a label of ours."""
    found: list[tuple[Place, object]] = []
    if "annotations" in task or "completions" in task:
        key = "annotations" if "annotations" in task else "completions"
        for index, result in enumerate(_results(rows(task[key], place.inside(key), "a list"), place)):
            at = place.inside(f"result {index}")
            found.append((at, record(result, at, "an object").get("value")))
    else:
        for key, listed in task.items():
            if isinstance(listed, list):
                found += [(place.inside(f"{key}[{index}]"), value) for index, value in enumerate(listed)]
    yield from ((at, value) for at, value in found if isinstance(value, dict) and any(key in value for key in _LABELS))


def _results(annotations: Sequence[object], place: Place) -> Sequence[object]:
    counted = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
    chosen = [each for each in counted if each.get("ground_truth")] or counted
    if len(chosen) > 1:
        raise place.error(
            f"{len(chosen)} people annotated this task, expected one annotation, or one marked as ground truth."
        )
    return rows(chosen[0].get("result"), place.inside("result"), "a list") if chosen else ()


def _rows(name: str, value: Mapping[str, Any], fps: float | None, place: Place) -> Iterator[Row]:
    key = next(key for key in _LABELS if key in value)
    if "ranges" in value:
        spans = [_frames(each, fps, place) for each in rows(value["ranges"], place.inside("ranges"), "a list")]
    elif "start" in value and "end" in value:
        spans = [tuple(number(value[side], place.inside(side), "seconds") for side in ("start", "end"))]
    else:
        return
    for start, end in spans:
        for label in rows(value[key], place.inside(key), "a list of labels"):
            yield Row(place=place, video=name, segment=instance(start, end, label, place))


def _frames(value: object, fps: float | None, place: Place) -> tuple[float, float]:
    if fps is None or fps <= 0:
        raise place.error(
            "the range is counted in frames and the frame rate is unknown. Add it to the task's data as "
            f"{quoted('fps')}, or convert with `uptal doctor annotations FILE --fps 25 --write annotations.csv`."
        )
    fields = record(value, place, 'an object {"start", "end"}')
    start, end = (number(fields.get(side), place.inside(side), "the number of a frame") for side in ("start", "end"))
    return (start - 1) / fps, end / fps
