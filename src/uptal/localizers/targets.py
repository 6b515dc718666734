"""What a boundary-matching localizer learns to predict: label maps from annotated segments, and the losses on them.

The networks are elsewhere. Source: BMN (ICCV 2019, Sec. 3.5) and its public PyTorch code of June 2020, and G-TAD's
public code, which has the same losses; where papers and code differ the code is followed, since the numbers of later
work come from it. Letters: B videos, T steps, D rows of the map (T, or the longest duration), M segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from uptal.errors import AnnotationError
from uptal.localizers.layers import Layout, map_cells

EPSILON = 1e-6
"""Added to probabilities before the logarithm."""


def labels(
    segments: Float[np.ndarray, "M 2"], duration: float, num_steps: int, layout: Layout = "start_end"
) -> tuple[Float32[np.ndarray, "T T"], Float32[np.ndarray, " T"], Float32[np.ndarray, " T"]]:
    """The tIoU map, the start curve and the end curve of one video.

    Args:
        segments: Annotated instances in seconds; parts outside the video are cut off; a zero-length one marks its
            boundaries but overlaps nothing; none at all gives zeros.
        duration: Seconds that the T steps cover.
        num_steps: T.
        layout: Axes of the map.

    Returns:
        `map` holds for every cell the best tIoU of its proposal with a segment (zero on cells without a proposal);
        `start` and `end` hold the largest share of a step, centred on its left edge, that lies within 1.5 steps of a
        boundary. That width is the same for short and for long actions.

    Raises:
        AnnotationError: The duration is not positive, or a segment ends before it starts.
    """
    start, end = fractions(segments, duration)
    cells = map_cells(num_steps, layout)
    iou_map = np.zeros((num_steps, num_steps), np.float32)
    iou_map[cells.row, cells.column] = best_iou(cells.start / num_steps, cells.end / num_steps, start, end)
    return iou_map, boundary_curve(start, num_steps), boundary_curve(end, num_steps)


def fractions(
    segments: Float[np.ndarray, "M 2"], duration: float
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Starts and ends as fractions of the video, cut off at its ends.

    Raises:
        AnnotationError: The duration is not positive, or a segment ends before it starts.
    """
    if not (math.isfinite(duration) and duration > 0):
        raise AnnotationError(f"Labels need a video of positive duration in seconds, found {duration!r}.")
    if not np.all(segments[:, 0] <= segments[:, 1]):
        bad = segments[~(segments[:, 0] <= segments[:, 1])][0]
        raise AnnotationError(f"A segment must end at or after its start, found {bad.tolist()} (seconds).")
    start, end = (segments.astype(np.float64) / duration).clip(0, 1).T
    return start, end


