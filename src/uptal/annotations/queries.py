"""Readers of sentences with their intervals: Charades-STA, ActivityNet Captions, a plain table.

What is odd in official files is kept as it stands (intervals that end after the video; in ActivityNet Captions also
some that end before they start); what only a slip of the pen explains is an error with file and line.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from uptal.annotations.content import parse_json, parse_table, read_text
from uptal.annotations.fields import Place, number, pair, quoted, record, rows, span, text
from uptal.errors import AnnotationError
from uptal.types import Query

SEPARATOR = "##"
"""Between a Charades-STA line's times and its sentence."""


def read_queries(
    path: str | Path, subset: str | None = None, durations: Mapping[str, float] | None = None
) -> list[Query]:
    """Queries of any file that this module reads, in file order; the content tells which, not the name.

    Charades-STA: lines `VIDEO START END##sentence`. ActivityNet Captions: `{video: {"duration", "timestamps",
    "sentences"}}`. A table with a header and the columns video,start,end,sentence; optional are duration and subset,
    and start and end may both be empty where only a prediction is wanted.

    Args:
        path: The file.
        subset: Keep the queries of this split; those of a file that names none belong to every one.
        durations: Seconds of each video, for files that do not give them.

    Raises:
        AnnotationError: The file is something else, or a line cannot be used; the message names file and line.
    """
    path = Path(path)
    content = read_text(path)
    if content.lstrip()[:1] in ("{", "["):
        found = _captions(content, path)
    else:
        found = _charades(content, path) if SEPARATOR in content.lstrip().splitlines()[0] else _table(content, path)
    queries = [query if durations is None else _timed(query, durations) for query in found]
    if not queries:
        raise AnnotationError(f"{path}: no query is listed; expected at least one.")
    return _of_subset(queries, subset, path)


def read_durations(path: str | Path) -> dict[str, float]:
    """Seconds of each video from a table with the columns id,length (Charades) or video,duration.

    Raises:
        AnnotationError: The file is something else; the message names line and column.
    """
    path = Path(path)
    content = read_text(path)
    header = [cell.strip().lower() for cell in content.lstrip().splitlines()[0].split(",")]
    name, length = ("video", "duration") if "duration" in header else ("id", "length")
    found = {}
    for place, row in parse_table(content, path, (name, length)):
        id = text(row[name], place.inside(f"column {name!r}"), "the name of a video")
        found[id] = _seconds(row[length], place.inside(f"column {length!r}"))
    return found


def _charades(content: str, path: Path) -> Iterator[Query]:
    for index, line in enumerate(content.splitlines()):
        place = Place(path, f"line {index + 1}")
        if not line.strip():
            continue
        times, mark, sentence = line.strip().partition(SEPARATOR)  # a later ## belongs to the sentence
        parts = times.split()
        if not mark or len(parts) != 3:
            raise place.error(f"found {quoted(line)}, expected `VIDEO START END##sentence` with times in seconds.")
        start, end = span(number(parts[1], place, "seconds"), number(parts[2], place, "seconds"), place)
        yield _query(str(index), parts[0], sentence, start, end, place)


def _captions(content: str, path: Path) -> Iterator[Query]:
    count = 0
    expected = 'an object {video: {"duration", "timestamps", "sentences"}}'
    for id, entry in record(parse_json(content, path), Place(path), expected).items():
        place = Place(path, f"video {quoted(id)}")
        fields = record(entry, place, 'an object with the keys "duration", "timestamps", "sentences"')
        times = rows(fields.get("timestamps"), place.inside("timestamps"), "a list of [start, end]")
        sentences = rows(fields.get("sentences"), place.inside("sentences"), "a list of sentences")
        if len(times) != len(sentences):
            raise place.error(
                f"found {len(times)} timestamps and {len(sentences)} sentences, expected as many of each."
            )
        duration = _seconds(fields.get("duration"), place.inside("duration"))
        for index, (both, sentence) in enumerate(zip(times, sentences, strict=True)):
            start, end = pair(both, place.inside(f"timestamps[{index}]"))
            here = place.inside(f"sentences[{index}]")
            yield _query(str(count), id, sentence, start, end, here, duration)
            count += 1


def _table(content: str, path: Path) -> Iterator[Query]:
    for index, (place, row) in enumerate(parse_table(content, path, ("video", "start", "end", "sentence"))):
        start = end = math.nan
        if row["start"] or row["end"]:
            start, end = (number(row[name], place.inside(f"column {name!r}"), "seconds") for name in ("start", "end"))
            start, end = span(start, end, place)
        given = row.get("duration", "")
        duration = _seconds(given, place.inside("column 'duration'")) if given else math.nan
        yield _query(str(index), row["video"], row["sentence"], start, end, place, duration, row.get("subset", ""))


def _query(
    id: str,
    video: object,
    sentence: object,
    start: float,
    end: float,
    place: Place,
    duration: float = math.nan,
    subset: str = "",
) -> Query:
    video = text(video, place, "the name of a video")
    if not isinstance(sentence, str) or not any(sign.isalnum() for sign in sentence):
        raise place.error(f"the query {quoted(sentence)} has no word, expected a sentence such as 'a person waves'.")
    sentence = text(sentence, place, "a sentence").strip()
    return Query(
        id=id, video=video, sentence=sentence, start=start, end=end, duration=duration, subset=subset,
        place=f"{place.path}, {place.at}",
    )  # fmt: skip


def _seconds(value: object, place: Place) -> float:
    seconds = number(value, place, "the video's length in seconds")
    if seconds <= 0:
        raise place.wrong(value, "a positive number of seconds")
    return seconds


def _timed(query: Query, durations: Mapping[str, float]) -> Query:
    return dataclasses.replace(query, duration=durations.get(query.video, query.duration))


def _of_subset(queries: Sequence[Query], subset: str | None, path: Path) -> list[Query]:
    chosen = [query for query in queries if subset is None or query.subset in (subset, "")]
    if not chosen:
        there = ", ".join(sorted({query.subset for query in queries}))
        raise AnnotationError(f"{path}: no query is in subset {subset!r}; the file has {there}. Choose one of these.")
    return chosen
