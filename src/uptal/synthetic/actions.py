"""The vocabulary of movements: each action is a closed curve of poses; timing and drawing are left to others.

Letters: F frames (or phases), J = 12 joint numbers of a pose. Angles are radians from hanging down, positive outward
(so that the same numbers on both sides are a symmetric pose); lengths are in units of the body height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from numpy import pi, sin

NUM_JOINTS = 12
UNITS = {"left arm": slice(0, 2), "right arm": slice(2, 4), "body": slice(4, 12)}
"""Columns of a pose that move on their own in idle motion: (shoulder, elbow) twice; (hip, knee) twice, lean of the
trunk, tilt of the head, sway and hop of the whole figure."""
SHOULDERS = (0, 2)

Curve = Callable[[Float[np.ndarray, " F"]], Float[np.ndarray, "F 12"]]


@dataclass(frozen=True, kw_only=True)
class Action:
    """A closed curve of poses and the way it is run through."""

    name: str
    curve: Curve
    """Phase (1 is a whole period) to pose."""
    winding: int = 0
    """Full turns of the shoulders in a period, on top of the curve."""
    backward: bool = False
    """Run through in the opposite direction: the same poses and joint speeds, another order."""

    def poses(self, phase: Float[np.ndarray, " F"], amplitude: Float[np.ndarray, "F #J"]) -> Float[np.ndarray, "F 12"]:
        """Poses at increasing phases; `amplitude` scales the way from the mean pose, joint by joint."""
        signed = -phase if self.backward else phase
        centre = _mean_pose(self.curve)
        poses = centre + amplitude * (self.curve(signed) - centre)
        poses[:, list(SHOULDERS)] += (2 * pi * self.winding * signed)[:, None]
        return poses


@cache
def _mean_pose(curve: Curve) -> Float[np.ndarray, " 12"]:
    return curve(np.arange(128) / 64).mean(axis=0)  # some curves close only after two turns


def _pose(phase, *, left_arm, right_arm=None, left_leg, right_leg=None, trunk=(0.0, 0.0), root=(0.0, 0.0)):
    """Poses (F, 12) from pairs of numbers or curves; a right limb that is not given mirrors the left one."""
    pairs = (left_arm, right_arm or left_arm, left_leg, right_leg or left_leg, trunk, root)
    return np.stack([np.broadcast_to(value, phase.shape) for pair in pairs for value in pair], axis=1).astype(float)


def _wave(phase, shift=0.0):
    return sin(2 * pi * (phase + shift))


def _lift(phase, shift=0.0):
    """A smooth bump over half of the period, 0 in the other half."""
    return np.maximum(_wave(phase, shift), 0.0) ** 1.5


def _breath(phase):
    """0 to 1 and back, once a period."""
    return (1 - np.cos(2 * pi * phase)) / 2


def _surge(phase, rise=0.25):
    """0 to 1 in the first quarter of the period, back to 0 in the other three."""
    place = phase % 1.0
    up, down = place / rise, (place - rise) / (1 - rise)
    return np.where(place < rise, (1 - np.cos(pi * up)) / 2, (1 + np.cos(pi * down)) / 2)


def _circle(phase):
    left, right = _lift(phase / 2), _lift(phase / 2, 0.5)  # one step to a turn: the mirror image is half a round later
    return _pose(
        phase,
        left_arm=(0.0, 0.9 + 0.3 * _wave(phase)),
        left_leg=(0.12 + 1.0 * left, 0.15 + 0.6 * left),
        right_leg=(0.12 + 1.0 * right, 0.15 + 0.6 * right),
        trunk=(-0.3 * _wave(phase / 2), 0.12 * _wave(phase / 2)),
        root=(-0.06 * _wave(phase / 2), 0.0),
    )


def _fling(phase):
    up = _surge(phase)
    return _pose(
        phase,
        left_arm=(0.3 + 2.1 * up, 0.6 - 0.5 * up),
        left_leg=(0.65 - 0.55 * up, 1.0 - 0.9 * up),
        root=(0.0, 0.1 * up),
    )


def _star_jump(phase):
    up = _breath(phase)
    return _pose(
        phase,
        left_arm=(0.4 + 2.0 * up, 0.1 + 0.3 * up),
        left_leg=(0.1 + 0.3 * up, 0.2 * (1 - up)),
        root=(0.0, 0.17 * np.abs(_wave(phase / 2))),
    )


def _kick(phase):
    left, right = _lift(phase), _lift(phase, 0.5)
    return _pose(
        phase,
        left_arm=(1.4 - 0.9 * _wave(phase), 0.2 - 0.2 * _wave(phase)),
        right_arm=(1.4 + 0.9 * _wave(phase), 0.2 + 0.2 * _wave(phase)),
        left_leg=(0.1 + 0.8 * left, 0.1),
        right_leg=(0.1 + 0.8 * right, 0.1),
        trunk=(-0.3 * _wave(phase), 0.1 * _wave(phase)),
    )


def _arm_wave(phase):
    side, late = _wave(phase), _wave(phase, -0.25)
    return _pose(
        phase,
        left_arm=(1.4 + 1.0 * side, 0.1 + 0.9 * late),
        right_arm=(1.4 - 1.0 * side, 0.1 - 0.9 * late),
        left_leg=(0.3 - 0.2 * side, 0.35 - 0.2 * side),
        right_leg=(0.3 + 0.2 * side, 0.35 + 0.2 * side),
        trunk=(0.1 * side, 0.15 * side),
        root=(0.05 * side, 0.0),
    )


def _clap(phase):
    apart = _breath(phase)
    left, right = _lift(phase / 2), _lift(phase / 2, 0.5)
    return _pose(
        phase,
        left_arm=(0.35 + 1.6 * apart, -2.0 + 1.9 * apart),
        left_leg=(0.1 + 0.8 * left, 1.5 * left),
        right_leg=(0.1 + 0.8 * right, 1.5 * right),
        trunk=(-0.2 * _wave(phase / 2), 0.15 * _wave(phase / 2)),
        root=(-0.06 * _wave(phase / 2), 0.0),
    )


def _squat(phase):
    down = _surge(phase)
    return _pose(
        phase,
        left_arm=(0.3 + 2.2 * down, 0.2 + 0.3 * down),
        left_leg=(0.1 + 0.85 * down, 0.1 + 1.65 * down),
        trunk=(0.0, 0.1 * down),
    )


def _lean(phase):
    side = _wave(phase)
    return _pose(
        phase,
        left_arm=(1.4 + 0.8 * side, 0.1),
        right_arm=(1.4 - 0.8 * side, 0.1),
        left_leg=(0.4 - 0.36 * side, 0.3 - 0.27 * side),
        right_leg=(0.4 + 0.36 * side, 0.3 + 0.27 * side),
        trunk=(0.25 * side, 0.15 * side),
    )


def _march(phase):
    left, right = _lift(phase), _lift(phase, 0.5)
    return _pose(
        phase,
        left_arm=(0.3 + 2.1 * right, -0.2 - 1.0 * right),
        right_arm=(0.3 + 2.1 * left, -0.2 - 1.0 * left),
        left_leg=(0.05 + 0.6 * left, 1.2 * left),
        right_leg=(0.05 + 0.6 * right, 1.2 * right),
        trunk=(-0.1 * _wave(phase), 0.1 * _wave(phase)),
        root=(-0.03 * _wave(phase), 0.02 * np.abs(_wave(phase))),
    )


ACTIONS = (
    Action(name="star_jump", curve=_star_jump),
    Action(name="kick", curve=_kick),
    Action(name="arm_wave", curve=_arm_wave),
    Action(name="clap", curve=_clap),
    Action(name="circle_outward", curve=_circle, winding=1),
    Action(name="circle_inward", curve=_circle, winding=1, backward=True),
    Action(name="fling_up", curve=_fling),
    Action(name="fling_down", curve=_fling, backward=True),
    Action(name="squat_drop", curve=_squat),
    Action(name="squat_spring", curve=_squat, backward=True),
    Action(name="lean", curve=_lean),
    Action(name="march", curve=_march),
)
"""All actions. Circles, flings and squats are pairs: one curve run through in both directions, so that no histogram of
poses or joint speeds tells the two apart, and a mirrored figure stays in its class."""


def find_action(name: str) -> Action:
    """The action of this name."""
    return next(one for one in ACTIONS if one.name == name)
