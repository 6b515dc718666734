"""Idle motion: as fast and as large as the actions, in no period and no order; the actions are left to `motion.py`.

A unit (an arm, or the body with both legs) goes through poses that the actions reach, taken in random order, and
brushes over as much area a frame as the actions do on average. It leaves an action and arrives at the next one in the
direction in which that action moves, so a boundary shows neither a cut nor a burst nor a rest.
Letters: F frames, J joint numbers of a unit, K knots, P points of a finely sampled path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from uptal.synthetic.actions import ACTIONS, UNITS
from uptal.synthetic.config import CorpusConfig
from uptal.synthetic.tempo import unit_area, unit_areas

_FINE = 6
"""Points of the path from one knot to the next."""
_CHOICES = 8
"""Of so many random poses the one farthest from the last is the next knot; actions do not dwell in one place either."""
_BURSTS = 0.35
"""Standard deviation of the bursts."""
_CALIBRATION = 1.0
"""Area a frame beside the average of the actions, measured to make both equally strong in the whole body."""


Knots = Float[np.ndarray, "K J"]


@dataclass(frozen=True)
class Anchor:
    """Where one unit leaves an action or enters one, and its change per frame there."""

    pose: Float[np.ndarray, " J"]
    slope: Float[np.ndarray, " J"]


def random_knots(unit: str, num_frames: int, tempo: float, config: CorpusConfig, rng: np.random.Generator) -> Knots:
    """More poses than an idle unit can visit in `num_frames`: any pose of any action, never close to the one before."""
    count = 8 + int(4 * num_frames / tempo)
    labels = rng.integers(config.num_classes, size=count)
    poses = np.empty((count, _CHOICES, UNITS[unit].stop - UNITS[unit].start))
    for label in np.unique(labels):
        chosen = labels == label
        phases = rng.uniform(0, 2, size=_CHOICES * int(chosen.sum()))
        whole = ACTIONS[label].poses(phases, np.full((len(phases), 1), config.idle_amplitude))
        poses[chosen] = whole[:, UNITS[unit]].reshape(-1, *poses.shape[1:])
    knots = [poses[0, 0]]
    for choices in poses[1:]:
        knots.append(choices[_distance(unit, choices, knots[-1]).argmax()])
    return np.stack(knots)


def random_bursts(num_frames: int, tempo: float, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Logarithm of how much all idle units hurry in each frame: as uneven as actions are within their period."""
    return _BURSTS * 0.2 * tempo * np.diff(smooth_noise(num_frames + 1, 0.2 * tempo, rng))


def _distance(unit: str, poses: Knots, last: Float[np.ndarray, " J"]) -> Float[np.ndarray, " K"]:
    """How far poses are from the last one: hands in height, because arms go up and down in every action."""
    if unit == "body":
        return np.abs(poses - last).sum(axis=1)
    height = [-0.165 * np.cos(arm[..., 0]) - 0.155 * np.cos(arm.sum(axis=-1)) for arm in (poses, last)]
    return np.abs(height[0] - height[1])


def idle(
    unit: str,
    knots: Knots,
    start: Anchor | None,
    end: Anchor | None,
    bursts: Float[np.ndarray, " _"],
    tempo: float,
    config: CorpusConfig,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "F J"], Anchor]:
    """The way of one unit over its knots, between two anchors (None: from or to anywhere).

    Args:
        unit: Which one.
        knots: Poses to visit, more than there is time for.
        start: Where it comes from.
        end: Where it goes.
        bursts: Logarithm of how much all units hurry, from each frame to the next.
        tempo: Average period of the actions in this video, in frames.
        config: The knobs.
        rng: Decides how the speed drifts.

    Returns:
        Poses of the F frames strictly between the anchors, and the second anchor with the whole turns of a shoulder
        that the way added to it.
    """
    num_frames = len(bursts) - 1
    rate = _CALIBRATION * config.idle_speed * unit_area(unit, config.num_classes) / tempo
    drift = config.period_drift * smooth_noise(num_frames + 1, 1.5 * tempo, rng)
    clock = rate * np.concatenate([[0.0], np.cumsum(np.exp(drift + bursts))])
    paths = (_path(unit, start, knots[:count], end, rate) for count in _counts(unit, knots, float(clock[-1])))
    path, area = min(paths, key=lambda found: abs(np.log(found[1][-1] / clock[-1])))
    clock *= area[-1] / clock[-1]
    poses = np.stack([np.interp(clock[1:-1], area, values) for values in path.T], axis=1)
    return poses, Anchor(path[-1], np.zeros_like(path[-1]) if end is None else end.slope)


def smooth_noise(num_frames: int, scale: float, rng: np.random.Generator) -> Float[np.ndarray, " F"]:
    """Random values of unit variance that change over about `scale` frames."""
    reach = max(1, round(2 * scale))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    white = rng.standard_normal(num_frames + 2 * reach)
    return np.convolve(white, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def _counts(unit: str, knots: Knots, area: float) -> range:
    """Numbers of knots with which the way may brush over `area`; the anchors take about two legs of it."""
    likely = int(np.searchsorted(np.cumsum(unit_areas(unit, knots)), area))
    return range(max(0, likely - 3), min(len(knots), likely + 2))


def _path(
    unit: str, start: Anchor | None, knots: Knots, end: Anchor | None, rate: float
) -> tuple[Float[np.ndarray, "P J"], Float[np.ndarray, " P"]]:
    """A smooth path, finely sampled, and the area brushed over up to each of its points."""
    ends = [anchor.pose for anchor in (start, end) if anchor is not None]
    points = [*ends[:1], *knots, *ends[1:]] if start is not None else [*knots, *ends]
    if len(points) < 2:
        points = [points[0], points[0] + 1e-3] if points else [knots[0], knots[1]]
    values = _shortest_turns(unit, np.stack(points))
    times = np.concatenate([[0.0], np.cumsum(np.maximum(unit_areas(unit, values) / rate, 1.0))])
    at = np.interp(np.arange(_FINE * (len(times) - 1) + 1) / _FINE, np.arange(len(times)), times)
    path = _hermite(times, values, start and start.slope, end and end.slope, at)
    return path, np.concatenate([[0.0], np.cumsum(unit_areas(unit, path) + 1e-6)])


def _shortest_turns(unit: str, values: Knots) -> Knots:
    """The same poses with whole turns added to a shoulder, so that it never turns by more than half."""
    if unit == "body":
        return values
    return np.concatenate([np.unwrap(values[:, :1], axis=0), values[:, 1:]], axis=1)


def _hermite(times, values, first_slope, last_slope, at: Float[np.ndarray, " P"]) -> Float[np.ndarray, "P J"]:
    """Cubic curve through the knots, with the slopes of the neighbours' chords inside."""
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
