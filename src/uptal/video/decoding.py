"""Decodes chosen frames of one video with PyAV: seeks, skips what nothing depends on, and checks what comes out.

The quick way jumps to the last keyframe before a wanted frame and recognises frames by their time stamps. Whenever
anything is not as expected there (a refused packet, a missing frame, a seek that lands too late), the careful way
starts over from the beginning of the file, counts every frame, and raises when too many are lost. So a result is exact
or it is an error; only the speed depends on how well the file behaves. Frames are scaled as they are converted to RGB;
turning them upright is left to `reading`.

Letters: C = 3 colours (RGB), H W height and width of pictures that are not yet turned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from uptal.errors import VideoError
from uptal.video.container import FAILURES, USUAL_MATRICES, opened
from uptal.video.probing import COMPLETE, VideoInfo

SEEK_COST = 6
"""Frames that can be decoded in the time of one seek; nearer keyframes are reached by decoding on."""

SKIPPABLE = frozenset({"h264", "mpeg4", "mpeg2video", "vp8"})
"""Codes whose non-reference pictures FFmpeg can leave out; in HEVC such pictures may serve higher temporal layers."""

UNKNOWN_MATRIX = 2
"""FFmpeg's number for a colour matrix that the file does not name."""

NOT_CODED = 20
"""Largest MPEG-4 packet, in bytes, that may say "the picture stays as it is" instead of holding one."""

Picture = UInt8[np.ndarray, "C H W"]
"""A picture as it is stored, not yet turned, in RGB."""


class _Unexpected(Exception):
    """The quick way met something that only the careful way can judge."""


def stored_pictures(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], threads: int = 1
) -> Iterator[tuple[int, Picture]]:
    """The wanted frames, not yet turned, one after the other.

    Args:
        info: The video.
        wanted: Distinct frames, ascending, all of them within the video.
        size: Height and width of the pictures before they are turned.
        threads: Decoder threads; the pictures do not depend on it.

    Raises:
        VideoError: The file cannot be decoded, or more than 1 % of its frames are lost. Up to 1 %, a lost frame shows
            the picture before it.
    """
    done = 0
    if info.stamps is not None:
        try:
            for index, picture in _quick(info, wanted, size, threads):
                yield index, picture
                done += 1
            return
        except (_Unexpected, VideoError):
            pass  # the careful way finds out what it was
    yield from _careful(info, wanted[done:], size, threads)


