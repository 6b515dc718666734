"""Why detections are wrong: each false positive gets one kind, each missed instance counts, each kind has its price.

In the spirit of DETAD and TIDE with definitions of our own (docs/evaluation.md): a false positive is judged by what it
overlaps, and the price of a kind is what the mAP would gain if such predictions had not been made.
Letters: M predictions, K classes, G instances.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from uptal.metrics.detection import ACTIVITYNET_RULES, Matched, Rules, match_detections
from uptal.metrics.matching import candidates
from uptal.metrics.overlap import tiou as tiou_of
from uptal.metrics.rows import UnknownLabels, without_labels
from uptal.metrics.selection import Ties
from uptal.types import Detections, Video

KINDS = ("double", "localisation", "class", "class and localisation", "background")
"""Kinds of false positives, in the order in which they are asked: the first that fits names it."""
TOUCHES = 0.1
"""tIoU from which a prediction has something to do with an instance."""
DEPTH = 10
"""Predictions that are counted, as a multiple of the instances of their class; the long tail is background anyway."""
NUM_LENGTHS = 5
"""Groups of equally many instances by length."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """Errors of a result at one threshold."""

    tiou: float
    """Overlap that makes a hit."""
    labels: tuple[str, ...]
    """Classes by name."""
    mean_ap: float
    """mAP at this threshold."""
    kind: Int[np.ndarray, " M"]
    """Place in `KINDS` of each prediction, -1 for a hit, -2 for what does not count."""
    label: Int[np.ndarray, " M"]
    """Class of each prediction."""
    depth: Float[np.ndarray, " M"]
    """Rank of each prediction within its class, from 0, in multiples of the class's number of instances."""
    length: Float[np.ndarray, " M"]
    """Seconds of each prediction."""
    truth_label: Int[np.ndarray, " G"]
    """Class of each instance."""
    truth_length: Float[np.ndarray, " G"]
    """Seconds of each instance."""
    missed: Bool[np.ndarray, " G"]
    """Instances that no prediction got."""
    gains: dict[str, float]
    """What the mAP would gain without each kind, and without the missed instances."""

    def counts(self, chosen: Bool[np.ndarray, " M"], depth: float | int = DEPTH) -> dict[str, int]:
        """Hits and false positives of each kind among the chosen predictions down to a depth."""
        kinds = self.kind[chosen & (self.depth < depth)]
        return {name: int((kinds == code).sum()) for code, name in enumerate(("hit", *KINDS), start=-1)}

    def to_json(self) -> dict[str, Any]:
        """Tables as plain values; counts go down to `DEPTH` predictions for each instance of a class."""
        everything = np.ones(len(self.kind), dtype=bool)
        total = self.counts(everything)
        return {
            "tiou": self.tiou,
            "touches_from": TOUCHES,
            "predictions_per_instance": DEPTH,
            "mAP": self.mean_ap,
            "counts": total,
            "missed": int(self.missed.sum()),
            "instances": len(self.missed),
            "gains": self.gains,
            "classes": {label: self._of_class(index) for index, label in enumerate(self.labels)},
            "lengths": self._by_length(),
            "profile": {str(n): self.counts(everything, n) for n in range(1, DEPTH + 1)},
        }

    def _of_class(self, index: int) -> dict[str, int]:
        mine = self.truth_label == index
        about = {"instances": int(mine.sum()), "missed": int(self.missed[mine].sum())}
        return about | self.counts(self.label == index)

    def _by_length(self) -> list[dict[str, Any]]:
        """Instances in groups by length; a prediction belongs to the group into which its own length falls."""
        shares = np.linspace(0, 1, NUM_LENGTHS + 1)[1:]
        edges = np.unique(np.quantile(self.truth_length, shares, method="inverted_cdf"))[:-1]
        groups, mine = np.searchsorted(edges, self.truth_length), np.searchsorted(edges, self.length)
        found = []
        for number in np.unique(groups):
            chosen = groups == number
            lengths = self.truth_length[chosen]
            about = {"from": float(lengths.min()), "to": float(lengths.max()), "instances": int(chosen.sum())}
            found.append(about | {"missed": int(self.missed[chosen].sum())} | self.counts(mine == number))
        return found


def diagnose(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    *,
    tiou: float = 0.5,
    subset: str | None = None,
    blocked: Collection[str] = (),
    unknown_labels: UnknownLabels = "error",
    ties: Ties = "later-first",
    rules: Rules = ACTIVITYNET_RULES,
) -> Diagnosis:
    """Sorts the false positives by cause, with the arguments and errors of `detection_map`.

    A false positive is, by the first of these that fits: *double*, if it overlaps an instance of its class by `tiou`,
    which another prediction has got; *localisation*, if it overlaps one by 0.1; *class*, if it overlaps an instance of
    another class by `tiou`; *class and localisation*, if by 0.1; else *background*.
    """
    matched = match_detections(
        truth,
        found,
        tious=[tiou],
        subset=subset,
        blocked=blocked,
        unknown_labels=unknown_labels,
        ties=ties,
        rules=rules,
    )
    kind, missed = _kinds(matched, tiou), np.ones(len(matched.truth), dtype=bool)
    missed[matched.got[0][matched.got[0] >= 0]] = False
    label = matched.ranked.label
    rank = np.arange(len(label)) - np.searchsorted(label, label)
    return Diagnosis(
        tiou=tiou,
        labels=matched.labels,
        mean_ap=float(matched.ap().mean()),
        kind=kind,
        label=label,
        depth=rank / matched.num_truth[label],
        length=matched.ranked.segments[:, 1] - matched.ranked.segments[:, 0],
        truth_label=matched.truth.label,
        truth_length=matched.truth.segments[:, 1] - matched.truth.segments[:, 0],
        missed=missed,
        gains=_gains(matched, kind, missed),
    )


def _kinds(matched: Matched, tiou: float) -> Int[np.ndarray, " M"]:
    truth, ranked = matched.truth, matched.ranked
    same = _most(len(ranked), *candidates(truth, ranked, tiou_of, TOUCHES))
    pred, instance, overlap = candidates(without_labels(truth), without_labels(ranked), tiou_of, TOUCHES)
    foreign = truth.label[instance] != ranked.label[pred]
    other = _most(len(ranked), pred[foreign], instance[foreign], overlap[foreign])
    asked = [same >= tiou, same >= TOUCHES, other >= tiou, other >= TOUCHES]
    kind = np.select(asked, range(len(asked)), len(asked))
    return np.where(matched.got[0] >= 0, -1, np.where(matched.counted[0], kind, -2))


def _most(count: int, pred: np.ndarray, _: np.ndarray, overlap: np.ndarray) -> Float[np.ndarray, " M"]:
    """The largest overlap of each prediction; 0 where it has none."""
    most = np.zeros(count)
    np.maximum.at(most, pred, np.nan_to_num(overlap, nan=1.0))
    return most


def _gains(matched: Matched, kind: Int[np.ndarray, " M"], missed: Bool[np.ndarray, " G"]) -> dict[str, float]:
    now = matched.ap().mean()
    gains = {name: float(matched.ap(keep=(kind != code)[None]).mean() - now) for code, name in enumerate(KINDS)}
    there = matched.num_truth - np.bincount(matched.truth.label[missed], minlength=len(matched.labels))
    return gains | {"missed": float(matched.ap(num_truth=np.maximum(there, 1)[None]).mean() - now)}
