"""Similarity maps as data for a canvas, alone and in the grid of the paper's Figure 3; curves are for `curves`.

Letters: N clips of a long video.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from uptal.report.sections import HeatmapGrid
from uptal.types import Segment, Timebase

MAX_CELLS = 512
"""Larger maps are averaged down to this many cells a side: more than a screen shows, and a page stays light."""


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
    bases = [grid.timebase] * shape[0] if isinstance(grid.timebase, Timebase) else grid.timebase
    rows = list(zip(grid.maps, bases, strict=False))
    if len(bases) != shape[0]:
        raise ValueError(f"grid {grid.title!r} has {shape[0]} rows and {len(bases)} time bases.")
    return {
        "rows": list(grid.row_names),
        "columns": list(grid.column_names),
        "maps": [
            [map_payload(values, base, 0.0) for values in row] for row, base in zip(grid.maps, bases, strict=True)
        ],
        "truth": [[{"start": one.start, "end": one.end} for one in column] for column in grid.truth],
        "contrast": [
            [action_contrast(values, column, base) for values, column in zip(row, grid.truth, strict=True)]
            for row, base in rows
        ],
    }


def action_contrast(values: np.ndarray, truth: Sequence[Segment], timebase: Timebase) -> tuple[float, float] | None:
    """Mean similarity of two different clips of the action, and of a clip of the action with one outside it.

    A clip belongs to the action when its centre does. None where a kind of pair does not occur.
    """
    centres = np.array([timebase.centre(float(index)) for index in range(len(values))])
    inside = np.zeros(len(values), dtype=bool)
    for segment in truth:
        inside |= (centres >= segment.start) & (centres < segment.end)
    if inside.sum() < 2 or inside.all():
        return None
    within = values[np.ix_(inside, inside)][~np.eye(int(inside.sum()), dtype=bool)]
    across = values[np.ix_(inside, ~inside)]
    means = float(np.nanmean(within)), float(np.nanmean(across))
    return means if all(map(math.isfinite, means)) else None


def _shrink(values: np.ndarray, side: int) -> np.ndarray:
    """Mean over equal areas: a cell of the source counts by the share of it that lies in the target cell."""
    edges = np.linspace(0, len(values), side + 1)
    indices = np.arange(len(values))
    overlap = np.minimum(edges[1:, None], indices + 1) - np.maximum(edges[:-1, None], indices)
    weights = np.clip(overlap, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ values @ weights.T
