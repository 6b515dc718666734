"""A loader of videos in memory whose pictures say which frame of which video they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from uptal.augment import AugmentConfig
from uptal.clips import RegionConfig, TimelineConfig
from uptal.distributed import World
from uptal.evidence.films import InMemory
from uptal.pretext.data import DataConfig
from uptal.pretext.loader import Loader
from uptal.pretext.synthesis import PasteConfig

LONG = 200
"""Frames of a video in which every clip finds its place."""
TIMELINE = TimelineConfig(clips=6, frames=4, region=RegionConfig(max_clips=3))
AUG = AugmentConfig(size=12)


class Counted(InMemory):
    """Counts how often a video is read."""

    reads = 0

    def read(self, info, path, indices):
        self.reads += 1
        return super().read(info, path, indices)


def films(count: int = 12, frames: int = LONG) -> Counted:
    """Videos of noise, but for the first pixel: its colours are the number of the video and of the frame, and 0."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, frames, 3, 14, 14), np.uint8))
    noise[:, :, 0, 0, 0] = torch.arange(count)[:, None]
    noise[:, :, 1, 0, 0] = torch.arange(frames) % 256
    return Counted({f"v{number:02d}": film for number, film in enumerate(noise)}, fps=25)


def loader(
    timeline: TimelineConfig = TIMELINE,
    paste: PasteConfig = PasteConfig(),  # noqa: B008  (frozen)
    batch: int = 4,
    seed: int = 0,
    source: Counted | None = None,
    aug: AugmentConfig = AUG,
    **options,
) -> Loader:
    """A loader of `source`, or of twelve long videos."""
    source = source or films()
    data = DataConfig(timeline=timeline, workers=0, **options.pop("data", {}))
    paths = [Path(f"{name}.mp4") for name in source.frames]
    return Loader(paths, data, paste, aug, batch=batch, seed=seed, world=World(0, 1, 0), decoded=source, **options)


def numbers(frames: torch.Tensor) -> torch.Tensor:
    """Numbers of the frames within their videos."""
    return frames[..., 1, 0, 0].long()


def videos(frames: torch.Tensor) -> torch.Tensor:
    """Numbers of the videos that frames are of."""
    return frames[..., 0, 0, 0].long()


def tensors(batch) -> list[torch.Tensor]:
    """All tensors of a batch."""
    return [*(v for v in vars(batch).values() if isinstance(v, torch.Tensor)), *vars(batch.augment).values()]


def equal(first, second) -> bool:
    """Whether two lists of batches are the same to the bit."""
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(tensors(a), tensors(b), strict=True)]
    return all(torch.equal(x, y) for x, y in pairs)
