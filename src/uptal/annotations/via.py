"""The VGG Image Annotator's files for video (version 3): the project as JSON, and its table of annotations.

A segment's label is the value of its first attribute; choices have numbers as values, which the options name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from typing import Any

from uptal.annotations.content import parse_json
from uptal.annotations.fields import Place, number, quoted, record, rows, text
from uptal.annotations.gathering import Row, file_stem, instance
from uptal.errors import AnnotationError

PROJECT_KEYS = frozenset({"project", "attribute", "file", "metadata"})
"""A JSON object with these is a VIA project."""
_COLUMNS = ("metadata_id", "file_list", "flags", "temporal_coordinates", "spatial_coordinates", "metadata")


def project_rows(project: Mapping[str, Any], place: Place) -> Iterator[Row]:
    """The temporal segments of a project, and its videos without any.

    Frames and drawn shapes (one time instead of two) are passed over: they are no segments.

    Raises:
        AnnotationError: An entry is something else; the message names it.
    """
    attributes = record(project["attribute"], place.inside("attribute"), "an object")
    names = _names(project, place)
    for name in names.values():
        yield Row(place=place, video=name, segment=None)
    for key, entry in record(project["metadata"], place.inside("metadata"), "an object").items():
        here = place.inside(f"metadata {quoted(key)}")
        with here.excused():
            fields = record(entry, here, 'an object {"vid", "z", "av"}')
            vid = str(fields.get("vid"))
            if vid not in names:
                raise here.inside("vid").wrong(fields.get("vid"), f"one of the {len(names)} views of the project")
            yield from _rows(names[vid], fields.get("z"), fields.get("av"), attributes, here)


def is_table(begin: str) -> bool:
    """Whether this is VIA's table: comment lines, one of which names the columns."""
    return begin.startswith("#") and "CSV_HEADER" in begin[:100_000]


def table_rows(content: str, place: Place) -> Iterator[Row]:
    """The temporal segments of an exported table.

    Raises:
        AnnotationError: A line is something else; the message names line and column.
    """
    attributes: dict[str, Any] = {}
    for index, line in enumerate(content.splitlines(), start=1):
        here = place.inside(f"line {index}")
        if line.startswith("#"):
            if line.startswith("# ATTRIBUTE = "):
                attributes = record(_json(line.removeprefix("# ATTRIBUTE = "), here), here, "an object")
            continue
        cells = next(csv.reader([line]), [])
        if not any(cells):
            continue
        with here.excused():
            if len(cells) != len(_COLUMNS):
                raise here.error(f"found {len(cells)} cells, expected {len(_COLUMNS)}: {','.join(_COLUMNS)}.")
            row = dict(zip(_COLUMNS, cells, strict=True))
            files = rows(_json(row["file_list"], here.inside("file_list")), here.inside("file_list"), "a list of files")
            name = file_stem(text(files[0] if files else None, here.inside("file_list"), "a file name"))
            times, values = (_json(row[key], here.inside(key)) for key in ("temporal_coordinates", "metadata"))
            yield from _rows(name, times, values, attributes, here)


def _rows(name: str, times: object, values: object, attributes: Mapping[str, Any], place: Place) -> Iterator[Row]:
    both = rows(times, place.inside("temporal coordinates"), "a list of times in seconds")
    if len(both) != 2:
        return
    start, end = (number(value, place.inside("temporal coordinates"), "seconds") for value in both)
    for label in _labels(record(values, place.inside("attributes"), "an object of values"), attributes, place):
        yield Row(place=place, video=name, segment=instance(start, end, label, place))


def _labels(values: Mapping[str, object], attributes: Mapping[str, Any], place: Place) -> list[str]:
    """The labels of a segment: several where its attribute is a list of boxes to tick."""
    for key in sorted(values, key=lambda key: (len(key), key)):
        value = values[key]
        if not isinstance(value, str) or not value.strip():
            continue
        about = attributes.get(key)
        options = about.get("options") if isinstance(about, dict) else None
        known = options if isinstance(options, dict) else {}
        parts = value.split(",") if all(part in known for part in value.split(",")) else [value]
        return [str(known.get(part, part)).strip() for part in parts]
    raise place.error("the segment has no value for any attribute, expected a label. Give it one in the annotator.")


def _names(project: Mapping[str, Any], place: Place) -> dict[str, str]:
    """The name of each view's video."""
    files = record(project["file"], place.inside("file"), "an object")
    names = {}
    for key, each in files.items():
        here = place.inside(f"file {quoted(key)}")
        fields = record(each, here, 'an object with the key "fname"')
        names[str(key)] = file_stem(text(fields.get("fname"), here.inside("fname"), "a file name"))
    views = project.get("view")
    if not isinstance(views, dict):
        return names
    shown = {str(vid): view.get("fid_list") for vid, view in views.items() if isinstance(view, dict)}
    return {vid: names[str(fids[0])] for vid, fids in shown.items() if fids and str(fids[0]) in names}


def _json(cell: str, place: Place) -> object:
    try:
        return parse_json(cell, place.path)
    except AnnotationError:
        raise place.wrong(cell, "JSON, as the annotator exports it") from None
