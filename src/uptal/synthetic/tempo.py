"""How long a period of each action lasts, so that all actions change about as many pixels a frame."""

from __future__ import annotations

from functools import cache

import numpy as np

from uptal.synthetic.actions import ACTIONS, Action
from uptal.synthetic.figure import Skeleton, pose_skeleton


@cache
def pace(num_classes: int) -> tuple[float, ...]:
    """Factor on the period of each of the first classes; 1 on average."""
    areas = np.array([_swept_area(action) for action in ACTIONS[:num_classes]])
    return tuple(float(value) for value in areas / areas.mean())


def limb_speed(limb: str, label: int, tempo: float, num_classes: int) -> float:
    """Body heights a frame that the end of a limb travels on average while an action runs at the tempo of a video."""
    return _path_length(limb, label) / (tempo * pace(num_classes)[label])


@cache
def _path_length(limb: str, label: int) -> float:
    return ACTIONS[label].path_lengths()[limb]


def _swept_area(action: Action) -> float:
    """Area that the parts of the body brush over in one period, in square body heights."""
    phase = np.linspace(0.0, 1.0, 129)
    skeleton = pose_skeleton(action.poses(phase, np.ones_like(phase)))
    return float(sum(_brush(*part) for part in _parts(skeleton)))


def _parts(skeleton: Skeleton):
    """(start, end, thickness) of the parts of the body that count."""
    for side in (skeleton.left, skeleton.right):
        yield from ((side.shoulder, side.elbow, 0.08), (side.elbow, side.hand, 0.06))
        yield from ((side.hip, side.knee, 0.11), (side.knee, side.ankle, 0.07), (side.ankle, side.toe, 0.06))
    yield skeleton.neck, skeleton.pelvis, 0.17
    yield skeleton.head, skeleton.head, 0.17


def _brush(start, end, thickness: float) -> float:
    way = np.diff((start + end) / 2, axis=0)
    size = np.linalg.norm(end - start, axis=1)[1:] + thickness
    return float((np.linalg.norm(way, axis=1) * size).sum())
