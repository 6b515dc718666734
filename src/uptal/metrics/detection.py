"""Mean average precision of detections as ActivityNet's `eval_detection` defines it, without its loop over predictions.

Other rules of matching or averaging belong beside it: `match_best_first` and `interpolated_ap` are its two parts.
Letters: T thresholds, K classes, M predictions, G ground-truth instances, P pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from uptal.errors import AnnotationError
from uptal.metrics.overlap import ragged_pairs, tiou
from uptal.metrics.selection import (
    STRICT_TIOUS,
    Ties,
    VideoCounts,
    best_first,
    check_tious,
    count_videos,
    joined,
    select_videos,
    without,
)
from uptal.types import Detections, Video

UnknownLabels = Literal["error", "false-positive"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionScores:
    """Average precision per threshold and class, and how much was compared."""

    tious: tuple[float, ...]
    """Thresholds, as given."""
    labels: tuple[str, ...]
    """Classes of the ground truth, by name, so that no result depends on the order of a file."""
    ap: Float[np.ndarray, "T K"]
    """Interpolated average precision."""
    videos: VideoCounts
    """Coverage."""
    num_truth: int
    """Ground-truth instances."""
    num_predictions: int
    """Predictions that were counted, those of unknown labels not among them."""
    num_unknown_labels: int
    """Predictions whose label no ground-truth instance bears."""

    @property
    def mean_ap(self) -> Float[np.ndarray, " T"]:
        """mAP at each threshold: the mean over all classes of the ground truth."""
        return self.ap.mean(axis=1)

    @property
    def average_map(self) -> float:
        """Mean of the mAP over all thresholds."""
        return float(self.mean_ap.mean())

    def to_json(self) -> dict[str, Any]:
        """Fractions (not per cent) under the names that `uptal evaluate --json` promises."""
        at = {threshold_name(value): float(score) for value, score in zip(self.tious, self.mean_ap, strict=True)}
        return {"mAP": at, "average_mAP": self.average_map, "videos": self.videos.to_json()}


def threshold_name(value: float) -> str:
    """A threshold as a key: two decimals, more where two do not say it.

    >>> threshold_name(0.6000000000000001), threshold_name(0.125)
    ('0.60', '0.125')
    """
    short = f"{value:.2f}"
    return short if abs(float(short) - value) < 1e-9 else f"{value:.9g}"


def detection_map(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    *,
    tious: Sequence[float] = STRICT_TIOUS,
    subset: str | None = None,
    blocked: Collection[str] = (),
    unknown_labels: UnknownLabels = "error",
    ties: Ties = "later-first",
) -> DetectionScores:
    """Interpolated average precision of labelled detections, per class and tIoU threshold.

    In each class the predictions take their turn from the best score down; each takes the free instance of its video
    with which it overlaps most, if the overlap reaches the threshold, and is a false positive otherwise. So are the
    predictions on videos outside the ground truth. A prediction without length matches an instance without length
    (the official 0/0), and such instances exist in the official annotations.

    Args:
        truth: Annotated videos by id; segments in seconds.
        found: Detections by video id; segments in seconds. Videos may be missing.
        tious: Thresholds; an overlap equal to the threshold counts.
        subset: Split to evaluate, `None` for all.
        blocked: Ids to leave out on both sides.
        unknown_labels: What to do with predictions of a class that this ground truth does not hold: stop, as the
            official code does, or count them as false positives of a class that is not averaged, as OpenTAD does.
        ties: Order among equal scores.

    Raises:
        AnnotationError: No ground truth is left, predictions lack labels, or a label is unknown.
        ConfigError: A threshold lies outside (0, 1].

    Source: ActivityNet `Evaluation/eval_detection.py`; the paper's Sec. 4.1 and Table 1 use it.
    """
    thresholds = check_tious(tious)
    chosen = select_videos(truth, subset=subset, blocked=blocked)
    found = without(found, blocked)
    labels = tuple(sorted({_label(video, segment.label) for video in chosen.values() for segment in video.segments}))
    truth_rows = _truth_rows(chosen, labels)
    rows, num_unknown = _prediction_rows(chosen, found, labels, unknown_labels)
    rows = rows[best_first(rows.scores, rows.label, ties)]
    hits = match_best_first(truth_rows, rows, thresholds)
    return DetectionScores(
        tious=tuple(float(value) for value in tious),
        labels=labels,
        ap=_ap_per_class(hits, rows.label, np.bincount(truth_rows.label, minlength=len(labels))),
        videos=count_videos(chosen, found),
        num_truth=len(truth_rows.label),
        num_predictions=len(rows.label),
        num_unknown_labels=num_unknown,
    )


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


def match_best_first(truth: Rows, ranked: Rows, thresholds: Float[np.ndarray, " T"]) -> Bool[np.ndarray, "T M"]:
    """Which predictions are true positives at each threshold; `ranked` stands in the order of their turns per class."""
    num_labels = 1 + max(int(truth.label.max(initial=0)), int(ranked.label.max(initial=0)))
    group = truth.video * num_labels + truth.label
    by_group = np.argsort(group, kind="stable")
    pred, instance, overlap = _candidates(truth[by_group], group[by_group], ranked, num_labels, thresholds.min())
    hits = np.zeros((len(thresholds), len(ranked.label)), dtype=bool)
    for row, threshold in enumerate(thresholds):
        near = overlap >= threshold
        hits[row, take_turns(pred[near], instance[near])] = True
    return hits


def take_turns(pred: Int[np.ndarray, " P"], instance: Int[np.ndarray, " P"]) -> Int[np.ndarray, " N"]:
    """Those of the predictions that get an instance when each in turn takes the first free one of its list.

    All ask at once for the head of their list; where several ask for one instance the earliest keeps it, the others
    move to their next choice, and so on until nobody is refused. Whoever is refused lost to an earlier prediction, so
    the outcome is that of taking turns, in as many rounds as the longest chain of refusals, not one per prediction.

    Args:
        pred: Prediction of each pair, ascending: an earlier prediction has the earlier turn.
        instance: Instance of each pair; the pairs of one prediction stand in its order of choice.
    """
    if not len(pred):
        return pred
    first = np.flatnonzero(np.diff(pred, prepend=-1))
    last = np.append(first[1:], len(pred)) - 1
    holder = np.empty(instance.max() + 1, dtype=np.int64)
    choice = first
    while True:
        asked = instance[choice]
        holder[asked[::-1]] = choice[::-1]  # of several values for one place numpy keeps the last: the earliest turn
        refused = holder[asked] != choice
        if not refused.any():
            return pred[choice]
        keep = ~refused | (choice < last)
        choice, last = (choice + refused)[keep], last[keep]


def interpolated_ap(hits: Bool[np.ndarray, "T M"], num_truth: int) -> Float[np.ndarray, " T"]:
    """Area under the precision-recall curve whose precision is made non-increasing (all points, as in VOC since 2010).

    Args:
        hits: True positives of one class, best prediction first.
        num_truth: Instances of the class.
    """
    found = np.cumsum(hits, axis=1)
    precision = found / np.arange(1, hits.shape[1] + 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return (np.diff(found / num_truth, axis=1, prepend=0.0) * envelope).sum(axis=1)


def _ap_per_class(
    hits: Bool[np.ndarray, "T M"], label: Int[np.ndarray, " M"], num_truth: Int[np.ndarray, " K"]
) -> Float[np.ndarray, "T K"]:
    cuts = np.searchsorted(label, np.arange(len(num_truth) + 1))
    ap = np.zeros((len(hits), len(num_truth)))
    for index, (start, end) in enumerate(pairwise(cuts)):
        if hits[:, start:end].any():
            ap[:, index] = interpolated_ap(hits[:, start:end], int(num_truth[index]))
    return ap


def _candidates(
    truth: Rows, group: Int[np.ndarray, " G"], ranked: Rows, num_labels: int, least: float
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Pairs of one video and class that overlap enough, by turn and then by choice: most overlap first, then later."""
    wanted = np.where(ranked.video < 0, -1, ranked.video * num_labels + ranked.label)
    known, first, sizes = np.unique(group, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    start, count = first[place], np.where(known[place] == wanted, sizes[place], 0)
    pieces = []
    for pred, instance in ragged_pairs(start, count):
        overlap = tiou(ranked.segments[pred], truth.segments[instance])
        overlap = np.where(np.isnan(overlap), np.inf, overlap)  # 0/0 passes every threshold and is the first choice
        near = overlap >= least
        pieces.append((pred[near], instance[near], overlap[near]))
    pred, instance, overlap = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    same = np.flatnonzero(pred[1:] == pred[:-1])
    several = np.union1d(same, same + 1)  # only predictions with a choice need sorting
    order = np.arange(len(pred))
    order[several] = several[np.lexsort((-instance[several], -overlap[several], pred[several]))]
    return pred, instance[order], overlap[order]


def _label(video: Video, label: str | None) -> str:
    if label is None:
        raise AnnotationError(f"Video {video.id!r}: an instance has no label; detection needs one for each instance.")
    return label


def _truth_rows(truth: Mapping[str, Video], labels: Sequence[str]) -> Rows:
    index = {label: number for number, label in enumerate(labels)}
    rows = [
        (segment.start, segment.end, number, index[_label(video, segment.label)])
        for number, video in enumerate(truth.values())
        for segment in video.segments
    ]
    start, end, video, label = zip(*rows, strict=True)
    segments = np.array([start, end], dtype=np.float64).T
    return Rows(segments=segments, scores=np.zeros(len(rows)), video=np.array(video), label=np.array(label))


def _prediction_rows(
    truth: Mapping[str, Video], found: Mapping[str, Detections], labels: Sequence[str], unknown_labels: UnknownLabels
) -> tuple[Rows, int]:
    """The predictions of known labels, and the number of the others."""
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
    return rows[np.flatnonzero(known)], int((~known).sum())


def _labels_of(id: str, found: Detections) -> Iterable[str]:
    if found.labels is None and len(found):
        raise AnnotationError(
            f"Video {id!r}: the predictions have no labels, which detection needs. Evaluate proposals with "
            "`uptal evaluate proposals`, or join them with class scores first."
        )
    return found.labels or ()


def _unknown(names: set[str], labels: Sequence[str], count: int) -> AnnotationError:
    shown = ", ".join(repr(name) for name in sorted(names)[:5]) + (", …" if len(names) > 5 else "")
    return AnnotationError(
        f"{count} predictions bear {len(names)} labels that the ground truth lacks ({shown}); it has {len(labels)}, "
        f"the first is {labels[0]!r}. Check the spelling and the subset, or allow them as false positives "
        "(--unknown-labels false-positive)."
    )
