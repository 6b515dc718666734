"""Lists of clips, with or without classes, as data sets publish them, matched with the files of a folder.

UCF101      Class/v_Class_g01_c01.avi 1        (the number, if any, is passed over: the folder names the class)
coviar      Class/v_Class_g01_c01.avi Class 0
Kinetics    label,youtube_id,time_start,time_end,split   as CSV; files are <id>_<start>_<end> or <id>
table       video,label                                   as CSV
names       a path or a file name a line, with or without its ending; where classes are not asked for
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uptal.errors import AnnotationError


@dataclass(frozen=True)
class Labelled:
    """One line of a list."""

    names: tuple[str, ...]
    """Names under which the file may be found, without ending, the likeliest first; `folder/stem` or `stem`."""
    label: str
    """Its class; empty where the list has none and none is asked for."""
    split: str = ""
    """`train`, `val` or `test`, where the list says so, or what else it says there."""


@dataclass(frozen=True)
class Matched:
    """What of a list is in a folder."""

    found: list[tuple[Path, str]]
    """Files with their classes, in the list's order."""
    missing: list[str]
    """Names that no file has."""
    unclear: dict[str, list[Path]]
    """Names that fit several files equally well."""


def read_clip_list(path: Path, classes: bool = True) -> list[Labelled]:
    """All lines of a list; without `classes`, also lists that only say which videos.

    Raises:
        AnnotationError: The file cannot be read, is empty, or a line has no class although it should.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read as a list of videos ({error}).") from error
    filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not filled:
        raise AnnotationError(f"{path}: the list is empty; expected lines such as `Class/video.avi 1`.")
    header = [cell.strip() for cell in filled[0][1].split(",")]
    if ("label" in header or not classes) and ("youtube_id" in header or "video" in header):
        rows = csv.DictReader(lines, skipinitialspace=True)
        return [_row(path, number, row, classes) for number, row in enumerate(rows, 2)]
    return [_line(path, number, line) if classes else _name_only(line) for number, line in filled]


def of_split(entries: Sequence[Labelled], split: str) -> list[Labelled]:
    """The entries of one split, by any of its usual names (`val`, `validate`, `validation`)."""
    return [entry for entry in entries if entry.split == _split_name(split)]


def match_files(entries: Sequence[Labelled], paths: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[str]]:
    """The files that a list names, with their classes, in its order; and the names of those that are not there.

    Endings do not matter, as copies have others. A stem alone suffices where only one file has it.
    """
    by_stem, found, missing = _by_stem(paths), [], []
    for entry in entries:
        places = _places(entry, by_stem)
        if len(places) == 1:
            found.append((places[0], entry.label))
        else:
            missing.append(entry.names[0])
    return found, missing


def match_list(entries: Sequence[Labelled], paths: Sequence[Path]) -> Matched:
    """As `match_files`, with names that fit several files told from those that fit none."""
    by_stem, matched = _by_stem(paths), Matched([], [], {})
    for entry in entries:
        places = _places(entry, by_stem)
        if len(places) == 1:
            matched.found.append((places[0], entry.label))
        elif places:
            matched.unclear[entry.names[0]] = places
        else:
            matched.missing.append(entry.names[0])
    return matched


def _by_stem(paths: Sequence[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem, []).append(path)
    return found


def _places(entry: Labelled, by_stem: Mapping[str, list[Path]]) -> list[Path]:
    """The files that share most folders with one of the entry's names; with the first of equally good names."""
    most, best = 0, []
    for name in entry.names:
        parts = name.split("/")
        some = by_stem.get(parts[-1], [])
        shared = [_shared(parts[:-1], path.parent.parts) for path in some]
        if some and 1 + max(shared) > most:
            most, best = 1 + max(shared), [p for p, s in zip(some, shared, strict=True) if s == max(shared)]
    return best


def _shared(some: Sequence[str], others: Sequence[str]) -> int:
    """How many of the innermost folders are the same."""
    pairs = zip(reversed(some), reversed(others), strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(some), len(others)))


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


_ENDING = re.compile(r"\.\w{2,4}$")
_ENDED = re.compile(r"(.+?\.\w{2,4})[\s,]")
"""A file name with its ending, and something behind it."""
_NUMBERED = re.compile(r"(.*[^\s,])[\s,]+\d+$")
"""A name with the number of a class behind it."""


def _name_only(line: str) -> Labelled:
    """A line's name, whatever stands behind it: spaces may be part of the name, so the whole line comes first."""
    line = line.replace("\\", "/")
    texts = [line, *(match[1] for pattern in (_ENDED, _NUMBERED) if (match := pattern.match(line)))]
    names = [name for text in texts for name in (text, _ENDING.sub("", text))]
    return Labelled(tuple(dict.fromkeys(names)), "")


def _split_name(text: str) -> str:
    """
    >>> _split_name("validate"), _split_name("Training"), _split_name("holdout")
    ('val', 'train', 'holdout')
    """
    text = text.strip().lower()
    return {"training": "train", "validate": "val", "validation": "val", "testing": "test"}.get(text, text)


def _row(path: Path, number: int, row: dict[str, str | None], classes: bool) -> Labelled:
    label, split = (row.get("label") or "").strip(), _split_name(row.get("split") or "")
    if not label and classes:
        raise AnnotationError(f"{path}, line {number}: the column 'label' is empty.")
    if row.get("video"):
        place = PurePosixPath(str(row["video"]).strip())
        ending = place.suffix.lower() in (".mp4", ".avi", ".mkv", ".webm", ".mov")
        return Labelled((str(place.with_suffix("") if ending else place),), label, split)
    id, start, end = (str(row.get(key) or "").strip() for key in ("youtube_id", "time_start", "time_end"))
    if not id:
        missing = "youtube_id" if "youtube_id" in row else "video"
        raise AnnotationError(f"{path}, line {number}: the column '{missing}' is empty.")
    whole = id
    if start.isdigit() and end.isdigit():
        whole = f"{id}_{int(start):06d}_{int(end):06d}"
    if not label:
        return Labelled((whole, id), label, split)
    return Labelled((f"{label}/{whole}", f"{label.replace(' ', '_')}/{whole}", f"{label}/{id}"), label, split)
