"""Features of stretches of a sequence: G-TAD's 1-D align and SGAlign, exact and without a compiled extension.

Pooling is linear in the features with weights that depend on the anchors alone. `align1d` computes it sample by sample
for any stretch; `SGAlign` holds the weights of all anchors of a map and fuses them with the convolution behind it, so
that the (B, C * R, D, T) tensor between the two never exists. Source: Xu et al., G-TAD, CVPR 2020, Sec. 3.4, and the
kernels of its public code.
Letters: B videos, C channels, T steps, K stretches, R samples of a stretch (bins), G points of a sample, D durations,
V distinct anchors, O channels out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uptal.localizers.sparse import FixedSparse


class Points(NamedTuple):
    """Which two steps every point of a sample lies between, and how much each of them counts in the sample."""

    low: Int[Tensor, "K R G"]
    high: Int[Tensor, "K R G"]
    on_low: Float[Tensor, "K R G"]
    on_high: Float[Tensor, "K R G"]


def align_points(
    start: Float[Tensor, " K"], end: Float[Tensor, " K"], num_steps: int, resolution: int, sampling_ratio: int
) -> Points:
    """The points of each stretch [start, end], in steps, in the arithmetic of the public kernels.

    A stretch counts as one step long at least and is divided into R bins. A bin is the mean of `sampling_ratio` evenly
    spaced points, or of as many as it is long, rounded up, if that is 0. Points in [-1, 0] count as step 0 and those in
    [T - 1, T] as step T - 1; points further out count nothing, but they do count in the mean's divisor. There is no
    shift by half a step: position 3.0 is step 3.
    """
    length = (end - start).clamp(min=1)[:, None, None]
    width = length / resolution
    count = torch.full_like(width, sampling_ratio) if sampling_ratio > 0 else width.ceil()
    bin = torch.arange(resolution).to(width)[:, None]
    point = torch.arange(int(count.max()) if len(count) else 1).to(width)
    place = (start[:, None, None] + bin * width) + (point + 0.5) * width / count
    inside = (place >= -1) & (place <= num_steps) & (point < count)
    place = place.where(inside, 0).clamp(min=0)
    low = place.long()
    at_end = low >= num_steps - 1
    low = low.clamp(max=num_steps - 1)
    fraction = (place - low).where(~at_end, 0)
    share = inside / count
    return Points(low, (low + 1).where(~at_end, low), (1 - fraction) * share, fraction * share)


def align1d(
    x: Float[Tensor, "B C T"], rois: Float[Tensor, "K 3"], resolution: int, sampling_ratio: int = 0
) -> Float[Tensor, "K C R"]:
    """Features of stretches (index of the video, start, end), point by point; differentiable in the features.

    This is the operation as G-TAD's extension `Align1D` computes it, for any stretch: without length, reversed, or
    partly or wholly outside the sequence. It keeps K * C * R * G numbers; `SGAlign` does not.
    """
    rois = rois.detach()
    points = align_points(rois[:, 1], rois[:, 2], x.shape[2], resolution, sampling_ratio)
    steps = x.transpose(1, 2)  # (B, T, C)
    video = rois[:, 0].long()[:, None, None]
    parts = zip(points[:2], points[2:], strict=True)
    pooled = sum(
        ((steps[video, step] * weight[..., None].to(x)).sum(2) for step, weight in parts), start=x.new_zeros(())
    )
    return pooled.transpose(1, 2)


class Anchors(NamedTuple):
    """The distinct stretches of a (D, T) map, ordered by start and then by duration, and where each cell finds its own.

    Cell (k, s) stands for the proposal [s, s + k + 1). Cells that reach beyond the last step share one anchor, [0, 0].
    """

    start: Float[Tensor, " V"]
    end: Float[Tensor, " V"]
    of_cell: Int[Tensor, "D T"]


def anchors(num_steps: int, max_duration: int) -> Anchors:
    """The stretch that each cell of a map looks at: its proposal without the last step, widened by half its length.

    >>> anchors(3, 2).start.tolist(), anchors(3, 2).end.tolist()
    ([-0.5, -1.0, 0.5, 0.0, 1.5, 0.0], [0.5, 2.0, 1.5, 3.0, 2.5, 0.0])
    >>> anchors(3, 2).of_cell.tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    start, last = np.mgrid[:num_steps, :max_duration]
    inside = start + last < num_steps
    of_cell = np.where(inside, np.cumsum(inside).reshape(inside.shape) - 1, inside.sum())
    first, duration = start[inside].astype(np.float64), last[inside] + 1.0
    low, high = first - 0.5 * duration, first + (duration - 1) + 0.5 * duration
    if not inside.all():
        low, high = np.append(low, 0.0), np.append(high, 0.0)
    return Anchors(torch.from_numpy(low), torch.from_numpy(high), torch.from_numpy(of_cell.T.copy()))


