"""Curves as inline SVG and similarity maps as data for a canvas; tables are for `tables`, players for `page`.

Letters: N clips of a long video.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from uptal.report.sections import Curve, HeatmapGrid
from uptal.types import Segment, Timebase

MAX_CELLS = 512
"""Larger maps are averaged down to this many cells a side: more than a screen shows, and a page stays light."""
MAX_POINTS = 600
"""Longer lines are thinned to about this many points, keeping the extremes of every stretch."""
WIDTH, HEIGHT = 460, 270
"""Size of the drawing of a curve, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 40
"""Margins of the drawing: room for the numbers and names of the axes."""


def map_payload(values: np.ndarray, timebase: Timebase | None, duration: float) -> dict[str, Any]:
    """A similarity map (N, N) as bytes for the page: value = low + byte / 255 * (high - low), row by row.

    `start` and `end` are the seconds at which the map's first cell begins and its last one ends: the cell of clip i is
    centred on the clip and as wide as the step to the next. Values that are not numbers become the lowest one.
    """
    num_clips = len(values)
    if values.ndim != 2 or values.shape != (num_clips, num_clips) or num_clips == 0:
        raise ValueError(f"a similarity map is square, (N, N) with N > 0; found {values.shape}.")
    start, end = (0.0, duration) if timebase is None else (timebase.centre(-0.5), timebase.centre(num_clips - 0.5))
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    finite = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=low, posinf=high, neginf=low)
    cells = _shrink(finite, MAX_CELLS) if num_clips > MAX_CELLS else finite
    levels = np.rint((cells - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return {
        "clips": num_clips,
        "side": len(cells),
        "start": start,
        "end": end,
        "low": low,
        "high": high,
        "bytes": base64.b64encode(levels.tobytes()).decode("ascii"),
    }


def grid_payload(grid: HeatmapGrid) -> dict[str, Any]:
    """The maps of Figure 3 with their names, and the truth of every column in seconds."""
    shape = (len(grid.row_names), len(grid.column_names))
    if len(grid.maps) != shape[0] or any(len(row) != shape[1] for row in grid.maps) or len(grid.truth) != shape[1]:
        raise ValueError(f"grid {grid.title!r} names {shape[0]} rows and {shape[1]} columns, its maps are otherwise.")
    return {
        "rows": list(grid.row_names),
        "columns": list(grid.column_names),
        "maps": [[map_payload(values, grid.timebase, 0.0) for values in row] for row in grid.maps],
        "truth": [[{"start": one.start, "end": one.end} for one in column] for column in grid.truth],
        "contrast": [
            [action_contrast(values, column, grid.timebase) for values, column in zip(row, grid.truth, strict=True)]
            for row in grid.maps
        ],
    }


def action_contrast(
    values: np.ndarray, truth: Sequence[Segment], timebase: Timebase
) -> tuple[float, float] | None:
    """Mean similarity of two different clips of the action, and of a clip of the action with one outside it.

    A clip belongs to the action when its centre does. None where a kind of pair does not occur.
    """
    centres = np.array([timebase.centre(index) for index in range(len(values))])
    inside = np.zeros(len(values), dtype=bool)
    for segment in truth:
        inside |= (centres >= segment.start) & (centres < segment.end)
    if inside.sum() < 2 or inside.all():
        return None
    within = values[np.ix_(inside, inside)][~np.eye(int(inside.sum()), dtype=bool)]
    across = values[np.ix_(inside, ~inside)]
    means = float(np.nanmean(within)), float(np.nanmean(across))
    return means if all(map(math.isfinite, means)) else None


def curve_svg(curve: Curve) -> str:
    """The drawing of a curve; the page's script adds a read-out that follows the pointer and the arrow keys."""
    lines = {name: _finite_x(xs, ys) for name, (xs, ys) in curve.series.items()}
    shown = [ys[np.isfinite(ys)] for _, ys in lines.values()]
    if not any(part.size for part in shown):
        return '<p class="empty">No values were logged.</p>'
    x_low, x_high = _range(np.concatenate([xs for xs, _ in lines.values()]))
    y_ticks = ticks(*_range(np.concatenate(shown)), 5)
    x_ticks = [tick for tick in ticks(x_low, x_high, 6) if x_low <= tick <= x_high]
    frame = _Frame(x_low, x_high, y_ticks[0], y_ticks[-1])
    paths = [_path(frame, xs, ys, number) for number, (xs, ys) in enumerate(lines.values())]
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" data-frame="{frame.describe()}" '
        f'aria-label="{escape(_describe(curve, lines))}">'
        f"{_axes(frame, x_ticks, y_ticks, curve)}{''.join(paths)}"
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>{_legend(lines)}'
    )


def curve_payload(curve: Curve) -> dict[str, Any]:
    """The numbers behind the drawing, thinned as the drawing is."""
    thinned = {name: thin(*_finite_x(xs, ys)) for name, (xs, ys) in curve.series.items()}
    return {
        "x": curve.x_label,
        "series": [
            {"name": name, "xs": xs.tolist(), "ys": [y if math.isfinite(y) else None for y in ys.tolist()]}
            for name, (xs, ys) in thinned.items()
        ],
    }


def thin(
    xs: Float[np.ndarray, " P"], ys: Float[np.ndarray, " P"]
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """At most about `MAX_POINTS` points: the lowest and the highest of every stretch, in order, gaps kept."""
    if len(xs) <= MAX_POINTS:
        return xs, ys
    keep = {0, len(xs) - 1}
    for stretch in np.array_split(np.arange(len(xs)), MAX_POINTS // 2):
        part = ys[stretch]
        known = np.isfinite(part)
        if known.any():
            keep |= {int(stretch[known][part[known].argmin()]), int(stretch[known][part[known].argmax()])}
        if not known.all():
            keep.add(int(stretch[~known][0]))
    order = sorted(keep)
    return xs[order], ys[order]


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, equally spaced, from at or below `low` to at or above `high`.

    >>> ticks(0.3, 9.1, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


class _Frame:
    """Where numbers lie on the drawing."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float):
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)

    def describe(self) -> str:
        return f"{self.x_low!r} {self.x_high!r} {LEFT} {WIDTH - RIGHT} {WIDTH}"


def _shrink(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over equal areas: a cell of the source counts by the share of it that lies in the target cell."""
    edges = np.linspace(0, len(values), side + 1)
    indices = np.arange(len(values))
    overlap = np.minimum(edges[1:, None], indices + 1) - np.maximum(edges[:-1, None], indices)
    weights = np.clip(overlap, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ values @ weights.T


def _finite_x(xs: Sequence[float], ys: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a curve needs as many xs as ys, found {x.shape} and {y.shape}.")
    return x[np.isfinite(x)], y[np.isfinite(x)]


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _path(frame: _Frame, xs: np.ndarray, ys: np.ndarray, number: int) -> str:
    steps, pen_down = [], False
    for x, y in zip(*thin(xs, ys), strict=True):
        if math.isfinite(y):
            steps.append(f"{'L' if pen_down else 'M'}{frame.x(x):.1f} {frame.y(y):.1f}")
        pen_down = math.isfinite(y)
    return f'<path class="series series-{number % 8}" d="{"".join(steps)}"/>'


def _axes(frame: _Frame, x_ticks: list[float], y_ticks: list[float], curve: Curve) -> str:
    bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    rules = "".join(
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{frame.y(tick):.1f}" y2="{frame.y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{frame.y(tick) + 4:.1f}" text-anchor="end">{label}</text>'
        for tick, label in zip(y_ticks, _labels(y_ticks), strict=True)
    )
    marks = "".join(
        f'<text class="tick" x="{frame.x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
        for tick, label in zip(x_ticks, _labels(x_ticks), strict=True)
    )
    return (
        f'{rules}{marks}<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f'{escape(curve.x_label)}</text><text class="axis" transform="translate(11 {middle}) rotate(-90)" '
        f'text-anchor="middle">{escape(curve.y_label)}</text>'
    )


def _labels(values: list[float]) -> list[str]:
    """Numbers with as many digits as tell neighbours apart; thousands as k."""
    largest = max(abs(value) for value in values)
    if largest >= 10_000:
        return [f"{value / 1000:g}k" for value in values]
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))
    return [f"{value:.{digits}f}" for value in values]


def _legend(lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    entries = "".join(
        f'<li><span class="line series-{number % 8}"></span><span class="name">{escape(name)}</span> '
        f'<output class="value"></output></li>'
        for number, name in enumerate(lines)
    )
    return f'<ul class="legend" aria-live="off">{entries}</ul><p class="readout"><output class="at"></output></p>'


def _describe(curve: Curve, lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    parts = [f"{curve.y_label} over {curve.x_label}"]
    for name, (_, ys) in lines.items():
        known = ys[np.isfinite(ys)]
        if known.size:
            parts.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}, lowest {known.min():.4g}")
    return "; ".join(parts)
