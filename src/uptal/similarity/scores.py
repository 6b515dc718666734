"""How similar clips are to each other, and how well features of an edited video follow the edit; edits are beside.

Features are centred by a mean where it says so and always compared by cosine; a feature without length has cosine 0.

Letters: N clips of the original, M clips of the edited video, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class Equivariance:
    """Scores of one edited video, or their average over many."""

    static_iou: float
    """IoU of found and true action clips in the original; prototypes come from its other clips."""
    edited_iou: float
    """The same in the edited video, with the prototypes of the original."""
    chance_iou: float
    """IoU in the edited video when every clip is called action."""
    static_auroc: float
    """Chance that an action clip of the original scores above a background clip, judged as `static_iou`; guess: 0.5."""
    edited_auroc: float
    """The same in the edited video. High for any network, as the prototypes come from the same video: prefer the IoU,
    or `held_out_auroc`."""
    warp_error: float
    """Distance of edited clips from the same moment in the original, over their distance from any moment: 0 for
    features that follow the edit, 1 for features that know nothing of it."""
    separation: float
    """Mean cosine within the action minus mean cosine across its border, in the edited video: the contrast of Fig. 3.
    A feature that is the same for all clips scores 0."""

    @property
    def kept_iou(self) -> float:
        """Share of the IoU that survives the edit."""
        return self.edited_iou / self.static_iou if self.static_iou else float("nan")

    @property
    def kept_auroc(self) -> float:
        """Share of the AUROC that survives the edit."""
        return self.edited_auroc / self.static_auroc if self.static_auroc else float("nan")


def equivariance(
    original: Float[np.ndarray, "N D"],
    inside: Bool[np.ndarray, " N"],
    edited: Float[np.ndarray, "M D"],
    edited_inside: Bool[np.ndarray, " M"],
    tau: Int[np.ndarray, " M"],
) -> Equivariance:
    """All scores of one edited video; NaN where a score has no clips to be taken from.

    Both videos are centred by the mean of the original, so that a clip that did not change keeps its feature.

    Args:
        original: Features of the original.
        inside: Which of its clips are action (`clips_inside`).
        edited: Features of the edited video.
        edited_inside: Which of its clips are action.
        tau: The edit's `clip_map`.
    """
    mean = original.mean(axis=0)
    original, edited = original - mean, edited - mean
    static = _scores_by_the_others(original, inside)
    moved = _scores(edited, *_sums(original, inside))
    return Equivariance(
        static_iou=iou(static > 0, inside),
        edited_iou=iou(moved > 0, edited_inside),
        chance_iou=iou(np.ones_like(edited_inside), edited_inside),
        static_auroc=auroc(static, inside),
        edited_auroc=auroc(moved, edited_inside),
        warp_error=warp_error(original, edited, tau),
        separation=separation(edited, edited_inside),
    )


def average(scores: Sequence[Equivariance]) -> Equivariance:
    """Mean of every score over the videos where it exists."""
    rows = [asdict(score) for score in scores]
    return Equivariance(**{name: _mean(np.array([row[name] for row in rows])) for name in rows[0]})


def self_similarity(features: Float[np.ndarray, "N D"], *, centre: bool = False) -> Float[np.ndarray, "N N"]:
    """Cosine of every pair of clips of one video: the picture of Fig. 3.

    Args:
        features: One row a clip.
        centre: Take the mean over the video off first. The paper does not; but features behind a ReLU all point into
            one octant, and without their mean differences show better.
    """
    units = _units(features - features.mean(axis=0) if centre else features)
    return np.clip(units @ units.T, -1.0, 1.0)


def separation(features: Float[np.ndarray, "N D"], inside: Bool[np.ndarray, " N"]) -> float:
    """Mean cosine of two different action clips minus mean cosine of an action and a background clip; or NaN."""
    similarity = self_similarity(features)
    within = similarity[inside][:, inside][~np.eye(inside.sum(), dtype=bool)]
    return _mean(within) - _mean(similarity[inside][:, ~inside])


def warp_error(
    original: Float[np.ndarray, "N D"], edited: Float[np.ndarray, "M D"], tau: Int[np.ndarray, " M"]
) -> float:
    """Mean cosine distance of each edited clip from clip tau of the original, over that from a random clip of it.

    The random clip is not drawn: its expectation, the mean over all clips, is taken. Clips with tau = -1 do not count.
    """
    mapped = tau >= 0
    similarity = _units(edited[mapped]) @ _units(original).T
    true, chance = 1 - similarity[np.arange(mapped.sum()), tau[mapped]], 1 - similarity
    return _mean(true) / _mean(chance) if chance.max(initial=0.0) > 1e-9 else float("nan")  # all clips alike


def held_out_auroc(videos: Sequence[tuple[Float[np.ndarray, "_ D"], Bool[np.ndarray, " _"]]]) -> float:
    """Mean AUROC of videos judged by prototypes of the other videos, each centred by its own mean.

    Stricter than `Equivariance.edited_auroc`: the scene of a video tells nothing about its prototypes.

    Args:
        videos: Features and action clips of at least two videos, e.g. of one action class.
    """
    centred = [(features - features.mean(axis=0), inside) for features, inside in videos]
    sums = np.array([_sums(features, inside) for features, inside in centred])
    others = sums.sum(axis=0) - sums
    found = [
        auroc(_scores(features, *other), inside) for (features, inside), other in zip(centred, others, strict=True)
    ]
    return _mean(np.array(found))


def auroc(scores: Float[np.ndarray, " N"], positive: Bool[np.ndarray, " N"]) -> float:
    """Share of pairs (positive, negative) that the scores put in order; ties count half. NaN without pairs."""
    difference = scores[positive][:, None] - scores[~positive]
    return _mean((np.sign(difference) + 1) / 2)


def iou(found: Bool[np.ndarray, " N"], true: Bool[np.ndarray, " N"]) -> float:
    """Clips in both sets over clips in either; NaN if there are none."""
    return _mean((found & true)[found | true].astype(np.float64))


def _sums(features: Float[np.ndarray, "N D"], inside: Bool[np.ndarray, " N"]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the unit features of action and of background; prototypes but for their length."""
    units = _units(features)
    return units[inside].sum(axis=0), units[~inside].sum(axis=0)


def _scores(features: Float[np.ndarray, "N D"], action: np.ndarray, background: np.ndarray) -> np.ndarray:
    """cos(feature, action) - cos(feature, background); the prototypes may be one for all or one a row."""
    return (_units(features) * (_units(action) - _units(background))).sum(axis=1)


def _scores_by_the_others(features: Float[np.ndarray, "N D"], inside: Bool[np.ndarray, " N"]) -> np.ndarray:
    action, background = _sums(features, inside)
    own = _units(features)
    return _scores(features, action - own * inside[:, None], background - own * ~inside[:, None])


def _units(features: Float[np.ndarray, "*rows D"]) -> Float[np.ndarray, "*rows D"]:
    length = np.linalg.norm(features, axis=-1, keepdims=True).astype(np.float64)
    return np.divide(features, length, out=np.zeros(features.shape), where=length > 0)


def _mean(values: np.ndarray) -> float:
    """Mean of what is there, NaN if nothing is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
