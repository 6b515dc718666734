"""Lists of labelled clips as classification data sets publish them, matched with the files of a folder.

UCF101      Class/v_Class_g01_c01.avi 1        (the number, if any, is passed over: the folder names the class)
coviar      Class/v_Class_g01_c01.avi Class 0
Kinetics    label,youtube_id,time_start,time_end,split   as CSV; files are <id>_<start>_<end> or <id>
table       video,label                                   as CSV
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uptal.errors import AnnotationError


@dataclass(frozen=True)
class Labelled:
    """One line of a list."""

    names: tuple[str, ...]
    """Names under which the file may be found, without ending, the likeliest first; `folder/stem` or `stem`."""
    label: str


def read_clip_list(path: Path) -> list[Labelled]:
    """All lines of a list.

    Raises:
        AnnotationError: The file cannot be read, is empty, or a line has no class.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as a list of videos ({error}).") from error
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise AnnotationError(f"{path}: the list is empty; expected lines such as `Class/video.avi 1`.")
    header = [cell.strip() for cell in filled[0][1].split(",")]
    if "label" in header and ("youtube_id" in header or "video" in header):
        return [_row(path, number, row) for number, row in enumerate(csv.DictReader(lines), 2)]
    return [_line(path, number, line) for number, line in filled]


def match_files(entries: Sequence[Labelled], paths: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[str]]:
    """The files that a list names, with their classes, in its order; and the names of those that are not there.

    Endings do not matter, as copies have others. A stem alone suffices where only one file has it.
    """
    exact = {f"{path.parent.name}/{path.stem}": path for path in paths}
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, []).append(path)
    found, missing = [], []
    for entry in entries:
        stems = [by_stem.get(name.rsplit("/", 1)[-1], []) for name in entry.names]
        alone = [some[0] for some in stems if len(some) == 1]
        places = [exact[name] for name in entry.names if name in exact] or alone
        if places:
            found.append((places[0], entry.label))
        else:
            missing.append(entry.names[0])
    return found, missing


def _line(path: Path, number: int, line: str) -> Labelled:
    name, *rest = line.split()
    place = PurePosixPath(name.replace("\\", "/"))
    key = str(place.with_suffix("")) if place.suffix else str(place)
    key = "/".join(key.split("/")[-2:])
    if rest and not rest[0].isdigit():
        return Labelled((key,), rest[0])
    if "/" in key:
        return Labelled((key,), key.split("/")[0])
    if rest:
        return Labelled((key,), rest[0])
    raise AnnotationError(f"{path}, line {number}: {line!r} has no class; expected `Class/video.avi` or `video.avi 3`.")


def _row(path: Path, number: int, row: dict[str, str | None]) -> Labelled:
    label = (row.get("label") or "").strip()
    if not label:
        raise AnnotationError(f"{path}, line {number}: the column 'label' is empty.")
    if row.get("video"):
        place = PurePosixPath(str(row["video"]).strip())
        ending = place.suffix.lower() in (".mp4", ".avi", ".mkv", ".webm", ".mov")
        return Labelled((str(place.with_suffix("") if ending else place),), label)
    id, start, end = (str(row.get(key) or "").strip() for key in ("youtube_id", "time_start", "time_end"))
    if not id:
        raise AnnotationError(f"{path}, line {number}: the column 'youtube_id' is empty.")
    whole = id
    if start.isdigit() and end.isdigit():
        whole = f"{id}_{int(start):06d}_{int(end):06d}"
    return Labelled((f"{label}/{whole}", f"{label.replace(' ', '_')}/{whole}", f"{label}/{id}"), label)
