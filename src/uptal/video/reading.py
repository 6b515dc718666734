"""Frames of a video as tensors: which ones, how large, turned upright, from which decoder.

Both decoders deliver stored pictures at their native size; turning and scaling them is done here, once, so that a result
does not depend on the decoder. Pictures are scaled as they leave the decoder, a few megabytes at a time.

Letters: F frames, C = 3 colours (RGB), H W height and width.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from uptal.errors import ConfigError, VideoError
from uptal.video import decoding, with_torchcodec
from uptal.video.probing import VideoInfo, probe

Size = int | tuple[int, int] | None
"""None: as in the file. One number: length of the short side, proportions kept. Two: height and width, whatever the
proportions."""

PORTION = 2_000_000
"""Bytes of full-size pictures that are scaled together; a larger picture is scaled by itself."""


def read(
    path: str | os.PathLike[str],
    frame_indices: Sequence[SupportsIndex] | Int[np.ndarray, " F"],
    size: Size = None,
    *,
    info: VideoInfo | None = None,
    backend: str = "pyav",
    threads: int = 1,
) -> UInt8[Tensor, "F C H W"]:
    """The frames with these numbers, in this order; a frame that is asked for twice is decoded and converted once.

    Frame i is the i-th that is shown, whatever the file says about rates and times. Pictures are upright (display matrix
    applied), 8-bit RGB whatever the stored format; alpha is dropped, grey becomes three equal colours, high dynamic range
    is not tone-mapped, pixels that are not square are left so. Other sizes are made with bilinear interpolation and
    antialiasing.

    Args:
        path: The video.
        frame_indices: Frame numbers from 0, in any order, with or without repeats.
        size: None for the native size, a short side, or (height, width).
        info: What `probe` says about the file; None has it looked at here.
        backend: `pyav`, or `torchcodec` if it is installed; the frames are the same.
        threads: Decoder threads; 1 is best where several processes read.

    Raises:
        VideoError: The file cannot be read, is damaged, or has no frame of such a number.
        ConfigError: The size or the backend is none, or torchcodec is not installed.
    """
    info = info or probe(path)
    indices = np.array([_checked(info, index) for index in frame_indices], dtype=np.int64)
    wanted, place = np.unique(indices, return_inverse=True)
    height, width = target_size(info, size)
    pictures = torch.empty((len(wanted), 3, height, width), dtype=torch.uint8)
    done = 0
    for part in _portions(info, _source(info, wanted.tolist(), backend, threads)):
        _finish(info, [stored for _, stored in part], out=pictures[done : done + len(part)])
        done += len(part)
    return pictures if np.array_equal(indices, wanted) else pictures[torch.from_numpy(place)]


def frames(
    path: str | os.PathLike[str],
    size: Size = None,
    *,
    indices: Sequence[SupportsIndex] | Int[np.ndarray, " F"] | None = None,
    info: VideoInfo | None = None,
    backend: str = "pyav",
    threads: int = 1,
) -> Iterator[tuple[int, float, UInt8[Tensor, "C H W"]]]:
    """Frames in one pass from the first to the last: number, seconds, picture; nothing is kept in between.

    Args:
        path: The video.
        size: As for `read`.
        indices: Frames to give, each once and in ascending order whatever the order here; None gives all.
        info: As for `read`.
        backend: As for `read`.
        threads: As for `read`.

    Raises:
        VideoError: As for `read`; also in the midst of the pass.
        ConfigError: As for `read`.
    """
    info = info or probe(path)
    chosen = range(info.num_frames) if indices is None else sorted({_checked(info, index) for index in indices})
    height, width = target_size(info, size)
    for part in _portions(info, _source(info, chosen, backend, threads)):
        pictures = torch.empty((len(part), 3, height, width), dtype=torch.uint8)
        _finish(info, [stored for _, stored in part], out=pictures)
        for (index, _), picture in zip(part, pictures, strict=True):
            yield index, float(info.times[index]), picture


def target_size(info: VideoInfo, size: Size) -> tuple[int, int]:
    """Height and width of the pictures that `read` gives for `size`.

    Raises:
        ConfigError: The size is not positive.
    """
    if size is None:
        return info.height, info.width
    if min(size if isinstance(size, tuple) else (size,)) < 1:
        raise ConfigError(f"A picture size must be positive, found {size!r}. Give a short side or (height, width).")
    if isinstance(size, tuple):
        return size
    scale = size / min(info.height, info.width)
    return max(1, round(info.height * scale)), max(1, round(info.width * scale))


def _checked(info: VideoInfo, index: SupportsIndex) -> int:
    number = operator.index(index)
    if not 0 <= number < info.num_frames:
        raise VideoError(
            info.path, f"frame {number} was asked for, but it has {info.num_frames} frames, 0 to {info.num_frames - 1}"
        )
    return number


def _source(
    info: VideoInfo, wanted: Sequence[int], backend: str, threads: int
) -> Iterator[tuple[int, decoding.Stored]]:
    if backend == "pyav":
        return decoding.stored_pictures(info, wanted, threads)
    if backend == "torchcodec":
        return with_torchcodec.stored_pictures(info, wanted, threads)
    raise ConfigError(f"There is no decoder '{backend}'. Choose 'pyav' or 'torchcodec'.")


def _portions(
    info: VideoInfo, source: Iterator[tuple[int, decoding.Stored]]
) -> Iterator[list[tuple[int, decoding.Stored]]]:
    """A few pictures at a time: scaling several in one call is cheaper, but few large ones fit into a cache."""
    count = max(1, PORTION // (3 * info.height * info.width))
    while part := list(islice(source, count)):
        yield part


def _finish(info: VideoInfo, stored: list[decoding.Stored], out: UInt8[Tensor, "F C H W"]) -> None:
    """Turns stored pictures upright and scales them into `out`."""
    sizes = {picture.shape for picture in stored}
    if len(sizes) > 1:  # the video changes its size on the way
        for row, picture in enumerate(stored):
            _finish(info, [picture], out[row : row + 1])
        return
    pictures = torch.from_numpy(_upright(np.stack(stored), info.flips)).permute(0, 3, 1, 2)
    if pictures.shape != out.shape:
        pictures = interpolate(pictures, out.shape[2:], mode="bilinear", antialias=True)
    out.copy_(pictures)


def _upright(
    stored: UInt8[np.ndarray, "F H W 3"], flips: tuple[bool, bool, bool]
) -> UInt8[np.ndarray, "F height width 3"]:
    transposed, mirrored, upended = flips
    if not any(flips):
        return stored
    turned = stored.transpose(0, 2, 1, 3) if transposed else stored
    return np.ascontiguousarray(turned[:, :: -1 if upended else 1, :: -1 if mirrored else 1])