def best_iou(low: np.ndarray, high: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Per proposal [low, high], the largest tIoU with one of the segments."""
    low, high = low[:, None], high[:, None]
    overlap = (np.minimum(high, end) - np.maximum(low, start)).clip(min=0)
    return (overlap / (high - low - overlap + end - start)).max(axis=1, initial=0)


def boundary_curve(
    boundary: Float[np.ndarray, " M"], num_steps: int, before: float = 0.5, after: float = 0.5
) -> Float32[np.ndarray, " T"]:
    """Per step, the share of [i - before, i + after] steps that lies within 1.5 steps of a boundary."""
    step = 1 / num_steps
    low, high = step * (np.arange(num_steps)[:, None] - before), step * (np.arange(num_steps)[:, None] + after)
    overlap = np.minimum(high, boundary + 1.5 * step) - np.maximum(low, boundary - 1.5 * step)
    return (overlap.clip(min=0) / (high - low)).max(axis=1, initial=0).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class BoundaryBatch:
    """Videos with their labels, as a boundary-matching localizer is trained on them."""

    features: Float[Tensor, "B C T"]
    """Clip features, resampled to T steps."""
    gt_map: Float[Tensor, "B D T"]
    """Best tIoU of every cell's proposal."""
    gt_start: Float[Tensor, "B T"]
    """Start curve."""
    gt_end: Float[Tensor, "B T"]
    """End curve."""

    def to(self, device: torch.device | str) -> BoundaryBatch:
        """The same batch on another device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()}
        return replace(self, **moved)


def draw_uniform(
    generator: np.random.Generator | torch.Generator, like: Float[Tensor, "B D T"]
) -> Float[Tensor, "2 B D T"]:
    """Two draws from U(0, 1) of the map's shape, first for the middle and then for the low band."""
    shape = (2, *like.shape)
    if isinstance(generator, np.random.Generator):
        return torch.from_numpy(generator.random(shape)).to(like)
    return torch.rand(shape, generator=generator, device=generator.device).to(like)


def balanced_log_loss(
    probability: Float[Tensor, "*shape"],
    positive: Bool[Tensor, "*shape"],
    negative: Bool[Tensor, "*shape"],
    safe: bool,
    guard: int = 0,
) -> Float[Tensor, ""]:
    """Binary log loss in which positives and negatives weigh the same in sum (BMN, Sec. 3.5).

    Without a positive (or without a negative) the weights are infinite. `safe` makes the loss zero then and changes
    nothing otherwise; without it the loss is NaN, as in the public code. `guard` adds so many to the count of the
    positives, and twice as many to that of all entries, so that neither is ever zero (G-TAD's code for THUMOS'14: 10).
    """
    num_positive = positive.sum() + guard
    entries = num_positive + negative.sum() + guard
    ratio = entries / num_positive
    on_positive, on_negative = 0.5 * ratio, 0.5 * ratio / (ratio - 1)
    if safe:
        usable = torch.isfinite(on_negative)
        on_positive, on_negative = on_positive.where(usable, 0.0), on_negative.where(usable, 0.0)
    gain = on_positive * torch.log(probability + EPSILON) * positive
    gain = gain + on_negative * torch.log(1 - probability + EPSILON) * negative
    return -gain.sum() / entries.clamp(min=1)


def regression_weights(target: Float[Tensor, "B D T"], uniform: Float[Tensor, "2 B D T"]) -> Float[Tensor, "B D T"]:
    """How often every cell counts in the regression loss: all cells of high tIoU, about as many of the other bands.

    A middle cell (0.3, 0.7] stays where `uniform[0]`, a low one (0, 0.3] where `uniform[1]` exceeds one minus the share
    that is wanted. When a band is smaller than the high one that bound is negative and *every* cell of the map passes,
    also those without a proposal; the public code does so, hence weights up to 3.
    """
    high = target > 0.7
    middle = (target > 0.3) & ~high
    low = (target > 0) & (target <= 0.3)
    weights = high.to(target.dtype)
    for band, draw in zip((middle, low), uniform.to(target), strict=True):
        weights = weights + (band * draw > 1 - high.sum() / band.sum())
    return weights


def regression_loss(
    prediction: Float[Tensor, "B D T"], target: Float[Tensor, "B D T"], uniform: Float[Tensor, "2 B D T"], safe: bool
) -> Float[Tensor, ""]:
    """Half the weighted squared error per counted cell; zero if `safe` and no cell counts, NaN if not."""
    weights = regression_weights(target, uniform)
    count = weights.sum().clamp(min=1) if safe else weights.sum()
    return 0.5 * ((prediction - target) * weights).square().sum() / count


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """How the terms of the map's loss are weighed; the defaults are those of BMN and of G-TAD on ActivityNet."""

    regression: float = 10.0
    """Factor of the term that regresses the tIoU."""
    classification: float = 1.0
    """Factor of the term that tells good proposals from others."""
    guard: int = 0
    """Added to the counts of the classification term, see `balanced_log_loss`."""


def boundary_losses(
    confidence_map: Float[Tensor, "B 2 D T"],
    start: Float[Tensor, "B T"],
    end: Float[Tensor, "B T"],
    batch: BoundaryBatch,
    valid: Bool[Tensor, "D T"],
    uniform: Float[Tensor, "2 B D T"],
    safe: bool,
    weights: LossWeights = LossWeights(),
) -> dict[str, Tensor]:
    """BMN's loss (Sec. 3.5), which is G-TAD's, too: `loss` = `tem` + weighted `pem_reg` + weighted `pem_cls`.

    Args:
        confidence_map: Predicted tIoU (channel 0) and probability of tIoU > 0.9 (channel 1).
        start: Predicted start probabilities.
        end: Predicted end probabilities.
        batch: The labels.
        valid: Cells that stand for a proposal.
        uniform: Two draws from U(0, 1) for the middle and the low band of the regression loss.
        safe: Skip a term that has no positive, where the exact value is NaN.
        weights: How the terms are weighed.
    """
    target = batch.gt_map * valid
    tem = sum(
        (
            balanced_log_loss(curve, truth > 0.5, truth <= 0.5, safe)
            for curve, truth in ((start, batch.gt_start), (end, batch.gt_end))
        ),
        start=confidence_map.new_zeros(()),
    )
    pem_reg = regression_loss(confidence_map[:, 0], target, uniform, safe)
    pem_cls = balanced_log_loss(confidence_map[:, 1], target > 0.9, (target <= 0.9) & valid, safe, weights.guard)
    loss = tem + weights.regression * pem_reg + weights.classification * pem_cls
    return {"loss": loss, "tem": tem, "pem_reg": pem_reg, "pem_cls": pem_cls}
