"""Says what is in a video, exactly: every packet is looked at, none but the first picture's are decoded.

Headers lie (or say nothing), packets do not: the number of frames and their times come from the packets alone, and a
header only serves to notice that a part of the file is missing.

Letters: N frames in display order, K keyframes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from jaxtyping import Float, Int

from uptal.errors import VideoError
from uptal.video.container import FAILURES, USUAL_MATRICES, opened, path_text

COMPLETE = 0.99
"""Share of the promised frames that must be there; with fewer, a video counts as cut off or damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """What `probe` found out; hand it to `read` to save that a second look."""

    path: str
    """The file."""
    num_frames: int
    """Frames that can be decoded. Frames are numbered 0, 1, ... in the order in which they are shown."""
    fps: float
    """Mean frames per second; with a single frame, what the header says."""
    duration: float
    """Seconds from the first frame to the end of the last: num_frames / fps."""
    width: int
    """Pixels in a row of a picture as it is shown: turned as the display matrix says, but not stretched (the sample
    aspect ratio of anamorphic video is left out of account)."""
    height: int
    """Rows of a picture as it is shown."""
    rotation: int
    """Degrees counter-clockwise, 0, 90, 180 or 270, by which the display matrix turns stored pictures; one that makes a
    mirror image besides is exact in `flips` only."""
    codec: str
    """FFmpeg's name of the code, such as `h264`."""
    constant_rate: bool
    """Whether frame i is shown at i / fps, to a quarter of the time between frames."""
    times: Float[np.ndarray, " N"]
    """Seconds at which each frame is shown, from 0."""
    start: float
    """The file's own time of the first frame, in seconds."""
    stream: int
    """Index of the video stream in the file."""
    common_colours: bool
    """Whether pixels are stored in a way that all decoders convert alike: 8 bits, a usual matrix and range."""
    flips: tuple[bool, bool, bool]
    """How stored pictures are turned: (rows and columns exchanged, then columns reversed, then rows reversed)."""
    stamps: Int[np.ndarray, " N"] | None
    """Time stamps by which decoded frames are recognised; None if the file has none that can be trusted."""
    keyframes: Int[np.ndarray, " K"]
    """Frames at which decoding can begin."""


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Looks through the whole file once.

    Raises:
        VideoError: The file is missing, is no video, holds no pictures, or less than 99 % of what its header promises.
    """
    with opened(path) as (container, stream):
        promise = _promise(container, stream)
        survey = _look_through(container, stream, whole=promise.seconds is not None)
        if survey.picture is None:
            raise VideoError(path_text(path), "none of its pictures can be decoded; it is empty or damaged")
        _check_promise(path, promise, survey)
        return _describe(path, stream, survey, survey.picture)


@dataclass(frozen=True, kw_only=True)
class _Promise:
    """What the header says about the length of the file, where it says anything that can be relied upon."""

    packets: int | None = None
    seconds: float | None = None


@dataclass(kw_only=True)
class _Survey:
    """What one look through the packets has brought."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    end: float = 0.0
    """Seconds at which the last packet of any stream ends."""
    picture: VideoFrame | None = None
    """The first picture that could be decoded."""


def _promise(container: InputContainer, stream: VideoStream) -> _Promise:
    """Index entries where an index is kept in the header, seconds where the header states a duration.

    FFmpeg estimates the duration of the other formats from the file itself, so there it proves nothing.
    """
    formats = container.format.name.split(",")
    if "mov" in formats and stream.frames:
        return _Promise(packets=len(stream.index_entries))  # `stream.frames` counts what edit lists cut away, too
    if "avi" in formats and stream.frames and stream.time_base:  # a dropped frame counts, but has no packet
        return _Promise(seconds=float(stream.frames * stream.time_base))
    if {"mov", "matroska", "flv", "asf"} & set(formats) and container.duration:
        return _Promise(seconds=container.duration / av.time_base)
    return _Promise()


def _look_through(container: InputContainer, stream: VideoStream, whole: bool) -> _Survey:
    """One pass over the video's packets, or over the `whole` file, since its longest stream makes its duration."""
    survey = _Survey()
    for packet in container.demux() if whole else container.demux(stream):
        if packet.stream_index != stream.index:
            survey.end = max(survey.end, _end(packet))
            continue
        if survey.picture is None:
            survey.picture = _first_picture(packet)
        if packet.size == 0:
            continue
        survey.end = max(survey.end, _end(packet))
        survey.pts.append(packet.pts)
        survey.dts.append(packet.dts)
        survey.key.append(packet.is_keyframe)
        survey.shown.append(not packet.is_discard and not (stream.codec.name == "vp8" and _is_hidden(packet)))
    return survey


def _end(packet: Packet) -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return 0.0 if stamp is None else float((stamp + (packet.duration or 0)) * packet.time_base)


def _is_hidden(packet: Packet) -> bool:
    """VP8 keeps pictures that only serve as a reference in packets of their own; bit 4 of their frame tag is 0."""
    return not memoryview(packet)[0] & 0x10


