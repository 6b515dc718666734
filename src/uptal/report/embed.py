"""A copy of a video that any browser plays: H.264, 4:2:0, at most 480 lines, no sound; pages are for `page`.

The index comes first, so that a player can start early. The cheapest way that gives such a copy is taken: the file as
it is, its packets in a new container, or a new encoding.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from uptal.errors import UptalError, VideoError
from uptal.video.packs import in_pack, open_video

MAX_LINES = 480
"""Longest allowed short side of the picture."""
TICKS_PER_SECOND = 90_000
"""Time grid of re-encoded videos: fine enough that no two frames of a variable-rate video fall together."""
PROMISED_SHARE = 0.99
"""A file that holds less than this share of the frames its header promises has been cut off."""
INDEX_FIRST = {"movflags": "+faststart"}
"""A player can start before it has the whole file."""
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "25", "threads": "2", "g": "48"}
"""x264: small and quick; a key frame at least every 48 frames, so that a click in the timeline answers at once."""

Way = Literal["as it is", "repacked", "re-encoded"]


@dataclass(frozen=True, kw_only=True)
class WebVideo:
    """A playable copy."""

    path: Path
    """Where it lies: the source itself when that is playable as it is."""
    way: Way
    """How it was made."""


def make_web_video(source: Path, scratch: Path) -> WebVideo:
    """Make a copy of `source` that browsers play, in the file `scratch` unless the source itself will do.

    Raises:
        VideoError: The file is missing, holds no picture, ends early or is damaged.
        UptalError: There is no room for `scratch`.
    """
    packed = in_pack(source) is not None
    if not packed and not source.is_file():
        raise VideoError(source, "there is no such file.")
    try:
        return _make(_unpacked(source, scratch.with_suffix(".packed")) if packed else source, scratch)
    except (FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise UptalError(
                f"{scratch}: no room on the disk for a copy of {source}. Make room and try again."
            ) from error
        raise VideoError(source, f"cannot be decoded ({_plain(error)}). It may be damaged.") from error


def _unpacked(source: Path, target: Path) -> Path:
    """A file of its own, since a page takes whole files."""
    with open_video(source) as video, open(target, "wb") as out:
        shutil.copyfileobj(video, out)
    return target


def _make(source: Path, scratch: Path) -> WebVideo:
    with av.open(os.fspath(source)) as container:
        if not container.streams.video:
            raise VideoError(source, "holds no picture, only sound or data.")
        if not _has_playable_stream(container):
            _reencode(source, container, scratch)
            return WebVideo(path=scratch, way="re-encoded")
        if _is_picture_only(container) and _index_comes_first(source):
            _count_packets(source, container)
            return WebVideo(path=source, way="as it is")
        _repack(source, container, scratch)
        return WebVideo(path=scratch, way="repacked")


def _has_playable_stream(container: InputContainer) -> bool:
    """Whether the picture can stay as it is. Only MP4 and its relatives carry time stamps that survive a repack."""
    context = container.streams.video[0].codec_context
    playable = context.codec.name == "h264" and context.pix_fmt in ("yuv420p", "yuvj420p")
    even = context.width % 2 == 0 and context.height % 2 == 0
    small = min(context.width, context.height) <= MAX_LINES
    return playable and even and small and "mp4" in container.format.name.split(",")


def _is_picture_only(container: InputContainer) -> bool:
    return len(container.streams) == 1


def _index_comes_first(path: Path) -> bool:
    """Whether the `moov` box of an MP4 file stands before its `mdat` box, so that playing starts at once."""
    with open(path, "rb") as file:
        end = path.stat().st_size
        while file.tell() + 8 <= end:
            start = file.tell()
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if kind in (b"moov", b"mdat"):
                return kind == b"moov"
            if size == 1:  # a 64-bit size follows
                size = int.from_bytes(file.read(8), "big")
            if size < 8:
                return False
            file.seek(start + size)
    return False


def _repack(source: Path, container: InputContainer, target: Path) -> None:
    stream = container.streams.video[0]
    with av.open(os.fspath(target), "w", format="mp4", options=INDEX_FIRST) as out:
        copy = out.add_stream_from_template(stream)
        num_packets = 0
        for packet in container.demux(stream):
            if packet.dts is None:  # the empty packet that flushes a decoder
                continue
            packet.stream = copy
            out.mux(packet)
            num_packets += 1
    _check_whole(source, num_packets, stream.frames)


def _count_packets(source: Path, container: InputContainer) -> None:
    stream = container.streams.video[0]
    num_packets = sum(packet.dts is not None for packet in container.demux(stream))
    _check_whole(source, num_packets, stream.frames)


def _reencode(source: Path, container: InputContainer, target: Path) -> None:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    rate = stream.average_rate or Fraction(25)
    num_frames = 0
    with av.open(os.fspath(target), "w", format="mp4", options=INDEX_FIRST) as out:
        encoder = None
        for frame in _upright_frames(container, stream):
            if encoder is None:
                encoder = out.add_stream("libx264", rate=rate, options=ENCODER_OPTIONS)
                encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
                encoder.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
            out.mux(encoder.encode(frame))
            num_frames += 1
        if encoder is not None:
            out.mux(encoder.encode(None))
    _check_whole(source, num_frames, stream.frames)


def _upright_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decoded frames, upright, of even size, at most `MAX_LINES`, in 4:2:0, counted in ticks from the first one."""
    graph, size, first = None, None, None
    for frame in container.decode(stream):
        seconds = float(frame.time) if frame.time is not None else 0.0
        first = seconds if first is None else first
        if graph is None or size != (frame.width, frame.height):
            size = (frame.width, frame.height)
            graph = _scaling_graph(frame, stream)
        graph.push(frame)
        upright = graph.pull()
        assert isinstance(upright, VideoFrame)  # the graph holds picture filters only
        upright.pts = round((seconds - first) * TICKS_PER_SECOND)
        upright.time_base = Fraction(1, TICKS_PER_SECOND)
        upright.pict_type = PictureType.NONE  # the encoder chooses its own key frames
        yield upright


def _scaling_graph(frame: VideoFrame, stream: VideoStream) -> Graph:
    scale = min(1.0, MAX_LINES / min(frame.width, frame.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
    steps = [("scale", f"{width}:{height}"), ("format", "pix_fmts=yuv420p"), *_turns(frame.rotation)]
    graph = Graph()
    nodes = [graph.add_buffer(template=stream), *(graph.add(*step) for step in steps), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph


def _turns(rotation: int) -> list[tuple[str, str]]:
    """Filter steps that turn a picture upright, from the counter-clockwise angle that the file asks for."""
    return {90: [("transpose", "cclock")], 180: [("hflip", ""), ("vflip", "")], 270: [("transpose", "clock")]}.get(
        rotation % 360, []
    )


def _check_whole(source: Path, found: int, promised: int) -> None:
    if found == 0:
        raise VideoError(source, "holds no frame that can be decoded.")
    if found < PROMISED_SHARE * promised:
        raise VideoError(source, f"ends early: {found} of {promised} frames are there. Copy or download it again.")


def _plain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
