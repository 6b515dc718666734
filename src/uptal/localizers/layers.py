"""Boundary-matching pooling: which feature steps each proposal of a map looks at, fused with the convolution behind it.

What the pooled values mean, and what is trained on them, is the localizer's business.
Letters: B videos, C channels in, O channels out, T steps, N samples a proposal, V valid cells of the map, P nonzeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor, nn

from uptal.localizers.sparse import FixedSparse

Layout = Literal["start_end", "duration_start"]
"""Axes of the map. In `start_end` cell (i, j) is the proposal [i, j + 1), in `duration_start` cell (d, s) is the
proposal [s, s + d + 1)."""


@dataclass(frozen=True, kw_only=True)
class MapCells:
    """The valid cells of a (T, T) map, ordered by start and then by end, and the proposal that each one stands for."""

    row: Int[np.ndarray, " V"]
    """First map axis."""
    column: Int[np.ndarray, " V"]
    """Second map axis."""
    start: Int[np.ndarray, " V"]
    """First step of the proposal."""
    end: Int[np.ndarray, " V"]
    """Step after its last one, 1 … T."""
    sampled_end: Int[np.ndarray, " V"]
    """Where the sampled stretch ends before it is widened: `end`, or one step less in a `duration_start` map."""


def map_cells(num_steps: int, layout: Layout) -> MapCells:
    """The V = T (T + 1) / 2 cells of a (T, T) map whose proposal lies inside the video.

    >>> cells = map_cells(2, "start_end")
    >>> cells.start.tolist(), cells.end.tolist()
    ([0, 0, 1], [1, 2, 2])
    """
    start, last = np.triu_indices(num_steps)
    end = last + 1
    if layout == "start_end":
        return MapCells(row=start, column=last, start=start, end=end, sampled_end=end)
    return MapCells(row=last - start, column=start, start=start, end=end, sampled_end=last)


class SamplingWeights(NamedTuple):
    """The boundary-matching mask as coordinates, sorted by cell, then step, then sample."""

    cell: Int[np.ndarray, " P"]
    step: Int[np.ndarray, " P"]
    sample: Int[np.ndarray, " P"]
    weight: Float32[np.ndarray, " P"]


def sampling_weights(
    cells: MapCells, num_steps: int, num_samples: int, num_points: int, ratio: float
) -> SamplingWeights:
    """How much step t counts in sample n of each cell (BMN, Sec. 3.2; the numbers are those of the public code).

    The proposal is widened on both sides by `ratio` times its length *plus one*, `num_samples * num_points` points are
    spread over it with both ends included, each point is interpolated between its two steps, and every `num_points`
    neighbours are averaged. A point in (-1, 0) counts as step 0 in full, since the fraction keeps the point's sign;
    points further out on the left, and at or beyond T on the right, count nothing.
    """
    margin = (cells.sampled_end - cells.start + 1.0) * ratio
    low, high = cells.start - margin, cells.sampled_end + margin
    spacing = (high - low) / (num_samples * num_points - 1.0)
    points = low[:, None] + spacing[:, None] * np.arange(num_samples * num_points)  # (V, N * num_points)
    fraction, below = np.modf(points)
    step = np.stack((below, np.ceil(points)), axis=-1).astype(np.int64)
    weight = np.stack((1 - fraction, fraction), axis=-1)

    cell = np.broadcast_to(np.arange(len(points))[:, None, None], step.shape)
    sample = np.broadcast_to((np.arange(num_samples * num_points) // num_points)[:, None], step.shape)
    inside = (step >= 0) & (step < num_steps)
    key = ((cell * num_steps + step) * num_samples + sample)[inside]
    key, slot = np.unique(key, return_inverse=True)
    total = (np.bincount(slot, weights=weight[inside], minlength=len(key)) * (1.0 / num_points)).astype(np.float32)

    key, total = key[total != 0], total[total != 0]
    rest, sample = np.divmod(key, num_samples)
    cell, step = np.divmod(rest, num_steps)
    return SamplingWeights(cell, step, sample, total)


class BoundaryMatching(nn.Module):
    """Pools N samples for every proposal and mixes them with an (O, C, N) kernel, at the V valid cells only.

    Pooling is linear, so the kernel is applied to the T steps first and the sparse pooling to its result: the
    (B, C, N, T, T) tensor that lies between the two in the paper's formulation never exists.
    """

    flat_index: Int[Tensor, " V"]
    """Where the valid cells lie in the flattened (T * T) map."""

    def __init__(self, num_steps: int, num_samples: int, num_points: int, ratio: float, layout: Layout = "start_end"):
        super().__init__()
        self.num_steps, self.num_samples = num_steps, num_samples
        cells = map_cells(num_steps, layout)
        weights = sampling_weights(cells, num_steps, num_samples, num_points, ratio)
        source = weights.step * num_samples + weights.sample
        self.sampling = FixedSparse(weights.cell, source, weights.weight, (len(cells.row), num_steps * num_samples))
        self.register_buffer("flat_index", torch.from_numpy(cells.row * num_steps + cells.column), persistent=False)

    def forward(self, x: Float[Tensor, "B C T"], kernel: Float[Tensor, "O C N"]) -> Float[Tensor, "B V O"]:
        """The pooled and mixed features of the valid cells, in the order of `map_cells`; no bias."""
        mixed = x.transpose(1, 2) @ kernel.permute(1, 2, 0).flatten(1)
        return self.sampling(mixed.reshape(len(x), self.num_steps * self.num_samples, len(kernel)))

    def pool(self, x: Float[Tensor, "B C T"]) -> Float[Tensor, "B C N T T"]:
        """The pooled features before any kernel, dense and large; for inspection and for tests."""
        pooled = x.new_zeros(*x.shape[:2], self.num_samples, self.num_steps**2)
        for n in range(self.num_samples):
            select = F.one_hot(torch.full((1,), n), self.num_samples).to(x)  # (1, N)
            kernel = torch.eye(x.shape[1]).to(x)[:, :, None] * select
            pooled[:, :, n, self.flat_index] = self(x, kernel).transpose(1, 2)
        return pooled.unflatten(-1, (self.num_steps, self.num_steps))
