"""What the points of ActionFormer's pyramid learn: batches of whole videos, labels and losses.

The network is in `actionformer`. Positions are in steps: that of step i is i, the middle of what the step covers.
Letters: B videos, C feature width, T steps, P points of all levels, M instances of a video, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uptal.errors import AnnotationError
from uptal.localizers.samples import Sample


@dataclass(frozen=True)
class PointBatch:
    """Videos of different lengths side by side. An instance of no length is none: it only fills a row."""

    features: Float[Tensor, "B C T"]
    """Zero beyond a video's end."""
    mask: Bool[Tensor, "B T"]
    """Which steps hold features."""
    segments: Float[Tensor, "B M 2"]
    """Start and end of each instance in steps."""
    labels: Int[Tensor, "B M"]
    """Their classes."""

    def to(self, device: torch.device) -> PointBatch:
        """The batch with its tensors on `device`."""
        return PointBatch(*(part.to(device) for part in (self.features, self.mask, self.segments, self.labels)))


@dataclass(frozen=True)
class Points:
    """The points of a pyramid, level after level."""

    place: Float[Tensor, " P"]
    """In steps of the first level."""
    stride: Float[Tensor, " P"]
    """Steps of the first level that one step of the point's level spans."""
    least: Float[Tensor, " P"]
    """A point learns actions whose farther end is at least this many steps away …"""
    most: Float[Tensor, " P"]
    """… and at most this many."""

    def segments(self, offsets: Float[Tensor, "B P 2"]) -> Float[Tensor, "B P 2"]:
        """Where distances to start and end, in steps of the point's level, reach: in steps from a sample's beginning.

        A sample begins half a step before the middle of its first step.
        """
        start, end = offsets.unbind(-1)
        return torch.stack([self.place - start * self.stride, self.place + end * self.stride], -1) + 0.5


def pyramid_points(num_steps: int, levels: Sequence[tuple[int, float, float]], device: torch.device) -> Points:
    """Points of a pyramid over `num_steps`, given each level's stride and the distances that it is in charge of."""
    place = [torch.arange(0, num_steps, stride, dtype=torch.float32, device=device) for stride, _, _ in levels]
    facts = [torch.tensor(level, device=device).expand(len(part), 3) for part, level in zip(place, levels, strict=True)]
    return Points(torch.cat(place), *torch.cat(facts).unbind(1))


def pad(samples: Sequence[Sample]) -> tuple[Float[Tensor, "B C T"], Bool[Tensor, "B T"]]:
    """Features of samples side by side, and which of their steps hold features."""
    longest = max(sample.num_valid for sample in samples)
    features = torch.stack([F.pad(s.values[:, : s.num_valid], (0, longest - s.num_valid)) for s in samples])
    lengths = torch.tensor([sample.num_valid for sample in samples])
    return features, torch.arange(longest) < lengths[:, None]


def collate(samples: Sequence[Sample], labels: Sequence[str] | None) -> PointBatch:
    """Samples side by side with their instances; `labels` None if all are of one class.

    Raises:
        AnnotationError: An instance is of another class.
    """
    most = max(len(sample.labels) for sample in samples)
    segments = torch.zeros(len(samples), most, 2)
    codes = torch.zeros(len(samples), most, dtype=torch.int64)
    for row, sample in enumerate(samples):
        unknown = sorted(set(sample.labels) - set(labels)) if labels is not None else []
        if unknown:
            raise AnnotationError(
                f"Video {sample.id} has an instance of {unknown[0]!r}, which is none of the localizer's "
                f"{len(labels or ())} classes ({', '.join(labels or ())}). Train with annotations that hold it."
            )
        count = len(sample.labels)
        segments[row, :count] = torch.from_numpy(sample.relative - 0.5)
        codes[row, :count] = torch.tensor([0 if labels is None else labels.index(label) for label in sample.labels])
    return PointBatch(*pad(samples), segments, codes)


