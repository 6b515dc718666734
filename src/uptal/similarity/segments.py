"""Segments without labels: where the self-similarity of a video's clips changes, and which stretches come back.

A boundary is where clips resemble those on their own side and not those on the other (the checkerboard of Foote, ICME
2000, at several scales). What lies between boundaries, alone or a few pieces together, is a candidate; it scores by how
much more its clips resemble each other than what is beside them. Letters: N clips, D width, P pieces, M candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from uptal.errors import ConfigError
from uptal.similarity.scores import self_similarity

NEARLY = 0.7
"""Overlap (intersection over union) from which on a finer candidate is the coarser one once more."""


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How boundaries and candidates are found."""

    scales: tuple[int, ...] = (3, 6, 12)
    """Clips looked at on either side of a boundary; the novelty is the mean over scales."""
    prominence: tuple[float, ...] = (0.5, -1.0)
    """Height of a boundary over the mean novelty of the video, in standard deviations. Each level cuts anew, low ones
    at nearly every peak; the candidates are those of all levels."""
    longest: int = 3
    """Most neighbouring pieces that make one candidate."""
    alike: float = 0.4
    """Cosine of the mean features of two groups of pieces from which on they are the same thing coming back."""

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1 or self.longest < 1 or not -1 <= self.alike <= 1:
            raise ConfigError(f"Segments need scales and longest of at least 1 and alike in [-1, 1], found {self}.")
        if not self.prominence:
            raise ConfigError("Segments need a prominence, such as 0.5, or several.")


@dataclass(frozen=True)
class Found:
    """Candidates of one video, best first."""

    bounds: Int[np.ndarray, "M 2"]
    """First clip, and the one after the last."""
    scores: Float[np.ndarray, " M"]
    """0 to 1: half of how much more alike the inside is than inside and surroundings."""
    groups: Int[np.ndarray, " M"]
    """Number of the group of the longest piece; candidates with the same number show the same thing."""


def novelty(similarity: Float[np.ndarray, "N N"], scales: tuple[int, ...]) -> Float[np.ndarray, " N"]:
    """How much changes before each clip: likeness within both sides minus likeness across, mean over scales.

    Near an end the sides are as long as there are clips; the first entry, which has no left side, is 0.
    """
    count = len(similarity)
    total = np.zeros((count + 1, count + 1))
    total[1:, 1:] = similarity.cumsum(0).cumsum(1)

    def mean(top: int, bottom: int, left: int, right: int) -> float:
        area = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        return area / ((bottom - top) * (right - left))

    found = np.zeros(count)
    for middle in range(1, count):
        for scale in scales:
            half = min(scale, middle, count - middle)
            begin, end = middle - half, middle + half
            within = (mean(begin, middle, begin, middle) + mean(middle, end, middle, end)) / 2
            found[middle] += (within - mean(begin, middle, middle, end)) / len(scales)
    return found


def boundaries(change: Float[np.ndarray, " N"], prominence: float) -> list[int]:
    """Clips before which something changes: peaks of the novelty, `prominence` deviations above its mean."""
    if len(change) < 3:
        return []
    inner = change[1:]
    height = inner.mean() + prominence * inner.std()
    left, right = np.r_[-np.inf, inner[:-1]], np.r_[inner[1:], -np.inf]
    return (np.flatnonzero((inner > left) & (inner >= right) & (inner > height) & (inner > 1e-9)) + 1).tolist()


def find_segments(features: Float[np.ndarray, "N D"], cfg: SegmentConfig | None = None) -> Found:
    """Candidates of a video from the features of its clips, in clips."""
    cfg = cfg or SegmentConfig()
    centred = features - features.mean(0)
    similarity = self_similarity(features, centre=True)
    change = novelty(similarity, cfg.scales)
    levels = [[0, *boundaries(change, height), len(features)] for height in sorted(cfg.prominence, reverse=True)]
    pieces = list(pairwise(levels[-1]))  # the finest: what is cut on a higher level is cut here as well
    groups = group_pieces(np.stack([centred[begin:end].mean(0) for begin, end in pieces]), cfg.alike)
    rows = []
    for begin, end in _candidates(levels, cfg.longest):
        inside = [piece for piece in range(len(pieces)) if begin <= pieces[piece][0] and pieces[piece][1] <= end]
        longest = max(inside, key=lambda piece: pieces[piece][1] - pieces[piece][0])
        rows.append((begin, end, contrast(similarity, begin, end), groups[longest]))
    rows.sort(key=lambda row: -row[2])
    bounds = np.array([row[:2] for row in rows], dtype=np.int64).reshape(-1, 2)
    return Found(bounds, np.array([row[2] for row in rows]), np.array([row[3] for row in rows], dtype=np.int64))


def _candidates(levels: list[list[int]], longest: int) -> list[tuple[int, int]]:
    """Spans of all levels, coarse ones first; what is nearly one that is there already is left out."""
    kept: list[tuple[int, int]] = []
    for edges in levels:
        for begin, end in _neighbours(edges, longest):
            shared = [min(end, there[1]) - max(begin, there[0]) for there in kept]
            spans = [max(end, there[1]) - min(begin, there[0]) for there in kept]
            if all(inside <= NEARLY * span for inside, span in zip(shared, spans, strict=True)):
                kept.append((begin, end))
    return kept


def _neighbours(edges: list[int], longest: int) -> list[tuple[int, int]]:
    """Every piece and up to `longest` neighbours together, the whole video only where nothing cuts it."""
    last = len(edges) - 1
    spans = [(edges[a], edges[b]) for a in range(last) for b in range(a + 1, min(a + longest, last) + 1)]
    return [span for span in spans if span != (0, edges[-1]) or last == 1]


def contrast(similarity: Float[np.ndarray, "N N"], begin: int, end: int) -> float:
    """Half of the likeness inside minus that of inside and surroundings as long on either side; at least 0."""
    length = end - begin
    inside = similarity[begin:end, begin:end]
    around = np.r_[max(0, begin - length) : begin, end : min(len(similarity), end + length)]
    if not len(around):
        return 0.0
    within = (inside.sum() - np.trace(inside)) / (length * (length - 1)) if length > 1 else 0.0
    return float(np.clip((within - similarity[begin:end][:, around].mean()) / 2, 0.0, 1.0))


def group_pieces(means: Float[np.ndarray, "P D"], alike: float) -> Int[np.ndarray, " P"]:
    """Group of each piece, numbered in the order in which they come: the two nearest groups become one while they are
    alike enough (average linkage on cosines)."""
    members = [[piece] for piece in range(len(means))]
    cosine = self_similarity(means)
    while len(members) > 1:
        links = np.array([[cosine[np.ix_(a, b)].mean() for b in members] for a in members])
        np.fill_diagonal(links, -np.inf)
        a, b = sorted(np.unravel_index(links.argmax(), links.shape))
        if links[a, b] < alike:
            break
        members[a] += members.pop(b)
    groups = np.empty(len(means), dtype=np.int64)
    for number, pieces in enumerate(sorted(members, key=min)):
        groups[pieces] = number
    return groups