def plan(wanted: Sequence[int], keyframes: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Runs of wanted frames that are decoded in one go, each with the keyframe to begin at.

    >>> plan([3, 5, 40, 41, 90], [0, 12, 24, 36, 48, 60, 72, 84])
    [(0, [3, 5]), (36, [40, 41]), (84, [90])]
    >>> plan([10, 13], [0, 12])
    [(0, [10, 13])]
    """
    runs: list[tuple[int, list[int]]] = []
    begin = np.asarray(keyframes)[np.searchsorted(keyframes, wanted, side="right") - 1]
    for index, keyframe in zip(wanted, begin.tolist(), strict=True):
        if runs and keyframe - runs[-1][1][-1] <= SEEK_COST:
            runs[-1][1].append(index)
        else:
            runs.append((keyframe, [index]))
    return runs


def _quick(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], threads: int
) -> Iterator[tuple[int, Picture]]:
    assert info.stamps is not None
    converter = VideoReformatter()
    with opened(info.path, threads) as (container, stream):
        for keyframe, run in plan(wanted, info.keyframes.tolist()):
            if keyframe > 0:
                container.seek(int(info.stamps[keyframe]), stream=stream)
            stamps = info.stamps[run].tolist()
            for index, frame in zip(run, _by_stamp(container, stream, stamps), strict=True):
                yield index, _to_rgb(converter, frame, size)


def _by_stamp(container: InputContainer, stream: VideoStream, wanted: list[int]) -> Iterator[VideoFrame]:
    """The frames with the wanted time stamps, from the place where the container stands.

    Raises:
        _Unexpected: One of them did not come, or came damaged.
    """
    codec, targets, pending = stream.codec_context, frozenset(wanted), deque(wanted)
    may_skip = stream.codec.canonical_name in SKIPPABLE
    unchanged: set[int | None] = set()
    last: VideoFrame | None = None
    for packet in container.demux(stream):
        if may_skip:
            codec.skip_frame = "DEFAULT" if packet.pts in targets or packet.size == 0 else "NONREF"
        if _says_unchanged(stream, packet):
            unchanged.add(packet.pts)
        for frame in _decode(packet):
            if frame.pts is None or frame.is_corrupt:
                raise _Unexpected
            while pending and pending[0] < frame.pts and pending[0] in unchanged and last is not None:
                pending.popleft()
                yield last
            last = frame
            if pending and pending[0] < frame.pts:
                raise _Unexpected
            if pending and pending[0] == frame.pts:
                pending.popleft()
                yield frame
            if not pending:
                return
    raise _Unexpected


def _decode(packet: Packet) -> list[VideoFrame]:
    try:
        return packet.decode()
    except FAILURES as error:
        raise _Unexpected from error


def _careful(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], threads: int
) -> Iterator[tuple[int, Picture]]:
    converter = VideoReformatter()
    pending, last, upcoming, lost = deque(wanted), None, 0, 0
    with opened(info.path, threads) as (container, stream):
        for index, frame in _every_frame(container, stream, info):
            lost += index - upcoming + frame.is_corrupt
            _check_damage(info, lost, upcoming)
            while pending and pending[0] <= index:
                shown = frame if pending[0] == index or last is None else last
                yield pending.popleft(), _to_rgb(converter, shown, size)
            if not pending:
                return
            last, upcoming = frame, index + 1
        _check_damage(info, lost + info.num_frames - upcoming, upcoming)
        while pending and last is not None:
            yield pending.popleft(), _to_rgb(converter, last, size)


def _every_frame(container: InputContainer, stream: VideoStream, info: VideoInfo) -> Iterator[tuple[int, VideoFrame]]:
    """All frames that can be decoded, numbered by their time stamps or by counting; lost ones are left out.

    Where the file itself says that the picture stays as it is, the frame before is given once more.
    """
    by_stamp = info.stamps is not None
    index_of = {} if info.stamps is None else {stamp: index for index, stamp in enumerate(info.stamps.tolist())}
    unchanged: set[int | None] = set()
    last, upcoming = None, 0
    for packet in container.demux(stream):
        if _says_unchanged(stream, packet):
            unchanged.add(index_of.get(packet.pts))
        try:
            decoded = packet.decode()
        except FAILURES:
            upcoming += not by_stamp  # so that the frames after a refused one keep their numbers
            continue
        for frame in decoded:
            index = index_of.get(frame.pts, -1) if by_stamp else upcoming
            if not upcoming <= index < info.num_frames:
                continue
            while last is not None and upcoming < index and upcoming in unchanged:
                yield upcoming, last
                upcoming += 1
            yield index, frame
            last, upcoming = frame, index + 1


def _check_damage(info: VideoInfo, lost: int, place: int) -> None:
    if lost > (1 - COMPLETE) * info.num_frames:
        seconds = info.times[min(place, info.num_frames - 1)]
        raise VideoError(
            info.path, f"it is damaged near {seconds:.2f} s: more than 1 % of its {info.num_frames} frames are lost"
        )


def _says_unchanged(stream: VideoStream, packet: Packet) -> bool:
    return 0 < packet.size <= NOT_CODED and stream.codec.canonical_name == "mpeg4"


def _to_rgb(converter: VideoReformatter, frame: VideoFrame, size: tuple[int, int]) -> Picture:
    """Converts one frame, and scales it in the same step where it has another size.

    At its own size, chroma is interpolated bicubically, as torchcodec does it. Scaling uses swscale's bilinear filter,
    which is as wide as the reduction demands (no aliasing); planes come out of it faster than interleaved pixels. A
    matrix that swscale does not know (YCgCo, ICtCp, ...) is taken for an unknown one.
    """
    height, width = size
    if frame.colorspace not in USUAL_MATRICES:
        frame.colorspace = UNKNOWN_MATRIX
    if (frame.height, frame.width) == size:
        rgb = converter.reformat(frame, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1)
        return rgb.to_ndarray().transpose(2, 0, 1)
    planes = converter.reformat(
        frame, width, height, format="gbrp", interpolation=Interpolation.BILINEAR, threads=1
    ).planes
    green, blue, red = (_samples(plane, width) for plane in planes)
    return np.stack((red, green, blue))


def _samples(plane: VideoPlane, width: int) -> UInt8[np.ndarray, "H W"]:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, :width]
