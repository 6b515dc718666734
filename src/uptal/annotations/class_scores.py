"""Class scores of videos from other people's classifiers; joining them with proposals is left to `postprocess`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from uptal.annotations.content import parse_json, parse_table, read_text
from uptal.annotations.fields import Place, number, quoted, record, rows, text
from uptal.annotations.thumos import CLASS_IDS

ClassScores = dict[str, dict[str, float]]
"""How likely each class occurs in a video, by id and label."""

_NUM_CLASSES = 101
_NUMPY = b"\x93NUMPY"


def read_class_scores(path: str | Path) -> ClassScores:
    """Class scores of videos from a file in one of three layouts, told apart by content.

    CUHK's for ActivityNet: `{"results": {id: [score, …]}, "class": [name, …]}`. UntrimmedNet's for THUMOS'14: a numpy
    array whose row is a test video's number minus 1 and whose column is a class's number minus 1; of its 101 classes
    the 20 of the detection task are kept, under the ids `video_test_0000001` and so on. A table with a header and the
    columns video,label,score. Scores need not add up to 1.

    Raises:
        AnnotationError: The file is something else, or a score is negative or no number; the message names the place.
    """
    place = Place(Path(path))
    if _begins_like_numpy(place):
        return _untrimmed_net(place)
    content = read_text(place.path)
    scores = _cuhk(content, place) if content.lstrip()[0] in "{[" else _table(content, place)
    if not scores:
        raise place.error("no video is listed; expected at least one.")
    return scores


def scores_of(scores: Mapping[str, Mapping[str, float]], ids: Collection[str]) -> dict[str, Mapping[str, float]]:
    """The scores of these videos, with or without ActivityNet's prefix `v_` on either side; some may be absent."""
    found: dict[str, Mapping[str, float]] = {}
    for id in ids:
        names = (id, id.removeprefix("v_"), f"v_{id}")
        name = next((name for name in names if name in scores), None)
        if name is not None:
            found[id] = scores[name]
    return found


def _cuhk(content: str, place: Place) -> ClassScores:
    top = record(parse_json(content, place.path), place, 'an object with the keys "results" and "class"')
    if not {"results", "class"} <= top.keys():
        raise place.error(f'found the keys {sorted(top)[:5]}, expected "results" and "class".')
    names = [
        text(name, place.inside(f"class[{index}]"), "the name of a class")
        for index, name in enumerate(rows(top["class"], place.inside("class"), "a list of names"))
    ]
    if len(set(names)) != len(names):
        raise place.inside("class").error("a name stands twice.")
    results = record(top["results"], place.inside("results"), "an object {id: scores}")
    return {id: _row(values, names, place.inside(f"video {quoted(id)}")) for id, values in results.items()}


def _row(values: object, names: list[str], place: Place) -> dict[str, float]:
    listed = rows(values, place, f"a list of {len(names)} scores")
    if len(listed) != len(names):
        raise place.error(f"found {len(listed)} scores, expected {len(names)}, one for each class.")
    return {name: _score(value, place.inside(name)) for name, value in zip(names, listed, strict=True)}


def _score(value: object, place: Place) -> float:
    score = number(value, place, "a score (0 or more)")
    if score < 0:
        raise place.wrong(value, "a score of 0 or more; turn logits into probabilities first")
    return score


def _table(content: str, place: Place) -> ClassScores:
    scores: ClassScores = {}
    for here, row in parse_table(content, place.path, ("video", "label", "score")):
        id = text(row["video"], here.inside("column 'video'"), "the name of a video")
        label = text(row["label"], here.inside("column 'label'"), "a label")
        mine = scores.setdefault(id, {})
        if label in mine:
            raise here.error(f"video {quoted(id)} has a score for {quoted(label)} already. Remove one of the two rows.")
        mine[label] = _score(row["score"], here.inside("column 'score'"))
    return scores


def _begins_like_numpy(place: Place) -> bool:
    try:
        with open(place.path, "rb") as file:
            return file.read(len(_NUMPY)) == _NUMPY
    except OSError as error:
        raise place.error(f"cannot be read ({error.strerror or error}). Check the path.") from error


def _untrimmed_net(place: Place) -> ClassScores:
    try:
        table = np.load(place.path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise place.error(f"the numpy array cannot be read ({error}). Is the file complete?") from None
    if table.ndim != 2 or table.shape[1] != _NUM_CLASSES or table.dtype.kind != "f":
        raise place.error(
            f"found an array {table.shape} of {table.dtype}, expected UntrimmedNet's floats (videos, {_NUM_CLASSES})."
        )
    if not (np.isfinite(table).all() and (table >= 0).all()):
        raise place.error("a score is negative or not finite, expected 0 or more.")
    return dict(_thumos_rows(table))


def _thumos_rows(table: np.ndarray) -> Iterator[tuple[str, dict[str, float]]]:
    columns = [index - 1 for index in CLASS_IDS.values()]
    for index, row in enumerate(table[:, columns].tolist(), start=1):
        yield f"video_test_{index:07d}", dict(zip(CLASS_IDS, row, strict=True))
