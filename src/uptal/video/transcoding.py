"""Writes a smaller, quickly seekable copy of one video: same frames at the same seconds; which videos is for others.

Letters: H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame

from uptal.errors import ConfigError, UptalError, VideoError
from uptal.files import OUT_OF_ROOM
from uptal.video.container import FAILURES
from uptal.video.packs import source_of
from uptal.video.probing import VideoInfo, probe
from uptal.video.reading import frames

CLOCK = 90_000
"""Ticks a second for videos of variable rate: times are off by 6 microseconds at most."""


@dataclass(frozen=True, kw_only=True)
class TranscodeConfig:
    """What copies are like."""

    short_side: int = 128
    """Pixels; 8/7 of the paper's crop of 112 (Sec. 4.1.1). Smaller videos keep their size."""
    gop: int = 16
    """Frames from one keyframe to the next, groups closed. A clip of 8 frames at stride 1 to 4 spans 8 to 29 frames:
    with 16, reading one anywhere decodes 8 frames more on average than it needs."""
    crf: int = 20
    """Quality of x264, lower is better; 20 is hard to tell from the original."""
    preset: str = "fast"
    """Speed of x264."""
    audio: Literal["drop", "keep"] = "drop"
    """Whether sound is copied as it is."""

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.gop < 1 or not 0 <= self.crf <= 51:
            raise ConfigError(
                "A copy needs a short side of at least 16 pixels, a gop of at least 1 and a crf of 0 to 51."
            )


def transcode(source: Path, target: Path, cfg: TranscodeConfig) -> VideoInfo:
    """Writes the copy, checks it frame by frame against the source's times, and only then gives it its name.

    Raises:
        VideoError: The source cannot be read, or the copy came out different.
    """
    info = probe(source)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            _write(info, draft, cfg)
        except FAILURES as error:
            if getattr(error, "errno", None) in OUT_OF_ROOM:
                raise UptalError(f"{target}: cannot be written ({error}). Make room, and run it again.") from error
            raise VideoError(source, f"its copy cannot be written ({error})") from error
        copy = probe(draft)
        _check(info, copy)
        os.replace(draft, target)
        return copy
    finally:
        draft.unlink(missing_ok=True)


def copy_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Height and width of a copy: proportions kept, both even as the code wants them, never larger."""
    scale = min(1.0, short_side / min(info.height, info.width))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in (info.height, info.width))
    return height, width


def _write(info: VideoInfo, path: Path, cfg: TranscodeConfig) -> None:
    height, width = copy_size(info, cfg.short_side)
    rate = Fraction(info.fps).limit_denominator(1001)
    tick = 1 / rate if info.constant_rate else Fraction(1, CLOCK)
    options = {
        "crf": str(cfg.crf),
        "preset": cfg.preset,
        "tune": "fastdecode",
        "threads": "1",
        # with mbtree, bytes differ from run to run on some processors
        "x264-params": f"keyint={cfg.gop}:min-keyint=1:scenecut=0:open-gop=0:bframes=0:mbtree=0",
    }
    container_options = {"movflags": "faststart"}
    with av.open(str(path), "w", format="mp4", options=container_options) as file:
        stream = file.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        with _Sound(info, file, cfg) as sound:
            for index, seconds, picture in frames(info.path, (height, width), info=info):
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), "rgb24")
                frame.time_base, frame.pts = tick, index if info.constant_rate else round(seconds * CLOCK)
                sound.until(seconds)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
            sound.until(float("inf"))


class _Sound:
    """Copies sound packets into the file as the pictures go on, so that both lie beside each other there."""

    def __init__(self, info: VideoInfo, file: OutputContainer, cfg: TranscodeConfig):
        self._file, self._source, self._packets = file, None, iter(())
        self._start, self._next = info.start, None
        if cfg.audio == "keep":
            self._source = av.open(source_of(info.path), "r")
            if self._source.streams.audio:
                track = self._source.streams.audio[0]
                self._packets = self._copied(track, file.add_stream_from_template(track))

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *_: object) -> None:
        if self._source is not None:
            self._source.close()

    def _copied(self, track: Any, copy: Any) -> Iterator[tuple[float, Any]]:
        assert self._source is not None
        shift = round(self._start / track.time_base)
        for packet in self._source.demux(track):
            if packet.dts is None or packet.pts is None or packet.pts < shift:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            yield float(packet.pts * track.time_base), packet

    def until(self, seconds: float) -> None:
        """Writes what is heard up to then."""
        while True:
            self._next = self._next or next(self._packets, None)
            if self._next is None or self._next[0] > seconds:
                return
            self._file.mux(self._next[1])
            self._next = None


def _check(info: VideoInfo, copy: VideoInfo) -> None:
    if copy.num_frames != info.num_frames:
        raise VideoError(info.path, f"its copy has {copy.num_frames} frames instead of {info.num_frames}")
    off = float(np.abs(copy.times - info.times).max())
    if off > max(0.25 / info.fps, 1e-3):
        raise VideoError(info.path, f"frames of its copy are up to {off:.3f} s from where they should be")
