"""From samples to a batch, and from a batch to synthetic videos: all that the device sees of the data.

Batches carry each decoded frame once, and index tables that say which frames make which clip; pictures are put together
on the device.

Letters: B samples, V views, J clips, R most clips of a region, T frames of a clip, F distinct frames of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams
from uptal.pixels import normalise
from uptal.pretext.data import DataConfig, Sample
from uptal.pretext.synthesis import Placement, paste


@dataclass(frozen=True)
class Batch:
    """Samples of one step on one process, and who lends a background to whom."""

    frames: UInt8[Tensor, "F C H W"]
    clips: Int[Tensor, "B V J T"]
    region: Int[Tensor, "B V R T"]
    start: Int[Tensor, "B V"]
    length: Int[Tensor, "B V"]
    span: Int[Tensor, "B V R 2"]
    """First and last frame, in the source video, of every clip of the region."""
    blend: Float[Tensor, "B V R T"]
    augment: AugmentParams
    """(B, V, 2): the clips' draw and the region's."""
    lender: Int[Tensor, "V B"] | None
    """Sample whose clips are the background of sample b in view v; None when regions stay in their own video."""
    ids: Int[Tensor, " B"]
    labels: Int[Tensor, " B"] | None
    names: tuple[str, ...]
    position: int
    """Samples of the epoch that were used up when this batch was complete; where a resumed run goes on."""
    looped: Bool[Tensor, " B"]
    """Videos shorter than a clip, played in a loop."""
    alone: bool
    """Whether a region is all there is of its synthetic video (`context` none)."""
    size: int
    """Height and width after augmentation."""
    composite: bool
    """Whether the finished synthetic video is augmented instead of its sources."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        tensors: dict[str, Any] = {name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, augment=self.augment.map(move), **tensors)


def collate(
    samples: Sequence[Sample],
    lenders: Sequence[Int[np.ndarray, " B"]] | None,
    position: int,
    *,
    paths: Sequence[Path],
    data: DataConfig,
    aug: AugmentConfig,
    labels: Mapping[str, int] | None,
) -> Batch:
    """Puts samples together: frames one after the other, tables shifted to where their frames are."""
    plans = [sample.plan for sample in samples]

    def stacked(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    counts = np.array([len(sample.frames) for sample in samples])
    offset = torch.from_numpy(np.cumsum(counts) - counts)[:, None, None, None]
    names = tuple(paths[plan.index].stem for plan in plans)
    drawn = [plan.augment for plan in plans]
    return Batch(
        frames=torch.cat([sample.frames for sample in samples]),
        clips=stacked([plan.clips for plan in plans]) + offset,
        region=stacked([plan.region for plan in plans]) + offset,
        start=stacked([plan.start for plan in plans]),
        length=stacked([plan.length for plan in plans]),
        span=stacked([plan.span for plan in plans]),
        blend=stacked([plan.blend for plan in plans]),
        augment=AugmentParams(**{name: stacked([vars(draw)[name] for draw in drawn]) for name in vars(drawn[0])}),
        lender=None if lenders is None else stacked(list(lenders)),
        ids=torch.tensor([plan.index for plan in plans]),
        labels=None if labels is None else torch.tensor([labels[name] for name in names]),
        names=names,
        position=position,
        looped=torch.tensor([plan.looped for plan in plans]),
        alone=data.timeline.context == "none",
        size=aug.size,
        composite=aug.scope == "composite",
        mean=data.mean,
        std=data.std,
    )


def synthesise(batch: Batch) -> list[tuple[Float[Tensor, "B J C T H W"], Placement]]:
    """T (Sec. 3.2.1) on the device: for every view the synthetic videos, normalised, and where their regions are."""
    with torch.no_grad(), torch.autocast(batch.frames.device.type, enabled=False):
        return [_synthesise_view(batch, view) for view in range(batch.clips.shape[1])]


def _synthesise_view(batch: Batch, view: int) -> tuple[Tensor, Placement]:
    place = Placement(batch.start[:, view], batch.length[:, view], batch.blend[:, view], batch.alone)
    lender = torch.arange(len(batch.ids), device=batch.clips.device) if batch.lender is None else batch.lender[view]
    clips = batch.frames[batch.clips[lender, view]]
    own, other = batch.augment.map(lambda x: x[:, view, 1]), batch.augment.map(lambda x: x[lender, view, 0])
    if batch.composite:
        if batch.lender is not None:
            clips = paste(batch.frames[batch.region[:, view]].float(), clips.float(), place)
        pictures = augment.apply(clips, own, batch.size)
    else:
        pictures = augment.apply(clips, other, batch.size)
        if batch.lender is not None:
            action = augment.apply(batch.frames[batch.region[:, view]], own, batch.size)
            pictures = paste(action, pictures, place)
    return normalise(pictures, batch.mean, batch.std), place
