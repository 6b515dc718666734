"""Poses over time: actions with drifting tempo, and between them idle motion as fast and as large as the actions.

Idle motion leads each limb, on its own, through poses that the actions reach, at speeds that the actions have, but in
no period and no order. It leaves an action and arrives at the next one with that action's pose and velocity, each limb
within a few frames of the boundary, which therefore shows neither a cut nor a burst nor a rest.
Letters: F frames, J = 12 joint numbers, K knots of a limb's idle path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import ACTIONS, LIMBS, NUM_JOINTS, REACH, SHOULDERS, Action
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.tempo import limb_speed, pace

_IDLE_CALIBRATION = 1.12
"""Knot-to-knot speed that makes idle motion brush over as many pixels as the actions do."""
_BURSTS = 0.0
"""Logarithm of how much idle limbs hurry and rest together; no slower than an action does within its period."""
_STEPS = 8
"""Knots of an idle limb in the period of the action that it borrows from."""
_TURN = 0.0
"""How often an idle limb turns round in that period, on average."""
_EASE = 4
"""Frames around a boundary within which the limbs, one after the other, enter or leave an action."""
_GROUPS = (("left arm", "right arm"), ("left leg", "right leg", "trunk", "root"))


@dataclass(frozen=True)
class Instance:
    """One performance of an action: frames [start, end) of the video."""

    start: int
    end: int
    label: int


@dataclass(frozen=True)
class _Knot:
    """A pose of one limb on its idle way."""

    pose: Float[np.ndarray, " 2"]
    frames: float
    """Time to get there from the knot before, when both are of one action."""
    speed: float
    """Body heights a frame at which the limb changes over from another action."""
    first: bool
    """The first knot of its action."""


@dataclass(frozen=True)
class _Loan:
    """The action that idle limbs borrow from for a while, and the frames from one knot to the next."""

    label: int
    frames: Float[np.ndarray, " K"]


@dataclass(frozen=True)
class _Anchor:
    """Where and how fast (a frame) one limb leaves an action or enters one; no slope is a free end."""

    pose: Float[np.ndarray, " 2"]
    slope: Float[np.ndarray, " 2"] | None = None


def move(
    instances: Sequence[Instance], num_frames: int, config: CorpusConfig, rng: np.random.Generator
) -> Float[np.ndarray, "F 12"]:
    """Poses of one figure over a whole video; `instances` are ordered and do not overlap."""
    low, high = np.log(config.period_frames)
    tempo = float(np.exp(rng.uniform(low, high)))
    runs = [_perform(instance, tempo, config, rng) for instance in instances]
    gaps = [_wander_all(num_frames, tempo, config, rng) for _ in range(len(instances) + 1)]
    bursts = _BURSTS * 0.2 * tempo * np.diff(smooth_noise(num_frames + 1, 0.2 * tempo, rng))
    poses = np.empty((num_frames, NUM_JOINTS))
    for limb, columns in LIMBS.items():
        spans = _handovers(instances, num_frames, rng)
        limb_runs = [run[:, columns] for run in runs]
        poses[:, columns] = _weave(columns, instances, spans, limb_runs, [gap[limb] for gap in gaps], bursts, tempo)
    poses[:, -1] = np.maximum(poses[:, -1], 0.0)  # nobody hops into the ground
    return poses


def smooth_noise(num_frames: int, scale: float, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Random values of unit variance that change over about `scale` frames."""
    reach = max(1, round(2 * scale))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    white = rng.standard_normal(num_frames + 2 * reach)
    return np.convolve(white, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def _perform(instance: Instance, tempo: float, config: CorpusConfig, rng: np.random.Generator):
    """Poses of an action over its frames and `_EASE` + 1 more on either side: (F, 12)."""
    num_frames, action = instance.end - instance.start + 2 * (_EASE + 1), ACTIONS[instance.label]
    period = tempo * pace(config.num_classes)[instance.label]
    drift = config.period_drift * smooth_noise(num_frames, 1.5 * tempo, rng)
    phase = rng.uniform() + np.cumsum(np.exp(drift) / period)
    amplitude = np.empty((num_frames, NUM_JOINTS))
    for columns in LIMBS.values():
        amplitude[:, columns] = _vary(num_frames, tempo, config, rng)
    return action.poses(phase, amplitude)


def _vary(count: int, period: float, config: CorpusConfig, rng: np.random.Generator) -> Float[np.ndarray, "F 1"]:
    """Amplitudes of one limb that drift from period to period."""
    drift = 0.8 * smooth_noise(count, 0.6 * period, rng) + 0.6 * rng.standard_normal()
    return np.clip(1 + config.amplitude_drift * drift, 0.5, 1.5)[:, None]


def _handovers(instances: Sequence[Instance], num_frames: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """For each instance, the frames [start, end) in which one limb takes part."""
    shifts = rng.integers(-_EASE, _EASE + 1, size=(len(instances), 2))
    pairs = zip(instances, shifts.tolist(), strict=True)
    return [(max(0, i.start + head), min(num_frames, i.end + tail)) for i, (head, tail) in pairs]


def _weave(
    columns: slice,
    instances: Sequence[Instance],
    spans: list[tuple[int, int]],
    runs: list[Float[np.ndarray, "_ 2"]],
    gaps: list[list[_Knot]],
    bursts: Float[np.ndarray, " F"],
    tempo: float,
) -> Float[np.ndarray, "F 2"]:
    """The path of one limb over the video: idle, action, idle, …"""
    path, frame, here = np.empty((len(bursts), 2)), 0, _Anchor(gaps[0][0].pose)
    for instance, (start, end), run, knots in zip(instances, spans, runs, gaps[:-1], strict=True):
        first = start - instance.start + _EASE + 1
        goal = _Anchor(run[first], (run[first + 1] - run[first - 1]) / 2)
        path[frame:start], goal = _idle(knots, here, goal, bursts[frame:start], tempo, columns)
        run = run + (goal.pose - run[first])  # whole turns of a shoulder
        path[start:end] = run[first : first + end - start]
        last = first + end - start - 1
        here, frame = _Anchor(run[last], (run[last + 1] - run[last - 1]) / 2), end
    path[frame:], _ = _idle(gaps[-1][1:], here, _Anchor(gaps[-1][0].pose), bursts[frame:], tempo, columns)
    return path


def _wander_all(
    num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator
) -> dict[str, list[_Knot]]:
    """Idle knots of every limb, enough for any gap.

    Two arms (two legs) borrow from the same actions at the same times, because in an action they move equally much;
    with probability `idle_symmetry` they even go the same way.
    """
    knots: dict[str, list[_Knot]] = {}
    for group in _GROUPS:
        loans = _borrow(num_frames, tempo, config, rng)
        alike = rng.uniform() < config.idle_symmetry
        for limb in group:
            copied = alike and limb != group[0]
            knots[limb] = knots[group[0]] if copied else _wander(limb, loans, tempo, config, rng)
    return knots


def _borrow(num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator) -> list[_Loan]:
    """Actions to borrow from one after the other, for half as long again as needed."""
    loans, total = [], 0.0
    while total < 1.5 * num_frames + 2 * tempo:
        label, count = int(rng.integers(config.num_classes)), int(rng.integers(_STEPS, 3 * _STEPS))
        step = tempo * pace(config.num_classes)[label] / (_STEPS * _IDLE_CALIBRATION * config.idle_speed)
        frames = step * np.exp(config.period_drift * smooth_noise(count, 1.5 * _STEPS, rng))
        loans.append(_Loan(label, frames))
        total += frames.sum()
    return loans


def _wander(limb: str, loans: list[_Loan], tempo: float, config: CorpusConfig, rng: np.random.Generator) -> list[_Knot]:
    """The limb follows its part of one action for a while, then that of another, to and fro at random."""
    knots: list[_Knot] = []
    for loan in loans:
        poses = _to_and_fro(ACTIONS[loan.label], len(loan.frames), config, rng)[:, LIMBS[limb]]
        speed = limb_speed(limb, loan.label, tempo, config.num_classes)
        steps = zip(poses, loan.frames.tolist(), strict=True)
        knots += [_Knot(pose, frames, speed, place == 0) for place, (pose, frames) in enumerate(steps)]
    return knots


def _to_and_fro(
    action: Action, count: int, config: CorpusConfig, rng: np.random.Generator
) -> Float[np.ndarray, "K 12"]:
    """Poses of an action that turns round every now and then: its poses and speeds without its order."""
    turns = np.where(rng.uniform(size=count) < _TURN / _STEPS, -1, 1)
    phase = rng.uniform() + np.cumsum(rng.choice([-1, 1]) * np.cumprod(turns)) / _STEPS
    return action.poses(phase, config.idle_amplitude * _vary(count, _STEPS, config, rng))


def _idle(
    knots: list[_Knot], start: _Anchor, end: _Anchor, bursts: Float[np.ndarray, " F"], tempo: float, columns: slice
) -> tuple[Float[np.ndarray, "F 2"], _Anchor]:
    """Path strictly between two anchors, and the second anchor with the whole turns that the way added to it."""
    duration = float(len(bursts) + 1)
    times, values = _fit(knots, start.pose, end.pose, duration, tempo, columns)
    path = _spline(times, values, start.slope, end.slope, _hurry(bursts))
    return path, _Anchor(values[-1], end.slope)


def _hurry(bursts: Float[np.ndarray, " F"]) -> Float[np.ndarray, " F"]:
    """Times 1 … F, unevenly spaced: all limbs hurry and rest together, as they do in an action."""
    count = len(bursts)
    edge = np.minimum(np.arange(count), np.arange(count)[::-1])
    steps = np.exp(np.append(bursts * np.clip(edge / _EASE, 0, 1), 0.0))
    return (np.cumsum(steps) * ((count + 1) / steps.sum()))[:-1]


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
    for place, knot in enumerate(knots):
        last = values[-1]
        close = _nearest_turn(end, last, columns)
        total = clock[-1] + _travel_time(close - last, knot.speed, tempo, columns)
        if abs(np.log(total / duration)) < best_error:
            best, best_error = ([*clock, total], [*values, close]), abs(np.log(total / duration))
        if clock[-1] > duration:
            break
        values.append(_nearest_turn(knot.pose, last, columns))
        change = place == 0 or knot.first
        clock.append(
            clock[-1] + (_travel_time(values[-1] - last, knot.speed, tempo, columns) if change else knot.frames)
        )
    times = np.array(best[0])
    return times * (duration / times[-1]), np.array(best[1])


def _travel_time(way: Float[np.ndarray, " 2"], speed: float, tempo: float, columns: slice) -> float:
    """Frames that a limb needs at this speed, neither hectic nor sluggish beside the tempo of the video."""
    return float(np.clip(np.hypot(*(way * REACH[columns])) / max(speed, 1e-6), 0.15 * tempo, 0.8 * tempo))


def _nearest_turn(pose: Float[np.ndarray, " 2"], before: Float[np.ndarray, " 2"], columns: slice):
    """The same pose with whole turns added to a shoulder so that it is closest to the pose before."""
    if columns.start not in SHOULDERS:
        return pose
    return pose + np.array([2 * np.pi * np.round((before[0] - pose[0]) / (2 * np.pi)), 0.0])


def _spline(times, values, first_slope, last_slope, at: Float[np.ndarray, " F"]) -> Float[np.ndarray, "F 2"]:
    """Cubic Hermite curve through the knots, with the slopes of the neighbours' chords inside."""
    chords = np.diff(values, axis=0) / np.diff(times)[:, None]
    slopes = np.empty_like(values)
    slopes[0] = chords[0] if first_slope is None else first_slope
    slopes[-1] = chords[-1] if last_slope is None else last_slope
    slopes[1:-1] = (values[2:] - values[:-2]) / (times[2:] - times[:-2])[:, None]
    knot = np.clip(np.searchsorted(times, at, side="right") - 1, 0, len(times) - 2)
    span = (times[knot + 1] - times[knot])[:, None]
    u = (at - times[knot])[:, None] / span
    rest = 1 - u
    ends = rest**2 * (1 + 2 * u) * values[knot] + u**2 * (3 - 2 * u) * values[knot + 1]
    return ends + u * rest * span * (rest * slopes[knot] - u * slopes[knot + 1])
