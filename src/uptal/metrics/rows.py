"""Ground truth and predictions of many videos as flat tables of numbers, the form in which they are matched.

Letters: M segments, G ground-truth instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from uptal.errors import AnnotationError
from uptal.metrics.selection import joined
from uptal.types import Detections, Video

UnknownLabels = Literal["error", "false-positive"]
"""Predictions of a class that the ground truth lacks: stop, or count them in no class, as if it were not averaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Segments of all videos in one table, video and class as numbers."""

    segments: Float[np.ndarray, "M 2"]
    """Start and end in seconds."""
    scores: Float[np.ndarray, " M"]
    """Confidence; zeros in the ground truth."""
    video: Int[np.ndarray, " M"]
    """Index of the video in the ground truth, -1 for a video that is not there."""
    label: Int[np.ndarray, " M"]
    """Index of the class."""

    def __getitem__(self, order: Int[np.ndarray, " N"]) -> Rows:
        return Rows(
            segments=self.segments[order], scores=self.scores[order], video=self.video[order], label=self.label[order]
        )

    def __len__(self) -> int:
        return len(self.label)


def without_labels(rows: Rows) -> Rows:
    """The same segments, all of one class."""
    nothing = np.zeros(len(rows), dtype=np.int64)
    return Rows(segments=rows.segments, scores=rows.scores, video=rows.video, label=nothing)


def classes(truth: Mapping[str, Video], ignored: str | None = None) -> tuple[str, ...]:
    """The classes of the ground truth by name, so that no result depends on the order of a file.

    Raises:
        AnnotationError: An instance has no label.
    """
    return tuple(sorted({_label(v, s.label) for v in truth.values() for s in v.segments} - {ignored}))


def truth_rows(truth: Mapping[str, Video], labels: Sequence[str]) -> Rows:
    """The instances of these classes in file order."""
    index = {label: number for number, label in enumerate(labels)}
    rows = [
        (segment.start, segment.end, number, index[segment.label])
        for number, video in enumerate(truth.values())
        for segment in video.segments
        if segment.label in index
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    video, label = table[:, 2:].T.astype(np.int64)
    return Rows(segments=table[:, :2], scores=np.zeros(len(rows)), video=video, label=label)


def prediction_rows(
    truth: Mapping[str, Video], found: Mapping[str, Detections], labels: Sequence[str], unknown_labels: UnknownLabels
) -> tuple[Rows, int]:
    """The predictions of known labels, and the number of the others.

    Raises:
        AnnotationError: Predictions lack labels, or a label is unknown and that is an error.
    """
    place = {id: number for number, id in enumerate(truth)}
    index = {label: number for number, label in enumerate(labels)}
    names = list(chain.from_iterable(_labels_of(id, each) for id, each in found.items()))
    label = np.fromiter(map(index.get, names, repeat(-1)), dtype=np.int64, count=len(names))
    known = label >= 0
    if unknown_labels == "error" and not known.all():
        raise _unknown({names[i] for i in np.flatnonzero(~known)}, labels, int((~known).sum()))
    counts = [len(each) for each in found.values()]
    video = np.repeat(np.array([place.get(id, -1) for id in found], dtype=np.int64), np.array(counts, dtype=np.int64))
    segments, scores = joined(found)
    rows = Rows(segments=segments, scores=scores, video=video, label=label)
    return (rows, 0) if known.all() else (rows[np.flatnonzero(known)], int((~known).sum()))


def _label(video: Video, label: str | None) -> str:
    if label is None:
        raise AnnotationError(f"Video {video.id!r}: an instance has no label; detection needs one for each instance.")
    return label


def _labels_of(id: str, found: Detections) -> Iterable[str]:
    if found.labels is None and len(found):
        raise AnnotationError(
            f"Video {id!r}: the predictions have no labels, which detection needs. Evaluate proposals with "
            "`uptal evaluate proposals`, or join them with class scores first."
        )
    return found.labels or ()


def _unknown(names: set[str], labels: Sequence[str], count: int) -> AnnotationError:
    shown = ", ".join(repr(name) for name in sorted(names)[:5]) + (", …" if len(names) > 5 else "")
    doubtful = (
        " Ambiguous is THUMOS'14's mark of doubtful stretches and not scored; the localizer learnt it as a class. To "
        "train without it: `uptal doctor annotations FILE --drop-labels Ambiguous --write train.json`, then "
        "`uptal train … --annotations train.json`."
    )
    return AnnotationError(
        f"{count} predictions bear {len(names)} labels that the ground truth lacks ({shown}); it has {len(labels)}, "
        f"the first is {labels[0]!r}. Check the spelling and the subset, or allow them as false positives "
        "(--unknown-labels false-positive)." + (doubtful if "Ambiguous" in names else "")
    )
