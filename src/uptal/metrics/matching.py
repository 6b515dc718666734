"""Which prediction gets which instance: predictions choose in ActivityNet's rule, instances in that of THUMOS'14.

Both are the same game of taking turns with the roles exchanged, played for all videos and classes at once.
Letters: T thresholds, M predictions, G ground-truth instances, P pairs, N matches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from uptal.metrics.overlap import hull_overlap, ragged_pairs, tiou
from uptal.metrics.rows import Rows, without_labels

Matcher = Callable[[Rows, Rows, np.ndarray], np.ndarray]
"""(ground truth, predictions from the best down, thresholds) -> (T, M) the instance that each got, -1 for none."""


def match_best_first(truth: Rows, ranked: Rows, thresholds: Float[np.ndarray, " T"]) -> Int[np.ndarray, "T M"]:
    """Each prediction in turn takes the free instance of its class and video that it overlaps most, if that is enough.

    An overlap equal to the threshold is enough, and so is the 0/0 of two segments without length.

    Args:
        truth: Instances in file order; of two equal overlaps a prediction prefers the later instance.
        ranked: Predictions in the order of their turns.
        thresholds: Overlaps that are enough.
    """
    pred, instance, overlap = candidates(truth, ranked, tiou, thresholds.min())
    overlap = np.where(np.isnan(overlap), np.inf, overlap)
    order = _by_choice(pred, -overlap, -instance)
    instance, overlap = instance[order], overlap[order]
    got = np.full((len(thresholds), len(ranked)), -1)
    for row, threshold in enumerate(thresholds):
        near = overlap >= threshold
        takers, taken = take_turns(pred[near], instance[near])
        got[row, takers] = taken
    return got


def match_truth_first(truth: Rows, ranked: Rows, thresholds: Float[np.ndarray, " T"]) -> Int[np.ndarray, "T M"]:
    """Each instance in turn takes the free prediction that overlaps it most, if that is more than the threshold.

    So a prediction of a low score can win over one of a high score; of equal overlaps the better scored one is taken.

    Args:
        truth: Instances in the order of their turns.
        ranked: Predictions, best first.
        thresholds: Overlaps that must be exceeded.
    """
    pred, instance, overlap = candidates(truth, ranked, hull_overlap, thresholds.min())
    order = np.lexsort((pred, -overlap, instance))
    pred, instance, overlap = pred[order], instance[order], overlap[order]
    got = np.full((len(thresholds), len(ranked)), -1)
    for row, threshold in enumerate(thresholds):
        near = overlap > threshold
        takers, taken = take_turns(instance[near], pred[near])
        got[row, taken] = takers
    return got


def overlaps_any(ignored: Rows, ranked: Rows) -> Bool[np.ndarray, " M"]:
    """Whether each prediction shares time with one of these segments of its video, whatever the classes."""
    touched = np.zeros(len(ranked), dtype=bool)
    pred, _, overlap = candidates(without_labels(ignored), without_labels(ranked), hull_overlap, 0.0)
    touched[pred[overlap > 0]] = True
    return touched


def take_turns(
    pred: Int[np.ndarray, " P"], instance: Int[np.ndarray, " P"]
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Who gets what when each prediction in turn takes the first free instance of its list: (predictions, instances).

    All ask at once for the head of their list; where several ask for one instance the earliest keeps it, the others
    move to their next choice, and so on until nobody is refused. Whoever is refused lost to an earlier prediction, so
    the outcome is that of taking turns, in as many rounds as the longest chain of refusals, not one per prediction.

    Args:
        pred: Prediction of each pair, ascending: an earlier prediction has the earlier turn.
        instance: Instance of each pair; the pairs of one prediction stand in its order of choice.
    """
    if not len(pred):
        return pred, instance
    first = np.flatnonzero(np.diff(pred, prepend=-1))
    last = np.append(first[1:], len(pred)) - 1
    holder = np.empty(instance.max() + 1, dtype=np.int64)
    choice = first
    while True:
        asked = instance[choice]
        holder[asked[::-1]] = choice[::-1]  # of several values for one place numpy keeps the last: the earliest turn
        refused = holder[asked] != choice
        if not refused.any():
            return pred[choice], asked
        keep = ~refused | (choice < last)
        choice, last = (choice + refused)[keep], last[keep]


def candidates(
    truth: Rows, ranked: Rows, overlap: Callable[[np.ndarray, np.ndarray], np.ndarray], least: float
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Pairs (prediction, instance) of one video and class that overlap by `least` or by NaN, by prediction."""
    if not len(truth):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    num_labels = 1 + max(int(truth.label.max()), int(ranked.label.max(initial=0)))
    group = truth.video * num_labels + truth.label
    by_group = np.argsort(group, kind="stable")
    wanted = np.where(ranked.video < 0, -1, ranked.video * num_labels + ranked.label)
    known, first, sizes = np.unique(group[by_group], return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    start, count = first[place], np.where(known[place] == wanted, sizes[place], 0)
    segments = truth.segments[by_group]
    pieces = []
    for pred, partner in ragged_pairs(start, count):
        shared = overlap(ranked.segments[pred], segments[partner])
        near = ~(shared < least)
        pieces.append((pred[near], by_group[partner[near]], shared[near]))
    pred, instance, shared = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return pred, instance, shared


def _by_choice(
    pred: Int[np.ndarray, " P"], first: Float[np.ndarray, " P"], second: Int[np.ndarray, " P"]
) -> Int[np.ndarray, " P"]:
    """The order that sorts the pairs of each prediction by two keys; only predictions with a choice need sorting."""
    same = np.flatnonzero(pred[1:] == pred[:-1])
    several = np.union1d(same, same + 1)
    order = np.arange(len(pred))
    order[several] = several[np.lexsort((second[several], first[several], pred[several]))]
    return order