def neighbours(x: Float[Tensor, "B C T"], count: int) -> Int[Tensor, "B T K"]:
    """The steps whose features are closest to each step's, itself included, closest first.

    Which of several equal steps comes first is left to torch; equal features give equal results whichever it is.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        square = x.square().sum(1, keepdim=True)
        closeness = -square - (-2 * (x.transpose(1, 2) @ x)) - square.transpose(1, 2)
        return closeness.topk(count, dim=-1).indices


def at_steps(x: Float[Tensor, "B C T"], index: Int[Tensor, "B T K"]) -> Float[Tensor, "B C T K"]:
    """Features of the steps that `index` names."""
    wanted = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.gather(2, wanted).unflatten(2, index.shape[1:])


@lru_cache(maxsize=4)
def sampling_weights(
    num_steps: int,
    max_duration: int,
    inner: int,
    context: int,
    inner_ratio: int,
    context_ratio: int,
    *,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """The (V, T * R) matrix of `SGAlign` as rows, columns (step, sample), weights, and its shape."""
    start, end, _ = anchors(num_steps, max_duration)
    num_columns = num_steps * (inner + context)
    entries = []
    for first, resolution, ratio in ((0, inner, inner_ratio), (inner, context, context_ratio)):
        if not resolution:
            continue
        points = align_points(start.to(dtype), end.to(dtype), num_steps, resolution, ratio)
        sample = torch.arange(resolution)[:, None] + first
        row = torch.arange(len(start))[:, None, None] * num_columns
        for step, weight in (points[::2], points[1::2]):
            used = weight != 0
            entries.append(((row + step * (inner + context) + sample)[used].numpy(), weight[used].numpy()))
    key, weight = (np.concatenate(column) for column in zip(*entries, strict=True))
    key, slot = np.unique(key, return_inverse=True)
    total = np.bincount(slot, weights=weight, minlength=len(key)).astype(weight.dtype)
    row, column = np.divmod(key, num_columns)
    return row, column, total, (len(start), num_columns)


class SGAlign(nn.Module):
    """Samples of every anchor's own features and of their neighbours' mean, mixed with an (O, C, R) kernel.

    The first `inner` samples are of the features, the last `context` ones of the neighbours' (G-TAD, Sec. 3.4). As the
    pooling is linear the kernel is applied to the T steps first; anchors are computed once for a video and hold for
    every batch, and the cells beyond the last step, which all see the same, are computed once.
    """

    inside: Int[Tensor, " I"]
    """Where the cells that end in time lie in the flattened map, in the order of their anchors."""

    def __init__(
        self, num_steps: int, max_duration: int, inner: int, context: int, inner_ratio: int = 0, context_ratio: int = 0
    ):
        super().__init__()
        self.inner = inner
        self._shape = num_steps, max_duration, inner, context, inner_ratio, context_ratio
        self.map_shape = max_duration, num_steps
        order = anchors(num_steps, max_duration).of_cell.flatten().argsort(stable=True)
        cells = int((torch.arange(max_duration)[:, None] + torch.arange(num_steps) < num_steps).sum())
        self.register_buffer("inside", order[:cells], persistent=False)
        self.sampling = FixedSparse(*sampling_weights(*self._shape, dtype=torch.float32))

    def forward(
        self, x: Float[Tensor, "B C T"], around: Float[Tensor, "B C T"] | None, kernel: Float[Tensor, "O C R"]
    ) -> Float[Tensor, "B V O"]:
        """The pooled and mixed features of the distinct anchors; no bias. `around` is the neighbours' mean."""
        mixed = [x.transpose(1, 2) @ kernel[..., : self.inner].permute(1, 2, 0).flatten(1)]
        if around is not None:
            mixed.append(around.transpose(1, 2) @ kernel[..., self.inner :].permute(1, 2, 0).flatten(1))
        dense = torch.cat(mixed, dim=2).reshape(len(x), -1, len(kernel))
        if dense.dtype == torch.float64:  # for checks: weights are computed in the arithmetic of the features
            return FixedSparse(*sampling_weights(*self._shape, dtype=torch.float64)).to(x.device)(dense)
        return self.sampling(dense)

    def spread(self, rows: Float[Tensor, "B V O"]) -> Float[Tensor, "B O D T"]:
        """What was computed for the distinct anchors, as a map; the last of them stands in all cells beyond the end."""
        flat = rows.transpose(1, 2)
        beyond = flat[..., -1:].expand(-1, -1, self.map_shape[0] * self.map_shape[1])
        return beyond.index_copy(2, self.inside, flat[..., : len(self.inside)]).unflatten(2, self.map_shape)
