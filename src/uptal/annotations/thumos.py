"""THUMOS'14's annotation files, one a class, and the numbers of its classes; `Ambiguous` is one like others here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from uptal.annotations.content import read_text
from uptal.annotations.fields import Place, number
from uptal.annotations.gathering import Row, instance

CLASS_IDS = {
    "BaseballPitch": 7,
    "BasketballDunk": 9,
    "Billiards": 12,
    "CleanAndJerk": 21,
    "CliffDiving": 22,
    "CricketBowling": 23,
    "CricketShot": 24,
    "Diving": 26,
    "FrisbeeCatch": 31,
    "GolfSwing": 33,
    "HammerThrow": 36,
    "HighJump": 40,
    "JavelinThrow": 45,
    "LongJump": 51,
    "PoleVault": 68,
    "Shotput": 79,
    "SoccerPenalty": 85,
    "TennisSwing": 92,
    "ThrowDiscus": 93,
    "VolleyballSpiking": 97,
}
"""The 20 classes of the detection task, by name, with their 1-based numbers among the 101 of the recognition task."""
AMBIGUOUS = "Ambiguous"
"""The label of stretches of which the annotators could not say whether they show an action."""
SUBSETS = {"test": "test", "val": "validation"}
"""How the file names of a split end, and what the split is called."""
_FILE = re.compile(r"(\w+)_(test|val)\.txt")


def class_files(folder: Path) -> list[Path]:
    """The files `<class>_test.txt` and `<class>_val.txt` of a folder, or of its `temporal_annotations_*` folders."""
    inside = [folder, *sorted(folder.glob("temporal_annotations_*"))]
    return [file for each in inside for file in sorted(each.glob("*.txt")) if _FILE.fullmatch(file.name)]


def is_class_file(path: Path, content: str) -> bool:
    """Whether this is one class's file, by its name and its first line."""
    first = content.lstrip().splitlines()[0]
    return bool(_FILE.fullmatch(path.name)) and bool(re.fullmatch(r"\S+\s+\S+\s+\S+\s*", first))


def class_rows(files: Sequence[Path], problems: list[str] | None) -> Iterator[Row]:
    """Lines `video start end` in seconds, the class in the file's name. Everything is kept as it stands: stretches
    labelled `Ambiguous`, and cliff dives, which are listed a second time as dives.

    Raises:
        AnnotationError: A line is something else; the message names file and line.
    """
    for file in files:
        match = _FILE.fullmatch(file.name)
        assert match is not None
        for index, line in enumerate(read_text(file).splitlines(), start=1):
            place = Place(file, f"line {index}", problems)
            if line.strip():
                with place.excused():
                    yield _row(line, place, label=match[1], subset=SUBSETS[match[2]])


def class_at(index: float, place: Place) -> str:
    """The class at this place of the alphabetical list, from 0; -1 is `Ambiguous`.

    Raises:
        AnnotationError: There is none.
    """
    names = list(CLASS_IDS)
    if index == -1:
        return AMBIGUOUS
    if index not in range(len(names)):
        raise place.wrong(index, f"a class from 0 to {len(names) - 1}, or -1 for Ambiguous")
    return names[int(index)]


def _row(line: str, place: Place, *, label: str, subset: str) -> Row:
    cells = line.split()
    if len(cells) != 3:
        raise place.error(f"found {len(cells)} words, expected three: VIDEO START END, in seconds.")
    start = number(cells[1], place.inside("start"), "seconds")
    end = number(cells[2], place.inside("end"), "seconds")
    return Row(place=place, video=cells[0], segment=instance(start, end, label, place), subset=subset)
