"""From many overlapping candidates to a short ranked list: NMS, two rules of Soft-NMS, fusion with class scores.

Decoding a network's maps into candidates is left to the localizers, scoring the result to the metrics.
Candidates of different labels never suppress one another. Letters: M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from uptal.errors import ConfigError
from uptal.types import Detections

Decay = Callable[[Float[np.ndarray, " M"], float], Float[np.ndarray, " M"]]
"""Factors for the scores of the candidates that overlap the one just taken by `tIoU`, given its duration."""


def nms(candidates: Detections, *, threshold: float, max_output: int = 100) -> Detections:
    """Keep the best candidates, each dropping the later ones that overlap it by more than `threshold`.

    Args:
        candidates: Scored segments of one video.
        threshold: tIoU above which the lower-scored of two candidates goes.
        max_output: How many to keep at most.

    Raises:
        ConfigError: `threshold` lies outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"The NMS threshold is a tIoU from 0 to 1, found {threshold}.")
    order = np.argsort(-candidates.scores, kind="stable")
    codes = _codes(candidates)
    kept: list[int] = []
    while len(order) and len(kept) < max_output:
        best, order = order[0], order[1:]
        kept.append(int(best))
        overlap = _tiou(candidates.segments[order], candidates.segments[best])
        order = order[(overlap <= threshold) | (codes[order] != codes[best])]
    return _pick(candidates, np.array(kept, dtype=np.int64), candidates.scores[kept])


def soft_nms(
    candidates: Detections,
    *,
    duration: float = 1.0,
    alpha: float = 0.4,
    low: float = 0.5,
    high: float = 0.9,
    max_output: int = 100,
    keep_last: bool = False,
) -> Detections:
    """BMN's Soft-NMS: lower the score of what overlaps a better candidate too much; longer ones tolerate more overlap.

    The best candidate is taken, and every other whose tIoU with it exceeds `low + (high - low) * width`, `width` being
    its share of the video, has its score multiplied by `exp(-tIoU² / alpha)`; then the best of the rest is taken.

    Args:
        candidates: Scored segments of one video.
        duration: Length of the video in the unit of the segments, 1 where they are fractions of it.
        alpha: Width of the Gaussian.
        low: tIoU that the shortest candidates tolerate.
        high: tIoU that a candidate as long as the video tolerates.
        max_output: How many to return. The official code takes 101 and then cuts to 100, which is the same.
        keep_last: Also return the very last candidate. The official loop ends when one is left, so of n candidates it
            returns n - 1 at most, and of a single one none.

    Returns:
        Best first, with lowered scores. Equal scores keep their order.

    Source: JJBOY's BMN, `post_processing.py` (the values are that code's; the BMN paper prints others).
    """
    if not (duration > 0 and alpha > 0):
        raise ConfigError(f"Soft-NMS needs a positive duration and alpha, found {duration} and {alpha}.")

    def decay(overlap: Float[np.ndarray, " M"], length: float) -> Float[np.ndarray, " M"]:
        factor = np.ones_like(overlap)
        much = overlap > low + (high - low) * (length / duration)
        factor[much] = np.exp(-np.square(overlap[much]) / alpha)
        return factor

    return _soften(candidates, decay, max_output=max_output, keep_last=keep_last, floor=-np.inf)


def gaussian_soft_nms(
    candidates: Detections,
    *,
    sigma: float,
    max_output: int = 100,
    longest: float | None = None,
    keep_last: bool = False,
) -> Detections:
    """G-TAD's Soft-NMS: whatever overlaps a better candidate has its score multiplied by `exp(-tIoU² / sigma)`.

    Args:
        candidates: Scored segments of one video, or of one window of it.
        sigma: Width of the Gaussian; 0.8 for whole videos and 0.46 for windows in the official code. A tiny one is NMS.
        max_output: How many to return.
        longest: Segments of this length or longer, in their own unit, get score 0 beforehand. The official code for
            THUMOS'14 does so at 300 frames; it is a prior on durations, so state it with results.
        keep_last: As for `soft_nms`.

    Returns:
        Best first, with lowered scores; it ends where only candidates of score 0 are left.

    Source: frostinassiky's G-TAD, branches `anet` and `master`.
    """
    if sigma <= 0:
        raise ConfigError(f"Soft-NMS needs a positive sigma, found {sigma}.")
    if longest is not None:
        length = candidates.segments[:, 1] - candidates.segments[:, 0]
        scores = np.where(length >= longest, 0.0, candidates.scores)
        candidates = Detections(candidates.segments, scores, candidates.labels)

    def decay(overlap: Float[np.ndarray, " M"], length: float) -> Float[np.ndarray, " M"]:
        return np.exp(-np.square(overlap) / sigma)

    return _soften(candidates, decay, max_output=max_output, keep_last=keep_last, floor=0.0)


