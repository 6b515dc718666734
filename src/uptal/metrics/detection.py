"""Mean average precision of detections by the rules of a benchmark, without a loop over predictions.

Who gets which instance is in `matching`, what that is worth in `precision`, why something is wrong in `diagnosis`.
Letters: T thresholds, K classes, M predictions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from uptal.errors import ConfigError
from uptal.metrics.matching import Matcher, match_best_first, match_truth_first, overlaps_any
from uptal.metrics.precision import Area, eleven_point_ap, interpolated_ap, precision_at_hits
from uptal.metrics.rows import Rows, UnknownLabels, classes, prediction_rows, truth_rows
from uptal.metrics.selection import (
    STRICT_TIOUS,
    Ties,
    VideoCounts,
    best_first,
    check_tious,
    count_videos,
    select_videos,
    without,
)
from uptal.types import Detections, Video


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a benchmark matches and averages."""

    match: Matcher = match_best_first
    """Who chooses whom."""
    area: Area = interpolated_ap
    """What average precision means."""
    ignored: str | None = None
    """Label of the segments that are no class: an unmatched prediction that touches one is not counted at all."""
    by_name: bool = False
    """Take videos by name and, of equal scores, the earlier entry first, instead of the order of `Ties`."""
    hits_first: bool = False
    """Of equal scores, count true positives before false ones."""


