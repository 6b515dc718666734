"""The onset figure: one panel a measure, transfer over region pairs on a logarithmic axis, a line a method, as an SVG.

Means over seeds with bars of one standard deviation; what is not trained is a level line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from uptal.evidence.scores import HEADS, NAMES
from uptal.evidence.summary import Points, measured
from uptal.report.curves import ticks

COLOURS = (
    "#1b6ca8", "#d1495b", "#2e8b57", "#8e6bbf", "#c77f1a", "#20a4b8", "#7a7a7a", "#8b4513", "#d957a8", "#9aa400",
    "#111111", "#5b7fff",
)  # fmt: skip
WIDTH, HEIGHT, COLUMNS = 300, 210, 3
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 30, 34
LEGEND = 2
"""Columns of the legend; names of changed settings are long."""
APART = 24
"""Least distance of two numbers on the axis of budgets."""
SHOWN = ("knn", "linear", "action_linear", "action", "start", "auc20", *HEADS)
"""Panels, as far as there are numbers for them."""


def onset_svg(points: Points, title: str) -> str:
    """The drawing; readable on white and on dark paper alike."""
    names = sorted({name for name, _ in points})
    budgets = sorted({budget for _, budget in points if budget})
    low, high = (math.log2(budgets[0]), math.log2(budgets[-1])) if budgets else (0.0, 1.0)
    span = (low, max(high, low + 1))
    shown = [name for name in SHOWN if name in measured(points)]
    rows = math.ceil(len(shown) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 24 + 18 * math.ceil(len(names) / LEGEND)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" role="img" aria-label="{escape(title)}"><rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>'
    ]
    for number, measure in enumerate(shown):
        x, y = number % COLUMNS * WIDTH, 20 + number // COLUMNS * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(points, names, measure, budgets, span)}</g>')
    for number, name in enumerate(names):
        x, y = 12 + number % LEGEND * width / LEGEND, rows * HEIGHT + 36 + number // LEGEND * 18
        dashes = "" if any(budget for who, budget in points if who == name) else ' stroke-dasharray="5 3"'
        parts.append(
            f'<path d="M{x} {y - 4}h18" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="2"{dashes}/>'
            f'<text x="{x + 24}" y="{y}">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>\n"


def _panel(
    points: Points, names: Sequence[str], measure: str, budgets: Sequence[int], span: tuple[float, float]
) -> str:
    points = {key: some for key, seeds in points.items() if (some := {s: v for s, v in seeds.items() if measure in v})}
    values = [scores[measure] for seeds in points.values() for scores in seeds.values()]
    levels = ticks(min(values), max(values) + 1e-6, 5)
    low, high = levels[0], levels[-1]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(budget: float | int, value: float | int) -> tuple[float, float]:
        x = LEFT + (math.log2(budget) - span[0]) / (span[1] - span[0]) * (right - LEFT)
        return x, bottom - (value - low) / (high - low) * (bottom - TOP)

    parts = [f'<text x="{LEFT}" y="{TOP - 8}">{escape(NAMES[measure])}</text>']
    for value in levels:
        y = place(2 ** span[0], value)[1]
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    before = -math.inf
    for budget in budgets:
        x = place(budget, low)[0]
        if x - before < APART:
            continue
        before = x
        label = f"{budget / 1000:g}k" if budget >= 1000 else f"{budget}"
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle" fill="#555">{label}</text>')
    for number, name in enumerate(names):
        colour = COLOURS[number % len(COLOURS)]
        mine = {budget: _mean_sd(seeds, measure) for (who, budget), seeds in sorted(points.items()) if who == name}
        if not mine:
            continue
        if set(mine) == {0}:
            y = place(2 ** span[0], mine[0][0])[1]
            parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{colour}" stroke-dasharray="5 3"/>')
            continue
        places = [(*place(budget, mean), place(budget, mean + sd)[1]) for budget, (mean, sd) in mine.items()]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        for x, y, top in places:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{colour}"/>')
            parts.append(f'<path d="M{x:.1f} {top:.1f}V{2 * y - top:.1f}" stroke="{colour}"/>')
    return "".join(parts)


def _mean_sd(seeds: Mapping[int, Mapping[str, float]], measure: str) -> tuple[float, float]:
    values = [scores[measure] for scores in seeds.values()]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
