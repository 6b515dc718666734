"""Videos kept decoded in memory, for corpora small enough: each is decoded once instead of once an epoch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from uptal import video
from uptal.video import VideoInfo

KNOWN_FRAMES = 2**21
"""Frames of all videos whose time stamps are remembered, the last ones used: some 50 MB in each loader process."""


@runtime_checkable
class Frames(Protocol):
    """Where the frames of videos come from; `DecodedVideos` below, or pictures that never were in a file."""

    def probe(self, path: Path) -> VideoInfo:
        """What the video holds."""
        ...

    def read(self, info: VideoInfo, path: Path, indices: Sequence[int]) -> UInt8[Tensor, "F C S S"]:
        """Frames of a video, squeezed to the square."""
        ...


class DecodedVideos:
    """Reads frames at one size, and keeps whole videos until the budget is used up; the frames are the same either way.

    A cache belongs to one process: every loader worker fills its own.
    """

    def __init__(self, side: int, backend: str, budget: int):
        """Keeps up to `budget` bytes of pictures of `side` by `side` pixels; 0 keeps nothing."""
        self.side, self.backend, self.free = side, backend, budget
        self._kept: dict[Path, tuple[VideoInfo, Tensor]] = {}
        self._known: OrderedDict[Path, VideoInfo] = OrderedDict()
        self._known_frames = 0

    def probe(self, path: Path) -> VideoInfo:
        """What the video holds; looked up once, for a probe reads the whole length of a file.

        Raises:
            VideoError: It cannot be read.
        """
        if path in self._kept:
            return self._kept[path][0]
        if path in self._known:
            self._known.move_to_end(path)
        else:
            self._known[path] = video.probe(path)
            self._known_frames += self._known[path].num_frames
            while self._known_frames > KNOWN_FRAMES and len(self._known) > 1:
                self._known_frames -= self._known.popitem(last=False)[1].num_frames
        return self._known[path]

    def read(self, info: VideoInfo, path: Path, indices: Sequence[int]) -> UInt8[Tensor, "F C S S"]:
        """Frames of a video, squeezed to the square.

        Raises:
            VideoError: They cannot be decoded.
        """
        needed = info.num_frames * 3 * self.side**2
        if path not in self._kept and needed <= self.free:
            self._kept[path] = info, self._decode(info, path, range(info.num_frames))
            self.free -= needed
        if path in self._kept:
            return self._kept[path][1][list(indices)]
        return self._decode(info, path, indices)

    def _decode(self, info: VideoInfo, path: Path, indices: Sequence[int]) -> UInt8[Tensor, "F C S S"]:
        return video.read(path, indices, (self.side, self.side), info=info, backend=self.backend)
