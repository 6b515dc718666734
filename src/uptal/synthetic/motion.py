"""Poses over time: actions with drifting tempo and, handed over limb by limb, the idle motion between them.

What idle limbs do is left to `idle.py`. Letters: F frames, J = 12 joint numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import ACTIONS, NUM_JOINTS, UNITS
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.idle import Anchor, Knots, idle, random_bursts, random_knots, smooth_noise
from uptal.synthetic.tempo import pace

_EASE = 4
"""Frames around a boundary within which arms and body, one after the other, enter or leave an action."""


@dataclass(frozen=True)
class Instance:
    """One performance of an action: frames [start, end) of the video."""

    start: int
    end: int
    label: int


def move(
    instances: Sequence[Instance], num_frames: int, config: CorpusConfig, rng: np.random.Generator
) -> Float[np.ndarray, "F 12"]:
    """Poses of one figure over a whole video; `instances` are ordered and do not overlap."""
    low, high = np.log(config.period_frames)
    tempo = float(np.exp(rng.uniform(low, high)))
    runs = [_perform(instance, tempo, config, rng) for instance in instances]
    gaps = [_plan_gap(num_frames, tempo, config, rng) for _ in range(len(instances) + 1)]
    bursts = random_bursts(num_frames + 1, tempo, rng)
    poses = np.empty((num_frames, NUM_JOINTS))
    for unit, columns in UNITS.items():
        takes = [_take(i, run[:, columns], num_frames, rng) for i, run in zip(instances, runs, strict=True)]
        poses[:, columns] = _weave(unit, takes, [gap[unit] for gap in gaps], bursts, tempo, config, rng)
    poses[:, -1] = np.maximum(poses[:, -1], 0.0)  # nobody hops into the ground
    return poses


def _plan_gap(num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator) -> dict[str, Knots]:
    """Poses to visit in a gap; now and then the right arm goes the way of the left one."""
    knots = {unit: random_knots(unit, num_frames, tempo, config, rng) for unit in UNITS}
    return knots | {"right arm": knots["left arm"]} if rng.uniform() < config.idle_symmetry else knots


def _perform(instance: Instance, tempo: float, config: CorpusConfig, rng: np.random.Generator):
    """Poses of an action over its frames and `_EASE` + 1 more on either side: (F, 12)."""
    num_frames, action = instance.end - instance.start + 2 * (_EASE + 1), ACTIONS[instance.label]
    period = tempo * pace(config.num_classes)[instance.label]
    drift = config.period_drift * smooth_noise(num_frames, 1.5 * tempo, rng)
    phase = rng.uniform(0, 2) + np.cumsum(np.exp(drift) / period)
    amplitude = np.empty((num_frames, NUM_JOINTS))
    for columns in UNITS.values():
        noise = 0.8 * smooth_noise(num_frames, 0.6 * period, rng) + 0.6 * rng.standard_normal()
        amplitude[:, columns] = np.clip(1 + config.amplitude_drift * noise, 0.5, 1.5)[:, None]
    return action.poses(phase, amplitude)


@dataclass(frozen=True)
class _Take:
    """The part of one unit in an action: frames [start, end), with one frame more on either side in `values`."""

    start: int
    end: int
    values: Float[np.ndarray, "_ J"]

    def entry(self) -> Anchor:
        return Anchor(self.values[1], (self.values[2] - self.values[0]) / 2)

    def exit(self) -> Anchor:
        return Anchor(self.values[-2], (self.values[-1] - self.values[-3]) / 2)


def _take(instance: Instance, run: Float[np.ndarray, "_ J"], num_frames: int, rng: np.random.Generator) -> _Take:
    """Draw when a unit enters and leaves an action."""
    head, tail = (int(shift) for shift in rng.integers(-_EASE, _EASE + 1, size=2))
    start, end = max(0, instance.start + head), min(num_frames, instance.end + tail)
    first = start - instance.start + _EASE
    return _Take(start, end, run[first : first + end - start + 2])


def _weave(
    unit: str,
    takes: list[_Take],
    gaps: list[Knots],
    bursts: Float[np.ndarray, " _"],
    tempo: float,
    config: CorpusConfig,
    rng: np.random.Generator,
) -> Float[np.ndarray, "F J"]:
    """The path of one unit over the video: idle, action, idle, …"""
    path = np.empty((len(bursts) - 1, takes[0].values.shape[1]))
    frame, here = 0, None
    for take, knots in zip(takes, gaps[:-1], strict=True):
        path[frame : take.start], goal = idle(
            unit, knots, here, take.entry(), bursts[frame : take.start + 1], tempo, config, rng
        )
        turned = _Take(take.start, take.end, take.values + (goal.pose - take.values[1]))  # whole turns of a shoulder
        path[take.start : take.end] = turned.values[1:-1]
        frame, here = take.end, turned.exit()
    path[frame:], _ = idle(unit, gaps[-1], here, None, bursts[frame:], tempo, config, rng)
    return path