def crop(batch: PointBatch, longest: int, share: float, generator: np.random.Generator) -> PointBatch:
    """A random stretch of every video, of `share` of it up to all of it, but never more than `longest` steps.

    Of an instance that is cut, the part inside remains if it is at least half of it (public code).
    """
    lengths = batch.mask.sum(1).tolist()
    parts = [_stretch(length, longest, share, generator) for length in lengths]
    first, count = torch.tensor(parts, device=batch.mask.device).T
    step = torch.arange(int(count.max()), device=batch.mask.device)
    mask = step < count[:, None]
    place = (first[:, None] + step).clamp(max=batch.mask.shape[1] - 1)
    features = batch.features.gather(2, place[:, None].expand(-1, batch.features.shape[1], -1)) * mask[:, None]
    moved = batch.segments - first[:, None, None]
    inside = moved.clamp(min=-0.5).minimum(count[:, None, None] - 0.5)
    enough = inside.diff() >= 0.5 * moved.diff()
    return PointBatch(features, mask, inside * enough, batch.labels)


def _stretch(length: int, longest: int, share: float, generator: np.random.Generator) -> tuple[int, int]:
    """First step and number of steps."""
    most = min(length, longest)
    least = most if length > longest else max(1, round(share * length))
    count = int(generator.integers(least, most + 1))
    return int(generator.integers(0, length - count + 1)), count


def label_points(
    points: Points, segments: Float[Tensor, "B M 2"], labels: Int[Tensor, "B M"], num_classes: int, radius: float
) -> tuple[Float[Tensor, "B P K"], Float[Tensor, "B P 2"]]:
    """Class targets of every point (all zero: background) and, for the others, distances to start and end.

    A point learns an action if it lies in it, within `radius` steps of its level from the centre, and the farther end
    is as far as the point's level is in charge of; of several the shortest, and all classes of those that are as short
    (paper). An action of no length has no point. Distances are in steps of the point's level.
    """
    if not segments.shape[1]:
        shape = (len(segments), len(points.place))
        return points.place.new_zeros(*shape, num_classes), points.place.new_zeros(*shape, 2)
    start, end = segments[:, None, :, 0], segments[:, None, :, 1]
    place, reach = points.place[:, None], points.stride[:, None] * radius
    centre = (start + end) / 2
    central = (place > torch.maximum(centre - reach, start)) & (place < torch.minimum(centre + reach, end))
    farther = torch.maximum(place - start, end - place)
    charged = (farther >= points.least[:, None]) & (farther <= points.most[:, None])
    length = torch.where(central & charged, end - start, torch.inf)
    shortest, chosen = length.min(2, keepdim=True)
    equal = (length <= shortest + 1e-3) & length.isfinite()
    classes = (equal.to(place.dtype) @ F.one_hot(labels, num_classes).to(place.dtype)).clamp(max=1)
    mine = segments.gather(1, chosen.expand(-1, -1, 2))
    distances = torch.stack([points.place - mine[..., 0], mine[..., 1] - points.place], -1)
    return classes, distances / points.stride[:, None]


def point_losses(
    logits: Float[Tensor, "B P K"],
    offsets: Float[Tensor, "B P 2"],
    exists: Bool[Tensor, "B P"],
    classes: Float[Tensor, "B P K"],
    distances: Float[Tensor, "B P 2"],
    smoothing: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Sums of the classification and regression loss over all points, and how many points are positive (paper)."""
    positive = (classes.sum(2) > 0) & exists
    targets = classes * (1 - smoothing) + smoothing / (logits.shape[2] + 1)
    cls = (focal_loss(logits, targets) * exists[..., None]).sum()
    reg = distance_iou_loss(offsets[positive], distances[positive]).sum()
    return cls, reg, positive.sum().to(logits.dtype)


def focal_loss(
    logits: Float[Tensor, "*N"], targets: Float[Tensor, "*N"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*N"]:
    """Sigmoid focal loss (Lin et al., 2017, with its alpha and gamma)."""
    chance = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    hit = chance * targets + (1 - chance) * (1 - targets)
    return (alpha * targets + (1 - alpha) * (1 - targets)) * entropy * (1 - hit) ** gamma


def distance_iou_loss(offsets: Float[Tensor, "N 2"], targets: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
    """One minus tIoU, plus the squared distance of the centres as a share of what both segments span (Zheng et al.)."""
    inter = torch.minimum(offsets, targets).sum(1)
    span = torch.maximum(offsets, targets).sum(1).clamp(min=1e-8)
    union = (offsets.sum(1) + targets.sum(1) - inter).clamp(min=1e-8)
    apart = ((offsets[:, 1] - offsets[:, 0]) - (targets[:, 1] - targets[:, 0])) / 2
    return 1 - inter / union + (apart / span).square()
