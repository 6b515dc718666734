"""How clips lie on a video, and their pictures in one decoding pass; what becomes of the clips is in `extraction`.

Letters: N clips of a video, T frames of a clip, C H W picture, h w cropped picture, F frames of a video.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from uptal import video
from uptal.clips import extraction_frames
from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError, VideoError
from uptal.types import Timebase


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Where clips lie and how their pictures are read; together with the `ClipSpec` it decides a video's features."""

    interval: int
    """Frames from one clip to the next."""
    fps: float | None = None
    """Rate of the grid on which frames are counted; None: each video's own. The paper does not say; I3D's official
    weights were trained at 25."""
    backend: str = "pyav"
    """Decoder."""
    resize_on: Literal["decoder", "device"] = "decoder"
    """Who shrinks the pictures: the decoding thread while it converts colours, or the encoder's device (whole pictures
    travel there). The two round differently, so a store keeps to one of them."""

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ConfigError(f"The interval counts frames and must be at least 1, found {self.interval}.")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"The rate must be a number of frames a second above 0, found {self.fps}.")


@dataclass(frozen=True)
class Grid:
    """How clips of one video lie on its frames."""

    info: video.VideoInfo
    frames: Int[np.ndarray, "N T"]
    """Decoded frame for each place of each clip."""
    timebase: Timebase


def lay_grid(info: video.VideoInfo, spec: ClipSpec, interval: int, fps: float | None = None) -> Grid:
    """Clips every `interval` frames at the rate `fps`, or at the video's mean rate.

    A video of another or of variable rate is put on an even grid of that rate first: each grid point takes the frame
    nearest in time, so a feature's second is right whatever the frames' spacing.
    """
    rate = info.fps if fps is None else fps
    grid = np.arange(info.num_frames)
    if fps is not None or not info.constant_rate:
        count = max(1, round(info.duration * rate))
        grid = _nearest(np.asarray(info.times), np.arange(count) / rate)
    clips = extraction_frames(len(grid), spec.frames, spec.stride, interval)
    base = Timebase(fps=rate, stride=float(interval), window=float(spec.frames * spec.stride))
    return Grid(info, grid[clips], base)


def _nearest(times: Float[np.ndarray, " F"], points: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """For each point the index of the nearest of the ascending times; of two equally near ones the earlier."""
    return np.searchsorted((times[1:] + times[:-1]) / 2, points)


def decode_clips(
    path: Path,
    spec: ClipSpec,
    grid: Grid,
    backend: str = "pyav",
    resize_on: Literal["decoder", "device"] = "decoder",
    threads: int = 1,
) -> Iterator[UInt8[Tensor, "T C H W"]]:
    """The clips of a video in order, in one pass, holding only the frames that clips still need.

    Pictures have the encoder's size, or, with `resize_on="device"`, that of the file.
    """
    on_device = resize_on == "device"
    wanted = np.unique(grid.frames)
    size = None if on_device else spec.resize
    decoded = video.frames(path, size, indices=wanted, info=grid.info, backend=backend, threads=threads)
    held: dict[int, Tensor] = {}
    for clip in grid.frames:
        first, last = int(clip.min()), int(clip.max())
        held = {index: frame for index, frame in held.items() if index >= first}
        while last not in held:
            try:
                index, _, frame = next(decoded)
            except StopIteration:
                raise VideoError(path, f"ended before frame {last}, which its header promises") from None
            held[index] = frame if on_device else crop(frame, spec.size)
        yield torch.stack([held[int(index)] for index in clip])


def crop(frames: UInt8[Tensor, "*T C H W"], size: int) -> UInt8[Tensor, "*T C h w"]:
    """The middle of the pictures."""
    top, left = (frames.shape[-2] - size) // 2, (frames.shape[-1] - size) // 2
    return frames[..., top : top + size, left : left + size]