def _first_picture(packet: Packet) -> VideoFrame | None:
    try:
        pictures = packet.decode()
    except FAILURES:
        return None  # a later packet may do; if none does, `probe` says so
    return pictures[0] if pictures else None


def _check_promise(path: str | os.PathLike[str], promise: _Promise, survey: _Survey) -> None:
    cut = "the file is cut off (a download, copy or recording that did not finish?)"
    found = len(survey.pts)
    if promise.packets is not None and found < COMPLETE * promise.packets:
        raise VideoError(path_text(path), f"{cut}: {found} of the {promise.packets} frames in its index are there")
    if promise.seconds is not None:
        missing = promise.seconds - survey.end
        two_frames = 2 * promise.seconds / max(found, 1)  # the length of the last packet is often unknown
        if missing > (1 - COMPLETE) * promise.seconds and missing > two_frames:
            raise VideoError(path_text(path), f"{cut}: it ends at {survey.end:.2f} s of {promise.seconds:.2f} s")


@dataclass(frozen=True, kw_only=True)
class _Timeline:
    """Frames in display order."""

    times: Float[np.ndarray, " N"]
    start: float
    stamps: Int[np.ndarray, " N"] | None
    keyframes: Int[np.ndarray, " K"]


def _timeline(stream: VideoStream, survey: _Survey) -> _Timeline:
    """Brings the packets into display order, without those from before the first keyframe, which nothing can decode."""
    tick = float(stream.time_base or 0)
    shown, key = np.array(survey.shown, bool), np.array(survey.key, bool)
    first = int(key.argmax())
    if _can_trust(stream, survey.pts):
        pts = np.array(survey.pts, np.int64)
        keep = shown & (pts >= pts[first])
        order = np.argsort(pts[keep])
        stamps = pts[keep][order]
        keyframes = np.union1d([0], np.flatnonzero(key[keep][order]))
        start = int(stamps[0]) if len(stamps) else 0
        return _Timeline(times=(stamps - start) * tick, start=start * tick, stamps=stamps, keyframes=keyframes)
    dts = [dts for dts, is_shown in zip(survey.dts[first:], shown[first:], strict=True) if is_shown]
    even = np.arange(len(dts)) / _nominal_rate(stream)
    times = even if None in dts else np.sort(np.array(dts, np.float64)) * tick
    return _Timeline(times=times - times[:1], start=0.0, stamps=None, keyframes=np.zeros(1, np.int64))


def _can_trust(stream: VideoStream, pts: list[int | None]) -> bool:
    """Whether time stamps tell decoded frames apart; AVI has none, and FFmpeg's guess fails for H.264 with B-frames."""
    guessed = "avi" in stream.container.format.name and stream.codec.canonical_name in ("h264", "hevc")
    return None not in pts and len(set(pts)) == len(pts) and not guessed


def _nominal_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 25)


def _mean_rate(times: Float[np.ndarray, " N"], stream: VideoStream) -> float:
    """Frames per second as the times say; where the header's rate fits them to one tick of the clock, that one."""
    nominal, last = _nominal_rate(stream), float(times[-1])
    if last <= 0:
        return nominal
    off = abs(last - (len(times) - 1) / nominal)
    fits = off <= min(float(stream.time_base or 0), 0.25 / nominal)
    return nominal if fits else (len(times) - 1) / last


def _describe(path: str | os.PathLike[str], stream: VideoStream, survey: _Survey, picture: VideoFrame) -> VideoInfo:
    line = _timeline(stream, survey)
    count = len(line.times)
    if count == 0:
        raise VideoError(path_text(path), "it holds no pictures; it is empty or damaged")
    fps = _mean_rate(line.times, stream)
    flips = _flips(picture)
    width, height = (picture.height, picture.width) if flips[0] else (picture.width, picture.height)
    return VideoInfo(
        path=path_text(path),
        num_frames=count,
        fps=fps,
        duration=count / fps,
        width=width,
        height=height,
        rotation=round(picture.rotation / 90) * 90 % 360,
        codec=stream.codec.canonical_name,
        constant_rate=bool(np.abs(line.times * fps - np.arange(count)).max() <= 0.25),
        times=line.times,
        start=line.start,
        stream=stream.index,
        common_colours=_has_common_colours(picture),
        flips=flips,
        stamps=line.stamps,
        keyframes=line.keyframes,
    )


def _has_common_colours(picture: VideoFrame) -> bool:
    depth = max(component.bits for component in picture.format.components)
    odd_matrix = picture.colorspace not in USUAL_MATRICES or (picture.colorspace == 0 and picture.format.name != "gbrp")
    unusual_range = picture.color_range == ColorRange.JPEG and not picture.format.name.startswith("yuvj")
    return depth <= 8 and not odd_matrix and not unusual_range


def _flips(picture: VideoFrame) -> tuple[bool, bool, bool]:
    """What the display matrix [[a, b], [c, d]] does to a stored picture, to the nearest quarter turn.

    It sends column x and row y to column `x a + y c` and row `x b + y d`.
    """
    side_data = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if transposed else (False, a < 0, d < 0)
