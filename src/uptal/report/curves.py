"""Lines over an axis as inline SVG, with the numbers for the read-out of the page; maps are for `figures`.

Letters: P points of a line, Q points that are left of them.
"""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float

from uptal.report.sections import Curve, Values

MAX_POINTS = 600
"""Longer lines are thinned to about this many points, keeping the extremes of every stretch."""
WIDTH, HEIGHT = 460, 270
"""Size of the drawing of a curve, in its own units."""
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 40
"""Margins of the drawing: room for the numbers and names of the axes."""


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
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="0" x2="0"/>'
        f'<text class="at" y="{TOP + 10}"></text></svg>{_legend(lines)}'
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


def _finite_x(xs: Values, ys: Values) -> tuple[np.ndarray, np.ndarray]:
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
    return f'<ul class="legend">{entries}</ul>'


def _describe(curve: Curve, lines: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    parts = [f"{curve.y_label} over {curve.x_label}"]
    for name, (_, ys) in lines.items():
        known = ys[np.isfinite(ys)]
        if known.size:
            parts.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}, lowest {known.min():.4g}")
    return "; ".join(parts)
