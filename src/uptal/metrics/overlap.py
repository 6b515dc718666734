"""Temporal overlap of many pairs of segments at once; which pairs are worth a look is left to the callers.

Letters: P pairs, N rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

PAIRS_AT_ONCE = 1_000_000
"""Bounds the memory of one step (about 100 MB), whatever the size of the files."""


def tiou(first: Float[np.ndarray, "P 2"], second: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, " P"]:
    """Temporal intersection over union of row i of `first` with row i of `second`.

    The arithmetic of the ActivityNet evaluators, in their order of operations: the intersection is cut off at 0 and
    nothing else is repaired. Two segments without length give NaN wherever they lie; inverted ones may, too.
    """
    inside = np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0])
    inside = inside.clip(0)
    union = (second[:, 1] - second[:, 0]) + (first[:, 1] - first[:, 0]) - inside
    with np.errstate(divide="ignore", invalid="ignore"):
        return inside / union


def hull_overlap(first: Float[np.ndarray, "P 2"], second: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, " P"]:
    """Shared time over the span from the earlier start to the later end; 0 where none is shared, even of two points.

    A segment that ends before it starts is turned round, as the THUMOS'14 toolkit does.
    """
    a, b = np.sort(first, axis=1), np.sort(second, axis=1)
    inside = np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0])
    hull = np.maximum(a[:, 1], b[:, 1]) - np.minimum(a[:, 0], b[:, 0])
    return np.divide(inside, hull, out=np.zeros_like(inside), where=inside > 0)


def ragged_pairs(
    starts: Int[np.ndarray, " N"], counts: Int[np.ndarray, " N"]
) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
    """All pairs (row, partner), where the partners of row i are `starts[i] .. starts[i] + counts[i] - 1`.

    Yields them in row order, in pieces that keep rows whole and hold about `PAIRS_AT_ONCE` pairs.
    """
    before = np.cumsum(counts) - counts
    cuts = np.flatnonzero(np.diff(before // PAIRS_AT_ONCE)) + 1
    for rows in np.split(np.arange(len(counts)), cuts):
        row = np.repeat(rows, counts[rows])
        place = np.arange(len(row)) + (before[rows[0]] if len(rows) else 0) - before[row]
        yield row, starts[row] + place