ACTIVITYNET_RULES = Rules()
"""ActivityNet's `eval_detection`; G-TAD runs it on THUMOS'14, too."""
DEVKIT_RULES = Rules(match=match_truth_first, area=eleven_point_ap, ignored="Ambiguous", by_name=True, hits_first=True)
"""The toolkit of the THUMOS'14 challenge (TH14EvalKit)."""
UPDATED_DEVKIT_RULES = Rules(match=match_truth_first, area=precision_at_hits, ignored="Ambiguous", by_name=True)
"""Its later version, which differs in what average precision means and in the order of equal scores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectionScores:
    """Average precision per threshold and class, and how much was compared."""

    tious: tuple[float, ...]
    """Thresholds, as given."""
    labels: tuple[str, ...]
    """Classes of the ground truth, by name, so that no result depends on the order of a file."""
    ap: Float[np.ndarray, "T K"]
    """Average precision."""
    videos: VideoCounts
    """Coverage."""
    num_truth_of: Int[np.ndarray, " K"]
    """Ground-truth instances of each class."""
    num_predictions: int
    """Predictions that were counted, those of unknown labels not among them."""
    num_unknown_labels: int
    """Predictions whose label no ground-truth instance bears."""

    @property
    def num_truth(self) -> int:
        """Ground-truth instances."""
        return int(self.num_truth_of.sum())

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
    rules: Rules = ACTIVITYNET_RULES,
) -> DetectionScores:
    """Average precision of labelled detections, per class and tIoU threshold.

    By ActivityNet's rules the predictions of each class take their turn from the best score down; each takes the free
    instance of its video with which it overlaps most, if the overlap reaches the threshold, and is a false positive
    otherwise. So are the predictions on videos outside the ground truth. A prediction without length matches an
    instance without length (the official 0/0), and such instances exist in the official annotations.

    Args:
        truth: Annotated videos by id; segments in seconds.
        found: Detections by video id; segments in seconds. Videos may be missing. Scores only rank: any finite range.
        tious: Thresholds; by ActivityNet's rules an overlap equal to the threshold counts, by the others it does not.
        subset: Split to evaluate, `None` for all.
        blocked: Ids to leave out on both sides.
        unknown_labels: What to do with predictions of a class that this ground truth does not hold: stop, as the
            official code does, or count them as false positives of a class that is not averaged, as OpenTAD does.
        ties: Order among equal scores.
        rules: Whose rules.

    Raises:
        AnnotationError: No ground truth is left, predictions lack labels, or a label is unknown.
        ConfigError: A threshold lies outside (0, 1], or the rules have an order of ties of their own.

    Source: ActivityNet `Evaluation/eval_detection.py`; the paper's Sec. 4.1 and Table 1 use it.
    """
    matched = match_detections(
        truth,
        found,
        tious=tious,
        subset=subset,
        blocked=blocked,
        unknown_labels=unknown_labels,
        ties=ties,
        rules=rules,
    )
    return DetectionScores(
        tious=matched.tious,
        labels=matched.labels,
        ap=matched.ap(),
        videos=matched.videos,
        num_truth_of=matched.num_truth,
        num_predictions=len(matched.ranked),
        num_unknown_labels=matched.num_unknown_labels,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """Every prediction beside the instance that it got: what scores and diagnoses are made from."""

    tious: tuple[float, ...]
    """Thresholds, as given."""
    labels: tuple[str, ...]
    """Classes of the ground truth, by name."""
    truth: Rows
    """Instances in file order."""
    ranked: Rows
    """Predictions by class and then from the best down."""
    got: Int[np.ndarray, "T M"]
    """The instance that each prediction got, -1 for none."""
    counted: Bool[np.ndarray, "T M"]
    """Hits and false positives; what only touches an ignored segment is neither."""
    rules: Rules
    """Whose rules."""
    videos: VideoCounts
    """Coverage."""
    num_unknown_labels: int
    """Predictions whose label no ground-truth instance bears; they are not in `ranked`."""

    @property
    def num_truth(self) -> Int[np.ndarray, " K"]:
        """Instances of each class."""
        return np.bincount(self.truth.label, minlength=len(self.labels))

    def ap(
        self, keep: Bool[np.ndarray, "T M"] | None = None, num_truth: Int[np.ndarray, "T K"] | None = None
    ) -> Float[np.ndarray, "T K"]:
        """Average precision of each class.

        Args:
            keep: Only these predictions, as if the others had not been made.
            num_truth: Another number of instances, as if the others did not exist.
        """
        counted = self.counted if keep is None else self.counted & keep
        hits = (self.got >= 0) & counted
        numbers = np.broadcast_to(self.num_truth, (len(hits), len(self.labels))) if num_truth is None else num_truth
        cuts = np.searchsorted(self.ranked.label, np.arange(len(self.labels) + 1))
        ap = np.zeros(numbers.shape)
        for index, (start, end) in enumerate(pairwise(cuts)):
            mine, count = hits[:, start:end], counted[:, start:end]
            if self.rules.hits_first:
                mine, count = _hits_first(mine, count, self.ranked.scores[start:end])
            if mine.any():
                ap[:, index] = self.rules.area(mine, count, numbers[:, index])
        return ap


def match_detections(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    *,
    tious: Sequence[float] = STRICT_TIOUS,
    subset: str | None = None,
    blocked: Collection[str] = (),
    unknown_labels: UnknownLabels = "error",
    ties: Ties = "later-first",
    rules: Rules = ACTIVITYNET_RULES,
) -> Matched:
    """The assignment behind `detection_map`, with the same arguments and errors."""
    thresholds = check_tious(tious)
    chosen = select_videos(truth, subset=subset, blocked=blocked)
    found = without(found, blocked)
    labels = classes(chosen, rules.ignored)
    if rules.by_name:
        if ties == "numpy":
            raise ConfigError("These rules order equal scores in their own way; --ties numpy is for ActivityNet's.")
        found, ties = dict(sorted(found.items())), "earlier-first"
    instances = truth_rows(chosen, labels)
    rows, num_unknown = prediction_rows(chosen, found, labels, unknown_labels)
    ranked = rows[best_first(rows.scores, rows.label, ties)]
    got = rules.match(instances, ranked, thresholds)
    counted = np.ones(got.shape, dtype=bool)
    if rules.ignored is not None:
        counted = (got >= 0) | ~overlaps_any(truth_rows(chosen, [rules.ignored]), ranked)
    return Matched(
        tious=tuple(float(value) for value in tious),
        labels=labels,
        truth=instances,
        ranked=ranked,
        got=got,
        counted=counted,
        rules=rules,
        videos=count_videos(chosen, found),
        num_unknown_labels=num_unknown,
    )


def _hits_first(
    hits: Bool[np.ndarray, "T M"], counted: Bool[np.ndarray, "T M"], scores: Float[np.ndarray, " M"]
) -> tuple[Bool[np.ndarray, "T M"], Bool[np.ndarray, "T M"]]:
    order = np.lexsort((~hits, np.broadcast_to(-scores, hits.shape)), axis=1)
    return np.take_along_axis(hits, order, 1), np.take_along_axis(counted, order, 1)
