"""Average recall against the average number of proposals (AR@AN, AUC) as ActivityNet's `eval_proposal` defines it.

Letters: T thresholds, V videos, G ground-truth instances, M proposals; 100 points of the curve.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from uptal.errors import ConfigError
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

REPORTED = (1, 5, 10, 100)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProposalScores:
    """The curve of recall over the number of proposals, per threshold, and how much was compared."""

    tious: tuple[float, ...]
    """Thresholds, as given."""
    recall: Float[np.ndarray, "T 100"]
    """Share of the ground-truth instances that some proposal covers."""
    proposals_per_video: Float[np.ndarray, " 100"]
    """Average number of proposals a video at each point of the curve; the last is the maximum that was allowed."""
    videos: VideoCounts
    """Coverage."""
    num_truth: int
    """Ground-truth instances."""
    num_proposals: int
    """Proposals in the file, before any are cut off."""

    @property
    def average_recall(self) -> Float[np.ndarray, " 100"]:
        """Recall averaged over the thresholds, at each point of the curve."""
        return self.recall.mean(axis=0)

    @property
    def auc(self) -> float:
        """Area under the curve over its width, 0 to 1.

        The curve begins at its first point and not at zero, so perfect proposals reach 0.99, as in the official code.
        """
        width = self.proposals_per_video[-1]
        height = (self.average_recall[1:] + self.average_recall[:-1]) / 2
        return float((np.diff(self.proposals_per_video) * height).sum() / width) if width > 0 else 0.0

    def at(self, average_number: float) -> float:
        """Average recall at an average number of proposals a video, read off the curve between its points.

        Raises:
            ConfigError: The curve does not reach that far.
        """
        if not 0 < average_number <= self.proposals_per_video[-1]:
            last = self.proposals_per_video[-1]
            raise ConfigError(f"AR@{average_number:g} lies off the curve, which ends at {last:g} proposals a video.")
        return float(np.interp(average_number, self.proposals_per_video, self.average_recall))

    def to_json(self) -> dict[str, Any]:
        """Fractions (not per cent) under the names that `uptal evaluate --json` promises.

        AR@k is the k-th of the 100 points, as BMN reports it: k proposals a video if at most 100 are allowed, and k
        hundredths of the maximum otherwise; `at` gives the recall at a number of proposals in either case.
        """
        recall = {str(point): float(self.average_recall[point - 1]) for point in REPORTED}
        return {"AR": recall, "AUC": self.auc, "videos": self.videos.to_json()}


def proposal_recall(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    *,
    tious: Sequence[float] = STRICT_TIOUS,
    subset: str | None = None,
    blocked: Collection[str] = (),
    max_proposals: int | None = 100,
    ties: Ties = "later-first",
) -> ProposalScores:
    """Recall of proposals at 100 numbers of proposals a video, per tIoU threshold; labels play no part.

    An instance counts as found if any of the best proposals of its video reaches the threshold, so one proposal may
    find several. The number of proposals is an average over videos: one that has twice as many keeps twice as many.

    Args:
        truth: Annotated videos by id; segments in seconds.
        found: Proposals by video id; segments in seconds. Videos may be missing.
        tious: Thresholds; an overlap equal to the threshold counts.
        subset: Split to evaluate, `None` for all.
        blocked: Ids to leave out on both sides.
        max_proposals: Average number of proposals a video at the end of the curve; `None` takes all.
        ties: Order among equal scores.

    Raises:
        AnnotationError: No ground truth is left.
        ConfigError: A threshold lies outside (0, 1], or `max_proposals` is below 1.

    Source: ActivityNet `Evaluation/eval_proposal.py`; the paper's Sec. 4.1 and Table 1 use it.
    """
    if max_proposals is not None and max_proposals < 1:
        raise ConfigError(f"max_proposals must be at least 1, or none for all, found {max_proposals}.")
    thresholds = check_tious(tious)
    chosen = select_videos(truth, subset=subset, blocked=blocked)
    found = without(found, blocked)
    with_instances = {id: video for id, video in chosen.items() if video.segments}
    num_proposals = sum(len(each) for each in found.values())
    counts = np.array([len(found[id]) if id in found else 0 for id in with_instances], dtype=np.int64)
    budget = _Budget.of(counts, num_proposals, max_proposals)
    first = _first_hits(with_instances, found, budget.kept, thresholds, ties)
    video = np.repeat(np.arange(len(with_instances)), [len(each.segments) for each in with_instances.values()])
    reach = budget.reach[video]
    return ProposalScores(
        tious=tuple(float(value) for value in tious),
        recall=np.stack([(each[:, None] < reach).sum(axis=0) for each in first]) / len(video),
        proposals_per_video=budget.per_video,
        videos=count_videos(chosen, found),
        num_truth=len(video),
        num_proposals=num_proposals,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Budget:
    """How many proposals of each video count, in the official order of float operations (their truncation matters)."""

    kept: Int[np.ndarray, " V"]
    """At the end of the curve."""
    reach: Int[np.ndarray, "V 100"]
    """At each point of the curve."""
    per_video: Float[np.ndarray, " 100"]
    """On average at each point."""

    @classmethod
    def of(cls, counts: Int[np.ndarray, " V"], num_proposals: int, max_proposals: int | None) -> _Budget:
        num_videos = float(len(counts))
        most = num_proposals / num_videos if max_proposals is None else max_proposals
        kept = np.zeros_like(counts)
        if num_proposals:
            kept = np.minimum((counts * (most * num_videos / num_proposals)).astype(np.int64), counts)
        total = float(kept.sum())
        steps = np.arange(1, 101) / 100.0
        if not total:
            return cls(kept=kept, reach=np.zeros((len(counts), 100), dtype=np.int64), per_video=steps * float(most))
        share = steps * (most * num_videos / total)
        reach = np.minimum((kept[:, None] * share).astype(np.int64), kept[:, None])
        return cls(kept=kept, reach=reach, per_video=share * (total / num_videos))


def _first_hits(
    truth: Mapping[str, Video],
    found: Mapping[str, Detections],
    kept: Int[np.ndarray, " V"],
    thresholds: Float[np.ndarray, " T"],
    ties: Ties,
) -> Int[np.ndarray, "T G"]:
    """Rank of the first proposal that covers each instance at each threshold; past every rank where none does."""
    proposals, start = _ranked(truth, found, ties)
    instances = np.array([(s.start, s.end) for video in truth.values() for s in video.segments], dtype=np.float64)
    video = np.repeat(np.arange(len(truth)), [len(each.segments) for each in truth.values()])
    never = np.iinfo(np.int64).max
    first = np.full((len(thresholds), len(instances)), never)
    for instance, proposal in ragged_pairs(start[video], kept[video]):
        if not len(instance):
            continue
        overlap = tiou(proposals[proposal], instances[instance])
        rank = proposal - start[video[instance]]
        begin = np.flatnonzero(np.diff(instance, prepend=-1))
        for row, threshold in enumerate(thresholds):
            hit = np.where(overlap >= threshold, rank, never)  # NaN, the official 0/0, reaches no threshold here
            first[row, instance[begin]] = np.minimum.reduceat(hit, begin)
    return first


def _ranked(
    truth: Mapping[str, Video], found: Mapping[str, Detections], ties: Ties
) -> tuple[Float[np.ndarray, "M 2"], Int[np.ndarray, " V"]]:
    """All proposals on the given videos, video by video and best first, and where each video begins."""
    nothing = Detections(np.zeros((0, 2)), np.zeros(0))
    of_video = {id: found.get(id, nothing) for id in truth}
    counts = np.array([len(each) for each in of_video.values()])
    segments, scores = joined(of_video)
    order = best_first(scores, np.repeat(np.arange(len(counts)), counts), ties)
    return segments[order], np.cumsum(counts) - counts
