"""Which videos and which order an evaluation takes: what both evaluators share before any overlap is computed.

Letters: M scored segments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from uptal.errors import AnnotationError, ConfigError
from uptal.types import Detections, Video

Ties = Literal["later-first", "earlier-first", "numpy"]
"""What comes first among equal scores.

`later-first`: the entry that stands later in the file, which is the official rule with its sort made stable: the same
result on every machine. `numpy`: the official code to the letter, whose unstable sort orders ties by numpy's version
and by the processor. `earlier-first`: the order of the file, which the toolkit of THUMOS'14 keeps. Without ties all
agree, and a shuffled file gives the same bits.
"""

STRICT_TIOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""0.5:0.05:0.95 as the official code builds it; some of these differ from the decimals by one bit."""


@dataclass(frozen=True, kw_only=True)
class VideoCounts:
    """How well two files cover each other."""

    truth: int
    """Videos of the ground truth that were evaluated."""
    found: int
    """Videos that the predictions name."""
    missing: int
    """Videos of the ground truth that the predictions do not name: each counts as nothing found."""

    def to_json(self) -> dict[str, int]:
        """The three counts under their names."""
        return asdict(self)


def select_videos(
    truth: Mapping[str, Video], *, subset: str | None = None, blocked: Collection[str] = ()
) -> dict[str, Video]:
    """The videos of one subset (all for `None`) without the blocked ones, in file order.

    Raises:
        AnnotationError: No annotated instance is left; the message lists the subsets that are there.
    """
    blocked = frozenset(blocked)
    chosen = {id: video for id, video in truth.items() if subset in (None, video.subset) and id not in blocked}
    if not any(video.segments for video in chosen.values()):
        there = ", ".join(repr(name) for name in sorted({video.subset for video in truth.values()})) or "none"
        raise AnnotationError(
            f"The ground truth holds no instance to evaluate: {len(truth)} videos, subset asked for {subset!r}, "
            f"subsets found {there}, {len(blocked)} blocked ids. Choose another subset or file."
        )
    return chosen


def only_present(truth: Mapping[str, Video], found: Mapping[str, Detections]) -> dict[str, Video]:
    """The ground truth of those videos that the predictions name: for a score that leaves missing videos out."""
    return {id: video for id, video in truth.items() if id in found}


def count_videos(truth: Mapping[str, Video], found: Mapping[str, Detections]) -> VideoCounts:
    """Count the videos on both sides, and those of `truth` that `found` lacks."""
    return VideoCounts(truth=len(truth), found=len(found), missing=sum(id not in found for id in truth))


def without(found: Mapping[str, Detections], blocked: Collection[str]) -> dict[str, Detections]:
    """The predictions on videos that are not blocked."""
    blocked = frozenset(blocked)
    return {id: each for id, each in found.items() if id not in blocked}


def joined(found: Mapping[str, Detections]) -> tuple[Float[np.ndarray, "M 2"], Float[np.ndarray, " M"]]:
    """Segments and scores of all videos in one array each, in file order.

    Raises:
        AnnotationError: A score or a time is not a number.
    """
    segments = np.concatenate([np.zeros((0, 2)), *(each.segments for each in found.values())], dtype=np.float64)
    scores = np.concatenate([np.zeros(0), *(each.scores for each in found.values())], dtype=np.float64)
    if np.isnan(segments).any() or np.isnan(scores).any():
        id = next(id for id, each in found.items() if np.isnan(each.segments).any() or np.isnan(each.scores).any())
        raise AnnotationError(f"Video {id!r}: a predicted score or time is NaN; expected numbers only.")
    return segments, scores


def check_tious(tious: Sequence[float]) -> Float[np.ndarray, " T"]:
    """The thresholds as an array.

    Raises:
        ConfigError: There is none, or one lies outside (0, 1].
    """
    if not len(tious) or not all(0 < value <= 1 for value in tious):
        raise ConfigError(f"tIoU thresholds must lie above 0 and at most at 1, found {list(tious)}.")
    return np.asarray(tious, dtype=np.float64)


def best_first(scores: Float[np.ndarray, " M"], groups: Int[np.ndarray, " M"], ties: Ties) -> Int[np.ndarray, " M"]:
    """The order that sorts by group, and within a group from the highest score to the lowest."""
    if ties != "numpy":
        order = np.argsort(scores, kind="stable")[::-1] if ties == "later-first" else np.argsort(-scores, kind="stable")
        small = groups.astype(np.int16) if groups.max(initial=0) < 2**15 else groups  # numpy sorts these in linear time
        return order[np.argsort(small[order], kind="stable")]
    order = np.argsort(groups, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return np.concatenate([piece[np.argsort(scores[piece])[::-1]] for piece in pieces])
