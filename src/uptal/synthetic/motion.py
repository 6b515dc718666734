"""Poses over time: for every limb a chain of takes, each a stretch of some action's curve, faded into one another.

In an action all limbs share one take: one class, one phase, one direction, for as long as it lasts. Between actions
every limb draws short takes of its own from the same curves. Speeds, sizes, places and hand-overs follow the same laws
in both, so that what sets an action apart is that the limbs agree and go on, and not how much or where they move.
Letters: F frames, J = 12 joint numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import NUM_JOINTS, SHOULDERS, UNITS, find_action
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.noise import smooth_noise
from uptal.synthetic.tempo import pace

_STAGGER = 3
"""Frames by which the limbs may begin and end an action earlier or later than annotated, each on its own."""
_QUICKEST = 8
"""Frames that passing from one curve to the next takes at least, so that no limb leaps."""
_SIZES = (0.5, 1.3)
"""Smallest and largest movements: the quickest at the shortest period turns an arm by 1.4 radians a frame."""


@dataclass(frozen=True)
class Instance:
    """One performance of an action: frames [start, end) of the video."""

    start: int
    end: int
    label: int


@dataclass(frozen=True)
class Take:
    """From `start` on a limb follows an action's curve."""

    start: int
    label: int
    origin: int
    """Frame at which the curve is at `phase`; all limbs of an action have the same."""
    phase: float
    direction: int
    """1 forward, -1 backward."""
    size: float = 1.0
    """Of the way from the mean pose, beside what actions have."""
    speed: float = 1.0
    """Beside that of actions."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one performer moves throughout a video, in actions and between them."""

    tempo: float
    """Period of an action of average pace, in frames."""
    clock: Float[np.ndarray, " F"]
    """Periods of average pace that have gone by."""
    amplitude: dict[str, Float[np.ndarray, " F"]]
    """Size of the movements of each unit, about 1."""
    lift: float
    """Radians by which the arms are held higher."""


def move(
    instances: Sequence[Instance], num_frames: int, config: CorpusConfig, rng: np.random.Generator
) -> Float[np.ndarray, "F 12"]:
    """Poses of one figure over a whole video; `instances` are ordered and do not overlap."""
    manner = _draw_manner(num_frames, config, rng)
    chains = _plan(instances, num_frames, manner.tempo, config, rng)
    poses = np.empty((num_frames, NUM_JOINTS))
    for unit, columns in UNITS.items():
        poses[:, columns] = _follow(unit, chains[unit], manner, config)
    poses[:, list(SHOULDERS)] += manner.lift
    poses[:, -1] = np.maximum(poses[:, -1], 0.0)  # nobody hops into the ground
    return poses


def draw_tempo(config: CorpusConfig, rng: np.random.Generator) -> float:
    """Frames of a period of average pace: the first draw from the generator of a video's poses."""
    low, high = np.log(config.period_frames)
    return float(np.exp(rng.uniform(low, high)))


def _draw_manner(num_frames: int, config: CorpusConfig, rng: np.random.Generator) -> Manner:
    tempo = draw_tempo(config, rng)
    drift = np.clip(config.period_drift * smooth_noise(num_frames, 1.5 * tempo, rng), -0.2, 0.2)
    arms, body = np.exp(config.style * rng.standard_normal(2))
    sizes = {"left arm": arms, "right arm": arms, "body": body}
    amplitude = {}
    for unit, size in sizes.items():
        noise = config.amplitude_drift * smooth_noise(num_frames, 0.8 * tempo, rng)
        amplitude[unit] = np.clip(size * (1 + noise), *_SIZES)
    lift = float(config.style * rng.standard_normal())
    return Manner(tempo=tempo, clock=np.cumsum(np.exp(drift)) / tempo, amplitude=amplitude, lift=lift)


def _plan(
    instances: Sequence[Instance], num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator
) -> dict[str, list[Take]]:
    """The takes of every unit over the video."""
    chains: dict[str, list[Take]] = {unit: [] for unit in UNITS}
    frame = 0
    for instance in (*instances, None):
        end = num_frames if instance is None else instance.start
        if end > frame:
            _idle(chains, frame, end, tempo, config, rng)
        if instance is not None:
            phase = float(rng.uniform(0, 2))
            for chain in chains.values():
                start = _staggered(instance.start, rng) if chain else 0
                chain.append(Take(start, instance.label, instance.start, phase, 1))
            frame = instance.end
    return chains


def _idle(
    chains: dict[str, list[Take]], start: int, end: int, tempo: float, config: CorpusConfig, rng: np.random.Generator
) -> None:
    """Append the takes of a gap; now and then the right arm goes the way of the left one."""
    together = rng.uniform() < config.idle_symmetry
    for unit, chain in chains.items():
        if unit == "right arm" and together:
            chain.extend(take for take in chains["left arm"] if take.start >= start - _STAGGER and take not in chain)
            continue
        chain.extend(_wander(_staggered(start, rng) if chain else 0, end, tempo, config, rng))


def _wander(start: int, end: int, tempo: float, config: CorpusConfig, rng: np.random.Generator) -> Iterator[Take]:
    """Short takes of any class, phase and direction, from `start` until before `end`."""
    low, high = config.idle_dwell
    frame = float(start)
    while frame < end - _STAGGER - 1 or frame == start:
        label, direction = int(rng.integers(config.num_classes)), int(rng.choice((-1, 1)))
        here, phase = round(frame), float(rng.uniform(0, 2))
        yield Take(here, label, here, phase, direction, config.idle_amplitude, config.idle_speed)
        frame += max(2.0, tempo * rng.uniform(low, high))


def _staggered(frame: int, rng: np.random.Generator) -> int:
    return max(0, frame + int(rng.integers(-_STAGGER, _STAGGER + 1)))


def _follow(unit: str, takes: Sequence[Take], manner: Manner, config: CorpusConfig) -> Float[np.ndarray, "F J"]:
    """The path of one unit: every take is faded in over the one before."""
    num_frames, half = len(manner.clock), max(_QUICKEST, config.hand_over * manner.tempo) / 2
    path = np.zeros((num_frames, UNITS[unit].stop - UNITS[unit].start))
    for place, take in enumerate(takes):
        first = 0 if place == 0 else max(0, int(np.ceil(take.start - half)))
        last = num_frames if place + 2 >= len(takes) else min(num_frames, int(takes[place + 2].start + half) + 1)
        frames = np.arange(first, last)
        values = _run(unit, take, frames, manner, config)
        if place == 0:
            path[first:last] = values
            continue
        middle = min(max(take.start, first), last - 1)
        if unit != "body":  # a shoulder goes the shorter way round
            values[:, 0] += 2 * np.pi * np.round((path[middle, 0] - values[middle - first, 0]) / (2 * np.pi))
        share = np.clip((frames - take.start + half) / (2 * half), 0.0, 1.0)
        share = (share * share * (3 - 2 * share))[:, None]
        path[first:last] += share * (values - path[first:last])
    return path


def _run(unit: str, take: Take, frames, manner: Manner, config: CorpusConfig) -> Float[np.ndarray, "_ J"]:
    """Poses of one unit along a take."""
    clock = manner.clock
    origin = min(take.origin, len(clock) - 1)
    gone = (clock[frames] - clock[origin]) / pace(config.labels)[take.label]
    amplitude = (take.size * manner.amplitude[unit][frames])[:, None]
    phase = take.phase + take.direction * take.speed * gone
    return find_action(config.labels[take.label]).poses(phase, amplitude)[:, UNITS[unit]]
