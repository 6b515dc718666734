"""Batches of noise for the pretext tests: everything is drawn as the loader draws it, but no video is opened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams
from uptal.clips import RegionConfig, TimelineConfig, draw_timeline
from uptal.pretext.batch import Batch
from uptal.pretext.synthesis import PasteConfig, derangements, draw_blend

FRAMES, SIDE, SIZE = 60, 14, 12
"""Frames of a video, decoded side and size after the crop."""

SINGLE = TimelineConfig(clips=1, region=RegionConfig(min_clips=1, max_clips=1, max_stride=1))
"""Single clips: Table 3 #0."""


class Tiny(nn.Module):
    """A clip encoder with one convolution and one batch norm."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, self.width, (3, 5, 5), (2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(self.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x))).mean((2, 3, 4))


def make_batch(
    seed: int,
    size: int = 5,
    timeline: TimelineConfig = TimelineConfig(),  # noqa: B008  (frozen)
    paste: PasteConfig = PasteConfig(),  # noqa: B008
    aug: AugmentConfig = AugmentConfig(size=SIZE),  # noqa: B008
) -> Batch:
    """A batch whose videos are noise."""
    rng = np.random.default_rng(seed)
    pasting = paste.source != "none"
    drawn = [draw_timeline(rng, FRAMES, timeline, paste=pasting) for _ in range(size)]
    most = timeline.region.max_clips
    blend = [[draw_blend(rng, paste, int(n), most, timeline.frames) for n in line.length] for line in drawn]
    params = augment.draw(rng, size * timeline.views * 2, 1.0, aug)
    first = np.arange(size)[:, None, None, None] * FRAMES
    maps = derangements(rng, range(size), same=paste.source == "same")[: timeline.views] if pasting else None
    return Batch(
        frames=torch.from_numpy(rng.integers(0, 256, (size * FRAMES, 3, SIDE, SIDE), np.uint8)),
        clips=torch.from_numpy(np.stack([line.clips for line in drawn]) + first),
        region=torch.from_numpy(np.stack([line.region for line in drawn]) + first),
        start=torch.from_numpy(np.stack([line.start for line in drawn])),
        length=torch.from_numpy(np.stack([line.length for line in drawn])),
        span=torch.from_numpy(np.stack([line.region[..., [0, -1]] for line in drawn])),
        blend=torch.from_numpy(np.array(blend)),
        augment=params.map(lambda x: torch.from_numpy(x).unflatten(0, (size, timeline.views, 2))),
        lender=None if maps is None else torch.from_numpy(np.stack(maps)),
        ids=torch.arange(size) + 1000 * seed,
        labels=torch.arange(size) % 3,
        names=tuple(f"video{i}" for i in range(size)),
        position=size,
        looped=torch.zeros(size, dtype=torch.bool),
        alone=timeline.context == "none",
        size=aug.size,
        resize=aug.resize,
        region_clips=tuple(np.sum([line.length for line in drawn], axis=0).tolist()),
        composite=aug.scope == "composite",
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
    )


def half_of(batch: Batch, rank: int) -> Batch:
    """One half of a batch whose lenders stay within the halves."""
    middle = len(batch.ids) // 2
    part = slice(rank * middle, (rank + 1) * middle)
    chosen = {
        name: getattr(batch, name)[part]
        for name in ("clips", "region", "start", "length", "span", "blend", "ids", "looped")
    }
    assert batch.lender is not None
    drawn = AugmentParams(**{name: value[part] for name, value in vars(batch.augment).items()})
    region_clips = tuple(batch.length[part].sum(0).tolist())
    return replace(
        batch,
        **chosen,
        region_clips=region_clips,
        augment=drawn,
        lender=batch.lender[:, part] - rank * middle,
        names=batch.names[part],
    )


def with_lenders_in_halves(batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch with maps that never leave a half, as two processes would draw them."""
    middle = len(batch.ids) // 2
    maps = [np.stack(derangements(rng, range(middle))) + offset for offset in (0, middle)]
    return replace(batch, lender=torch.from_numpy(np.concatenate(maps, 1)))