def fuse(proposals: Detections, video_scores: Mapping[str, float], top_k: int = 1) -> Detections:
    """Detections from the proposals and class scores of one video: every proposal once for each of the best classes.

    Args:
        proposals: Segments without labels.
        video_scores: How likely each class occurs in this video, by label.
        top_k: Number of classes: 1 in the BSN and BMN papers, 2 in G-TAD and OpenTAD.

    Returns:
        `top_k` times as many detections, the best class first; score = proposal's score * class's score.

    Raises:
        ConfigError: There is no class, or `top_k` is below 1.
    """
    if top_k < 1 or not video_scores:
        raise ConfigError(f"Fusion needs top_k >= 1 and some class, found {top_k} and {len(video_scores)} classes.")
    best = sorted(video_scores, key=lambda label: -video_scores[label])[:top_k]
    return Detections(
        np.concatenate([proposals.segments] * len(best)),
        np.concatenate([proposals.scores * float(video_scores[label]) for label in best]),
        tuple(label for label in best for _ in range(len(proposals))),
    )


def vote(kept: Detections, candidates: Detections, *, threshold: float) -> Detections:
    """Move the ends of what was kept to the mean over all candidates that overlap it, weighted by tIoU times score.

    Args:
        kept: What NMS left, in the unit of the candidates.
        candidates: What it came from; only those of the same label count.
        threshold: tIoU from which a candidate counts.

    Source: the public code of ActionFormer; the rule is older (Gidaris and Komodakis, ICCV 2015, box voting).
    """
    if not len(kept):
        return kept
    inside = np.minimum(kept.segments[:, None, 1], candidates.segments[:, 1]) - np.maximum(
        kept.segments[:, None, 0], candidates.segments[:, 0]
    )
    length, others = (np.diff(part.segments, axis=1)[:, 0] for part in (kept, candidates))
    union = length[:, None] + others - inside.clip(min=0)
    overlap = np.divide(inside.clip(min=0), union, out=np.zeros_like(inside), where=union > 0)
    if kept.labels is not None and candidates.labels is not None:
        same = np.array(kept.labels, dtype=object)[:, None] == np.array(candidates.labels, dtype=object)
        overlap = np.where(same, overlap, 0.0)
    weight = np.where((overlap >= threshold) & (overlap > 0), overlap * candidates.scores, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    moved = np.divide(weight @ candidates.segments, total, out=kept.segments.astype(np.float64), where=total > 0)
    return Detections(moved, kept.scores, kept.labels)


def _soften(candidates: Detections, decay: Decay, *, max_output: int, keep_last: bool, floor: float) -> Detections:
    """Take the best, lower the others, repeat; stop when too few are left or none scores above `floor`."""
    order = np.argsort(-candidates.scores, kind="stable")
    start, end = np.array(candidates.segments[order].T, dtype=np.float64)
    scores = candidates.scores[order].astype(np.float64)
    codes = None if candidates.labels is None else _codes(candidates)[order]
    length = end - start
    most = min(max_output, len(order) - (0 if keep_last else 1))
    taken: list[int] = []
    final: list[float] = []
    while len(taken) < most:
        best = int(np.argmax(scores))
        if not scores[best] > floor:
            break
        taken.append(best)
        final.append(float(scores[best]))
        first, last = start[best], end[best]
        scores[best], start[best], end[best] = -np.inf, np.inf, -np.inf  # overlaps nothing from here on
        inside = np.minimum(end, last) - np.maximum(start, first)
        near = np.flatnonzero(inside > 0) if codes is None else np.flatnonzero((inside > 0) & (codes == codes[best]))
        overlap = inside[near] / (length[near] - inside[near] + last - first)
        scores[near] *= decay(overlap, float(last - first))
    return _pick(candidates, order[taken], np.array(final))


def _tiou(segments: Float[np.ndarray, "M 2"], one: Float[np.ndarray, "2"]) -> Float[np.ndarray, " M"]:
    """Overlap of many segments with one; 0 where neither has a length."""
    inside = np.minimum(segments[:, 1], one[1]) - np.maximum(segments[:, 0], one[0])
    inside = np.maximum(inside, 0.0)
    union = segments[:, 1] - segments[:, 0] - inside + one[1] - one[0]
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def _codes(candidates: Detections) -> np.ndarray:
    if candidates.labels is None:
        return np.zeros(len(candidates), dtype=np.int64)
    return np.unique(np.array(candidates.labels, dtype=object), return_inverse=True)[1]


def _pick(candidates: Detections, index: np.ndarray, scores: np.ndarray) -> Detections:
    labels = None if candidates.labels is None else tuple(candidates.labels[i] for i in index)
    return Detections(candidates.segments[index], scores, labels)
