"""Poses over time: actions with drifting tempo, and between them idle motion as fast and as large as the actions.

Idle motion runs each limb, on its own, through poses that the actions reach, at speeds that the actions have, but in
no period and no order. It leaves an action and arrives at the next one with that action's pose and velocity, so a
boundary shows neither a cut nor a burst. Letters: F frames, J = 12 joint numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import ACTIONS, LIMBS, NUM_JOINTS, REACH, SHOULDERS, Action, pace
from uptal.synthetic.config import CorpusConfig

_IDLE_CALIBRATION = 1.0
"""Knot-to-knot speed that makes the frame differences of idle motion equal to those of the actions on average."""
_PAIRS = {"right arm": "left arm", "right leg": "left leg"}


@dataclass(frozen=True)
class Instance:
    """One performance of an action: frames [start, end) of the video."""

    start: int
    end: int
    label: int


@dataclass(frozen=True)
class _Anchor:
    """A pose and its change per frame, where idle motion begins or ends."""

    pose: Float[np.ndarray, " 12"]
    velocity: Float[np.ndarray, " 12"]


def move(
    instances: Sequence[Instance], num_frames: int, config: CorpusConfig, rng: np.random.Generator
) -> Float[np.ndarray, "F 12"]:
    """Poses of one figure over a whole video; `instances` are ordered and do not overlap."""
    low, high = np.log(config.period_frames)
    tempo = float(np.exp(rng.uniform(low, high)))
    poses = np.empty((num_frames, NUM_JOINTS))
    here, frame = _random_anchor(config, rng), 0
    for instance in instances:
        run = _perform(ACTIONS[instance.label], instance.end - instance.start, tempo, config, rng)
        poses[frame : instance.start], turns = _idle(here, _anchor(run, 1), instance.start - frame, tempo, config, rng)
        run = run + turns
        poses[instance.start : instance.end] = run[1:-1]
        here, frame = _anchor(run, -2), instance.end
    poses[frame:], _ = _idle(here, _random_anchor(config, rng), num_frames - frame, tempo, config, rng)
    return poses


def smooth_noise(num_frames: int, scale: float, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Random values of unit variance that change over about `scale` frames."""
    reach = max(1, round(2 * scale))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    white = rng.standard_normal(num_frames + 2 * reach)
    return np.convolve(white, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def _perform(action: Action, num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator):
    """Poses of an action, with one frame more on either side: (F + 2, 12)."""
    period = tempo * pace(config.num_classes)[ACTIONS.index(action)]
    drift = config.period_drift * smooth_noise(num_frames + 2, 1.5 * tempo, rng)
    phase = rng.uniform() + np.cumsum(np.exp(drift) / period)
    scale = config.amplitude_drift * (smooth_noise(num_frames + 2, tempo, rng) + rng.standard_normal()) / np.sqrt(2)
    return action.poses(phase, np.clip(1 + scale, 0.7, 1.3))


def _anchor(poses: Float[np.ndarray, "F 12"], frame: int) -> _Anchor:
    return _Anchor(poses[frame], (poses[frame + 1] - poses[frame - 1]) / 2)


def _random_anchor(config: CorpusConfig, rng: np.random.Generator) -> _Anchor:
    pose = np.empty(NUM_JOINTS)
    for columns in LIMBS.values():
        pose[columns] = _some_poses(ACTIONS[rng.integers(config.num_classes)], columns, 1, config, rng)[0]
    return _Anchor(pose, np.zeros(NUM_JOINTS))


def _some_poses(action: Action, columns: slice, count: int, config: CorpusConfig, rng: np.random.Generator):
    """Poses (count, 2) of one limb, drawn from what it does in an action."""
    poses = action.poses(rng.uniform(size=count), np.full(count, config.idle_amplitude))
    return poses[:, columns]


def _idle(
    start: _Anchor, end: _Anchor, num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "F 12"], Float[np.ndarray, " 12"]]:
    """Poses strictly between two anchors, and the whole turns to add to all poses from the second on."""
    duration = float(num_frames + 1)
    poses, turns = np.empty((num_frames, NUM_JOINTS)), np.zeros(NUM_JOINTS)
    knots: dict[str, list[_Knot]] = {}
    for limb, columns in LIMBS.items():
        twin = _PAIRS.get(limb)
        shared = twin is not None and rng.uniform() < config.idle_symmetry
        knots[limb] = knots[twin] if shared and twin else _wander(limb, duration, tempo, config, rng)
        times, values = _fit(knots[limb], start.pose[columns], end.pose[columns], duration, columns)
        turns[columns] = values[-1] - end.pose[columns]
        poses[:, columns] = _spline(times, values, start.velocity[columns], end.velocity[columns], num_frames)
    poses[:, LIMBS["root"]][:, 1] = np.maximum(poses[:, LIMBS["root"]][:, 1], 0.0)
    return poses, turns


@dataclass(frozen=True)
class _Knot:
    """A pose of one limb on its idle way, and the speed of going there in body heights a frame."""

    pose: Float[np.ndarray, " 2"]
    speed: float


def _wander(limb: str, duration: float, tempo: float, config: CorpusConfig, rng: np.random.Generator) -> list[_Knot]:
    """Enough knots for `duration` frames: the limb takes poses and speed from one action for a while, then another."""
    knots: list[_Knot] = []
    rate = _IDLE_CALIBRATION * config.idle_speed
    for _ in range(2 + int(duration / (0.5 * tempo))):
        label = int(rng.integers(config.num_classes))
        action = ACTIONS[label]
        speed = action.path_lengths()[limb] / (tempo * pace(config.num_classes)[label])
        speed *= rate * np.exp(0.2 * rng.standard_normal())
        poses = _some_poses(action, LIMBS[limb], int(rng.integers(2, 5)), config, rng)
        knots += [_Knot(pose, max(float(speed), 1e-4)) for pose in poses]
    return knots
