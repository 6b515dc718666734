"""Files of what was found for sentences: JSON lines, in and out, and their matching with annotated queries.

One line a query: `{"video": id, "sentence": text, "segments": [[start, end], …], "scores": […]}`, best first, seconds.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uptal.annotations.content import read_text
from uptal.annotations.fields import Place, number, pair, quoted, record, rows, text
from uptal.errors import AnnotationError
from uptal.files import atomic_write
from uptal.types import Detections, Query


@dataclass(frozen=True)
class Answer:
    """What was found for one sentence in one video."""

    video: str
    sentence: str
    found: Detections
    """Candidates, best first; without labels."""


def write_groundings(path: str | Path, answers: Iterable[Answer]) -> None:
    """Writes the JSON lines that `read_groundings` reads.

    Raises:
        AnnotationError: A time or score is not finite.
        UptalError: The file cannot be written.
    """
    with atomic_write(path) as file:
        for answer in answers:
            segments, scores = answer.found.segments, answer.found.scores
            if not (np.isfinite(segments).all() and np.isfinite(scores).all()):
                raise AnnotationError(
                    f"{path}: a time or score of the answer to {quoted(answer.sentence)} in video "
                    f"{quoted(answer.video)} is not a finite number; nothing is written."
                )
            line = {
                "video": answer.video,
                "sentence": answer.sentence,
                "segments": segments.tolist(),
                "scores": scores.tolist(),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_groundings(path: str | Path) -> list[Answer]:
    """Answers in file order. Segments are taken as they stand: one that ends before it starts counts as wrong.

    Raises:
        AnnotationError: The file is something else; the message names line and field.
    """
    path = Path(path)
    answers = [
        _answer(line, Place(path, f"line {number}"))
        for number, line in enumerate(read_text(path).splitlines(), 1)
        if line.strip()
    ]
    return answers


def match_answers(queries: Sequence[Query], answers: Sequence[Answer]) -> list[Detections | None]:
    """The answer to each query, `None` where there is none, by video and sentence (blanks do not count).

    A sentence that is annotated several times in a video takes its answers in their order, the last one for the rest.
    """
    given: dict[tuple[str, str], list[Detections]] = defaultdict(list)
    for answer in answers:
        given[_key(answer.video, answer.sentence)].append(answer.found)
    seen: Counter[tuple[str, str]] = Counter()
    matched: list[Detections | None] = []
    for query in queries:
        key = _key(query.video, query.sentence)
        several = given.get(key)
        matched.append(several[min(seen[key], len(several) - 1)] if several else None)
        seen[key] += 1
    return matched


def _key(video: str, sentence: str) -> tuple[str, str]:
    return video, " ".join(sentence.split())


def _answer(line: str, place: Place) -> Answer:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise place.error(
            f"this is not JSON ({str(error)[:80]}). Expected one object a line, as `uptal predict` writes for LGI."
        ) from None
    fields = record(value, place, 'an object {"video", "sentence", "segments", "scores"}')
    segments = rows(fields.get("segments"), place.inside("segments"), "a list of [start, end]")
    scores = rows(fields.get("scores"), place.inside("scores"), "a list of numbers")
    if len(segments) != len(scores):
        raise place.error(f"found {len(segments)} segments and {len(scores)} scores, expected as many of each.")
    spans = [pair(each, place.inside(f"segments[{index}]")) for index, each in enumerate(segments)]
    values = [number(each, place.inside(f"scores[{index}]"), "a score") for index, each in enumerate(scores)]
    return Answer(
        video=text(fields.get("video"), place.inside("video"), "the name of a video"),
        sentence=text(fields.get("sentence"), place.inside("sentence"), "a sentence"),
        found=Detections(np.array(spans, np.float64).reshape(-1, 2), np.array(values, np.float64)),
    )
