"""Opens video files with FFmpeg's libraries (PyAV) and says in plain words why one cannot be used.

Files are untrusted: only regular files are opened, only as real video containers (a play list could name other files,
a text file could pass for terminal art), and only for picture sizes that fit into memory. PyAV keeps FFmpeg's own log
silent. What is inside an open container is for `probing` and `decoding`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.error import DecoderNotFoundError, FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.stream import VideoStream

from uptal.errors import VideoError
from uptal.video.packs import in_pack, open_video, source_of

CONTAINERS = (
    "3gp,asf,av1,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,webm,"
    "wtv"
)
"""FFmpeg's names of the formats that are accepted: those that hold their pictures themselves."""

MAX_PIXELS = 2**26
"""Largest picture that is decoded (8192 x 8192); a damaged header can claim any size."""

USUAL_MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
"""Colour matrices that can be converted: RGB, BT.709, unknown, FCC, BT.470, SMPTE 170M and 240M, BT.2020."""

_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Titles in other encodings than UTF-8 are no damage. PyAV 19 has no such option and accepts them."""

FAILURES = (FFmpegError, OSError, UnicodeError, OverflowError, IndexError)
"""What PyAV raises on files that cannot be read; an IndexError comes from streams that a damaged header lies about."""


@contextmanager
def opened(path: str | os.PathLike[str], threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The open container and its best video stream, which decodes on `threads` threads.

    Raises:
        VideoError: The file cannot be opened, holds no pictures, or fails inside the `with` block.
    """
    _check_file(path)
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
        source = source_of(path)
        name: Any = f"file:{source}" if isinstance(source, str) else source
        with av.open(name, options=options, **_LENIENT) as container:
            stream = _picture_stream(container, path)
            stream.codec_context.thread_count = threads
            yield container, stream
    except FAILURES as error:
        raise VideoError(path_text(path), _explain(path, error)) from error


def path_text(path: str | os.PathLike[str]) -> str:
    """The path as errors and records carry it."""
    return os.fspath(path)


def _check_file(path: str | os.PathLike[str]) -> None:
    """Refuses what need not be opened; a pipe or device would block for ever."""
    inside = in_pack(path)
    try:
        status = os.stat(path if inside is None else inside[0])
    except OSError as error:
        raise VideoError(path_text(path), _explain_os(error)) from error
    except ValueError as error:
        raise VideoError(path_text(path), "no file can have this name") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(path_text(path), "it is a folder, not a video file")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path_text(path), "it is not a regular file but a pipe, socket or device")
    if status.st_size == 0:
        raise VideoError(path_text(path), "the file is empty (0 bytes)")


def _picture_stream(container: InputContainer, path: str | os.PathLike[str]) -> VideoStream:
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not pictures:
        has = "sound but no pictures" if container.streams.audio else "no pictures"
        raise VideoError(path_text(path), f"it holds {has}")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in pictures else pictures[0]
    if stream.codec_context is None:
        raise VideoError(path_text(path), "its pictures are in a code that this build of FFmpeg cannot decode")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise VideoError(path_text(path), f"its header claims pictures of {width} x {height} pixels; it is damaged")
    return stream


def _explain(path: str | os.PathLike[str], error: BaseException) -> str:
    if isinstance(error, InvalidDataError):
        return _explain_content(path)
    if isinstance(error, DecoderNotFoundError):
        return "its pictures are in a code that this build of FFmpeg cannot decode"
    if isinstance(error, PermissionError | FileNotFoundError):  # FFmpeg's own are both
        return _explain_os(error)
    if isinstance(error, FFmpegError):
        return f"FFmpeg cannot read it ({error.strerror or 'unknown error'}); it is probably damaged"
    if isinstance(error, OSError):
        return _explain_os(error)
    return "its header contradicts itself; it is damaged"


def _explain_os(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, PermissionError):
        return "there is no permission to read it"
    return f"it cannot be read ({error.strerror or error})"


def _explain_content(path: str | os.PathLike[str]) -> str:
    """Looks at the first bytes of a file that FFmpeg refused, for what a user can do something about."""
    with open_video(path) as file:
        head = file.read(4096) or b""
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page (HTML), not a video; a download probably failed"
    if not set(head) - _PRINTABLE:
        return "it is a text file, not a video"
    if head[4:8] == b"ftyp":
        return "its index is missing or damaged; it was probably cut off while it was recorded or copied"
    if head.startswith((b"\x1a\x45\xdf\xa3", b"RIFF", b"FLV")):
        return "its header is damaged"
    return f"it is not a video that FFmpeg recognises, although its name ends in '{Path(path).suffix}'"


_PRINTABLE = frozenset(range(32, 127)) | frozenset(b"\t\n\r\f") | frozenset(range(128, 256))
