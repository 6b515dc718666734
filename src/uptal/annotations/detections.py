"""Files of what was found: ActivityNet's submission JSON, in and out, and a table for people."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uptal.annotations.content import parse_json, read_text
from uptal.annotations.fields import Place, number, pair, quoted, record, rows, text
from uptal.errors import AnnotationError
from uptal.files import atomic_write
from uptal.types import Detections

_Row = tuple[float, float, float, str | None]
_HUGE = sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A file of predictions: what was found, and what the file says about how."""

    found: dict[str, Detections]
    """Predictions of each video, in file order."""
    about: dict[str, Any] = field(default_factory=dict)
    """What `uptal predict` noted (the file's key `uptal`); empty in files from elsewhere."""


def read_detections(path: str | Path) -> dict[str, Detections]:
    """Detections or proposals of each video, by id, in file order.

    The layout is ActivityNet's submission: `{"results": {id: [{"segment": [start, end], "score", "label"}]}}`, seconds;
    proposals have no label. Segments are taken as they stand, even where they end before they start or begin before 0,
    as the official evaluators do: such predictions count as wrong, they do not stop the evaluation of the others.
    Scores may have any finite size, since they only rank.

    Raises:
        AnnotationError: The file is something else; the message names video, entry and field.
    """
    return read_submission(path).found


def read_submission(path: str | Path) -> Submission:
    """The predictions of `read_detections` together with what the file says about their making.

    Raises:
        AnnotationError: As `read_detections`.
    """
    path = Path(path)
    place = Place(path)
    top = record(parse_json(read_text(path), path), place, 'an object with the key "results"')
    if "results" not in top:
        hint = " These are annotations, not predictions." if "database" in top else ""
        raise place.error(f'found the keys {sorted(top)[:5]}, expected "results".{hint}')
    results = record(top.pop("results"), place.inside("results"), "an object {id: predictions}")
    found = {}
    for id in list(results):  # popped: a big file shrinks as it goes
        found[id] = _video(id, results.pop(id), place.inside(f"video {quoted(id)}"))
    about = top.get("uptal", {})
    return Submission(found=found, about=record(about, place.inside("uptal"), "an object"))


def write_detections(
    path: str | Path,
    found: Mapping[str, Detections],
    version: str = "VERSION 1.3",
    about: Mapping[str, Any] | None = None,
    external: str | None = None,
) -> None:
    """Write the submission JSON that `read_detections` and the official evaluators read, one video a line.

    Args:
        path: The file.
        found: Predictions of each video.
        version: The benchmark's version, as its server wants it.
        about: How the predictions were made; stands under the key `uptal`, which the official evaluators pass over.
        external: What outside data were used, in words, for the official key `external_data`.

    Raises:
        AnnotationError: A time or score is not finite, or a name is not valid Unicode.
        UptalError: The file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(f'{{"version": {json.dumps(version)},\n"results": {{')
        for index, (id, each) in enumerate(_checked(found, path).items()):
            entries = [_entry(*row) for row in _rows_of(each)]
            file.write(("," if index else "") + f"\n{json.dumps(id)}: {json.dumps(entries)}")
        outside = {} if external is None else {"used": True, "details": external}
        noted = "" if about is None else f',\n"uptal": {json.dumps(dict(about))}'
        file.write(f'}},\n"external_data": {json.dumps(outside)}{noted}}}\n')


def write_csv(path: str | Path, found: Mapping[str, Detections]) -> None:
    """Write a table video,start,end,label,score: seconds to the microsecond, scores in full; no label for proposals.

    Raises:
        AnnotationError: A time or score is not finite, or a name is not valid Unicode.
        UptalError: The file cannot be written.
    """
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("video", "start", "end", "label", "score"))
        for id, each in _checked(found, path).items():
            table.writerows(
                (id, round(start, 6), round(end, 6), label or "", score) for start, end, score, label in _rows_of(each)
            )


def _video(id: str, entries: object, place: Place) -> Detections:
    text(id, place, "an id")
    listed = rows(entries, place, "a list of predictions")
    table = _plain_rows(listed)
    if table is None:
        table = [_row(entry, place, index) for index, entry in enumerate(listed)]
    labels = tuple(label for *_, label in table if label is not None)
    if labels and len(labels) != len(table):
        first = next(index for index, row in enumerate(table) if row[3] is None)
        raise place.inside(f"entry {first}").error("the label is missing, though others of this video have one.")
    numbers = np.array([row[:3] for row in table], dtype=np.float64).reshape(-1, 3)
    return Detections(numbers[:, :2].copy(), numbers[:, 2].copy(), labels or None)


def _plain_rows(entries: list[Any]) -> list[_Row] | None:
    """The rows where all are as they should be (a fast way), else `None`: `_row` then names the culprit."""
    try:
        table = [(*entry["segment"], entry["score"], entry.get("label")) for entry in entries]
    except (TypeError, KeyError, AttributeError):
        return None
    if not all(map(_is_plain, table)):
        return None
    return [
        (float(start), float(end), float(score), None if label is None else sys.intern(label))
        for start, end, score, label in table
    ]


def _is_plain(row: tuple[Any, ...]) -> bool:
    *numbers, label = row
    if len(numbers) != 3 or not all(type(value) in (float, int) and -_HUGE < value < _HUGE for value in numbers):
        return False
    return label is None or (type(label) is str and label.isascii() and bool(label.strip()))


def _row(entry: object, place: Place, index: int) -> _Row:
    place = place.inside(f"entry {index}")
    fields = record(entry, place, 'an object {"segment": [start, end], "score": number}')
    start, end = pair(fields.get("segment"), place.inside("segment"))
    score = number(fields.get("score"), place.inside("score"), "a score (number)")
    label = fields.get("label")
    if label is None:
        return start, end, score, None
    return start, end, score, sys.intern(text(label, place.inside("label"), "a label (text)"))


def _entry(start: float, end: float, score: float, label: str | None) -> dict[str, object]:
    named = {} if label is None else {"label": label}
    return {"segment": [start, end], **named, "score": score}


def _rows_of(found: Detections) -> list[_Row]:
    labels = found.labels or (None,) * len(found)
    starts, ends, scores = found.segments[:, 0].tolist(), found.segments[:, 1].tolist(), found.scores.tolist()
    return list(zip(starts, ends, scores, labels, strict=True))


def _checked(found: Mapping[str, Detections], path: str | Path) -> Mapping[str, Detections]:
    """Refuse, before a byte is written, what no reader could read."""
    for id, each in found.items():
        place = Place(Path(path), f"video {quoted(id)}")
        text(id, place, "an id")
        for label in dict.fromkeys(each.labels or ()):
            text(label, place.inside("label"), "a label")
        if not (np.isfinite(each.segments).all() and np.isfinite(each.scores).all()):
            raise AnnotationError(
                f"{path}: a time or score of video {quoted(id)} is not a finite number; nothing is written."
            )
    return found
