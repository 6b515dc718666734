"""From samples to a batch, and from a batch to synthetic videos: all that the device sees of the data.

Batches carry each decoded frame once, and index tables that say which frames make which clip; pictures are put together
on the device.

Letters: B regions (those of all videos, then, where each has several, the next ones), V views, J clips, R most clips of
a region, T frames of a clip, F distinct frames of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams, Tables
from uptal.device import full_precision, switched
from uptal.pretext.data import DataConfig, Sample
from uptal.pretext.synthesis import Placement, paste_into, region_rows


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
    """Whose clips are the background of region b in view v; None when all regions stay in their own video."""
    ids: Int[Tensor, " B"]
    labels: Int[Tensor, " B"] | None
    names: tuple[str, ...]
    """The videos, each once."""
    position: int
    """Samples of the epoch that were used up when this batch was complete; where a resumed run goes on."""
    looped: Bool[Tensor, " B"]
    """Videos shorter than a clip, played in a loop."""
    alone: bool
    """Whether a region is all there is of its synthetic video (`context` none)."""
    size: int
    """Height and width after augmentation."""
    resize: Literal["exact", "fast"]
    """How crops are resized (`AugmentConfig`)."""
    region_clips: tuple[int, ...]
    """Number of clips of all regions together, a view; so that the device need not be asked."""
    composite: bool
    """Whether the finished synthetic video is augmented instead of its sources."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    views: list[tuple[Float[Tensor, "B J C T h w"], Placement]] | None = None
    """What `synthesise` gives, where it has been made already."""

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`; a GPU is not waited for if they are `pinned`."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The batch in memory that a GPU can copy from by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, augment=self.augment.map(change), **tensors)


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
    regions = range(len(samples[0].plans))
    plans = [sample.plans[region] for region in regions for sample in samples]

    def stacked(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    counts = np.array([len(sample.frames) for sample in samples])
    offset = torch.from_numpy(np.tile(np.cumsum(counts) - counts, len(regions)))[:, None, None, None]
    names = tuple(paths[sample.plan.index].stem for sample in samples)
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
        labels=None if labels is None else torch.tensor([labels[paths[plan.index].stem] for plan in plans]),
        names=names,
        position=position,
        looped=torch.tensor([plan.looped for plan in plans]),
        alone=data.timeline.context == "none",
        size=aug.size,
        resize=aug.resize,
        region_clips=tuple(np.sum([plan.length for plan in plans], axis=0).tolist()),
        composite=aug.scope == "composite",
        mean=data.mean,
        std=data.std,
    )


def synthesise(batch: Batch) -> list[tuple[Float[Tensor, "B J C T H W"], Placement]]:
    """T (Sec. 3.2.1) on the device: for every view the synthetic videos, normalised, and where their regions are.

    A GPU resizes, blurs and colours in TF32: its tensor cores do that several times as fast as float32, and pictures of
    8 bits come out a fraction of one of their 255 steps off (a test rounds as they do).
    """
    if batch.views is not None:
        return batch.views
    device = batch.frames.device
    quick = [(torch.backends.cuda.matmul, "allow_tf32", True)] if device.type == "cuda" else []
    with torch.no_grad(), full_precision(device), switched(*quick):
        frames = batch.frames.permute(0, 2, 3, 1)
        if batch.resize == "fast":
            frames = frames.contiguous()
        return [
            (_View.of(batch, view, frames).clips(), _placement(batch, view)) for view in range(batch.clips.shape[1])
        ]


_AT_ONCE = 2**20
"""Numbers that a CPU makes at once: a few megabytes."""


@dataclass(frozen=True)
class _View:
    """One view of a batch, and what its draws do to pictures."""

    batch: Batch
    view: int
    frames: UInt8[Tensor, "F H W C"]
    lender: Int[Tensor, " B"]
    background: Tables
    region: Tables

    @classmethod
    def of(cls, batch: Batch, view: int, frames: UInt8[Tensor, "F H W C"]) -> _View:
        own = torch.arange(len(batch.ids), device=batch.clips.device)
        lender = own if batch.lender is None else batch.lender[view]
        blended = batch.composite and batch.lender is not None
        dtype = torch.float32 if blended else frames.dtype

        def tables(params: AugmentParams) -> Tables:
            height, width = frames.shape[1:3]
            return augment.tables(
                params, (height, width), batch.size, batch.resize, dtype, mean=batch.mean, std=batch.std
            )

        region = tables(batch.augment.map(lambda x: x[:, view, 1]))
        background = region if batch.composite else tables(batch.augment.map(lambda x: x[lender, view, 0]))
        return cls(batch, view, frames, lender, background, region)

    def clips(self) -> Float[Tensor, "B J C T H W"]:
        """The synthetic videos; on a CPU a few samples at a time, so that all it takes to make them is in the cache."""
        batch, count = self.batch, len(self.batch.ids)
        if self.frames.device.type != "cpu":
            return self._put_together(slice(0, count), batch.region_clips[self.view], None).transpose(2, 3)
        found = torch.empty(count, *batch.clips.shape[2:], batch.size, batch.size, 3)
        some = max(1, _AT_ONCE // found[0].numel())
        for first in range(0, count, some):
            which = slice(first, first + some)
            self._put_together(which, int(batch.length[which, self.view].sum()), found[which])
        return found.movedim(-1, 2)

    def _put_together(self, which: slice, total: int, out: Tensor | None) -> Float[Tensor, "N J T C H W"]:
        """Some samples' videos, in `out` (N, J, T, H, W, C) if given; `total` clips are in their regions."""
        batch, place = self.batch, _placement(self.batch, self.view, which)
        pictures = self._picked(batch.clips[self.lender[which], self.view])
        if batch.lender is None:
            return self.background.at(which).on(pictures, out=out)
        sample, clip = region_rows(place, total)
        action = self._picked(batch.region[which][sample, self.view, clip])
        if batch.composite:
            return self.region.at(which).on(paste_into(pictures.float(), action.float(), place), out=out)
        action = self.region.at(which).on(action, sample)
        return paste_into(self.background.at(which).on(pictures, out=out), action, place)

    def _picked(self, table: Int[Tensor, "*N T"]) -> UInt8[Tensor, "*N T C H W"]:
        return self.frames.index_select(0, table.flatten()).unflatten(0, table.shape).movedim(-1, -3)


def _placement(batch: Batch, view: int, which: slice = slice(None)) -> Placement:
    total = batch.region_clips[view] if which == slice(None) else None
    return Placement(batch.start[which, view], batch.length[which, view], batch.blend[which, view], batch.alone, total)
