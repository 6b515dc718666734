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

from uptal.synthetic.actions import ACTIONS, LIMBS, NUM_JOINTS, REACH, SHOULDERS, Action
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.tempo import limb_speed, pace

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
    """Poses (count, 2) of one limb, drawn from what it does in an action; neighbours are a quarter period apart."""
    phase = rng.uniform() + np.cumsum(rng.uniform(0.25, 0.75, size=count))
    return action.poses(phase, np.full(count, config.idle_amplitude))[:, columns]


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
        times, values = _fit(knots[limb], start.pose[columns], end.pose[columns], duration, tempo, columns)
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
        speed = rate * limb_speed(limb, label, tempo, config.num_classes) * np.exp(0.2 * rng.standard_normal())
        poses = _some_poses(ACTIONS[label], LIMBS[limb], int(rng.integers(2, 5)), config, rng)
        knots += [_Knot(pose, max(float(speed), 1e-4)) for pose in poses]
    return knots


def _fit(
    knots: list[_Knot],
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
    duration: float,
    tempo: float,
    columns: slice,
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K 2"]]:
    """Times and poses from `start` over as many knots as fit to `end`, where whole turns of a shoulder may be added."""
    values, clock = [start], [0.0]
    best, best_error = ([0.0, duration], [start, _nearest_turn(end, start, columns)]), np.inf
    for knot in [*knots, None]:
        last = values[-1]
        speed = knots[0].speed if knot is None else knot.speed
        close = _nearest_turn(end, last, columns)
        total = clock[-1] + _travel_time(close - last, speed, tempo, columns)
        if abs(np.log(total / duration)) < best_error:
            best, best_error = ([*clock, total], [*values, close]), abs(np.log(total / duration))
        if knot is None or clock[-1] > duration:
            break
        values.append(_nearest_turn(knot.pose, last, columns))
        clock.append(clock[-1] + _travel_time(values[-1] - last, knot.speed, tempo, columns))
    times = np.array(best[0])
    return times * (duration / times[-1]), np.array(best[1])


def _travel_time(way: Float[np.ndarray, " 2"], speed: float, tempo: float, columns: slice) -> float:
    """Frames that a limb needs at this speed, neither hectic nor sluggish beside the tempo of the video."""
    return float(np.clip(np.hypot(*(way * REACH[columns])) / speed, 0.15 * tempo, 0.8 * tempo))


def _nearest_turn(pose: Float[np.ndarray, " 2"], before: Float[np.ndarray, " 2"], columns: slice):
    """The same pose with whole turns added to a shoulder so that it is closest to the pose before."""
    if columns.start not in SHOULDERS:
        return pose
    return pose + np.array([2 * np.pi * np.round((before[0] - pose[0]) / (2 * np.pi)), 0.0])


def _spline(times, values, first_slope, last_slope, num_frames: int) -> Float[np.ndarray, "F 2"]:
    """Cubic Hermite curve through the knots at frames 1 … F, with slopes of neighbours' chords inside."""
    slopes = np.empty_like(values)
    slopes[0], slopes[-1] = first_slope, last_slope
    slopes[1:-1] = (values[2:] - values[:-2]) / (times[2:] - times[:-2])[:, None]
    frames = np.arange(1.0, num_frames + 1)
    knot = np.clip(np.searchsorted(times, frames, side="right") - 1, 0, len(times) - 2)
    span = (times[knot + 1] - times[knot])[:, None]
    u = (frames - times[knot])[:, None] / span
    rest = 1 - u
    ends = rest**2 * (1 + 2 * u) * values[knot] + u**2 * (3 - 2 * u) * values[knot + 1]
    return ends + u * rest * span * (rest * slopes[knot] - u * slopes[knot + 1])
