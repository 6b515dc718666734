"""How fast things go: all actions, and idle motion, change about as many pixels a frame; poses are not made here.

Speed is measured as the area that the parts of the body brush over, in square body heights a frame.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import Action, find_action
from uptal.synthetic.figure import Skeleton, pose_skeleton


@cache
def pace(names: tuple[str, ...]) -> tuple[float, ...]:
    """Factor on the period of each of the actions of these names; 1 on average."""
    areas = np.array([brushed_area(_two_periods(find_action(name))).sum() for name in names])
    return tuple(float(value) for value in areas / areas.mean())


def brushed_area(poses: Float[np.ndarray, "F 12"]) -> Float[np.ndarray, " F-1"]:
    """Area that the whole body brushes over from each frame to the next."""
    return np.sum([_brush(*part) for part in _parts(pose_skeleton(poses))], axis=0)


def _two_periods(action: Action) -> Float[np.ndarray, "F 12"]:
    """Poses over two periods, because some actions close only after two."""
    return action.poses(np.linspace(0.0, 2.0, 129), np.ones((129, 1)))


def _parts(skeleton: Skeleton):
    """(start, end, thickness) of the parts of the body that count."""
    for side in (skeleton.left, skeleton.right):
        yield from ((side.shoulder, side.elbow, 0.08), (side.elbow, side.hand, 0.06))
        yield from ((side.hip, side.knee, 0.11), (side.knee, side.ankle, 0.07), (side.ankle, side.toe, 0.06))
    yield skeleton.neck, skeleton.pelvis, 0.17
    yield skeleton.head, skeleton.head, 0.17


def _brush(start, end, thickness: float):
    """Way of the middle of a part from frame to frame, times the size of the part."""
    way = np.diff((start + end) / 2, axis=0)
    size = np.linalg.norm(end - start, axis=1)[1:] + thickness
    return np.linalg.norm(way, axis=1) * size
