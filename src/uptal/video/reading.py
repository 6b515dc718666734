"""Frames of a video as tensors: which ones, how large, turned upright, from which decoder.

Both decoders deliver pictures of the size asked for, one at a time; they are turned upright here. Nothing of full size
is kept.

Letters: F frames, C = 3 colours (RGB), H W height and width.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from uptal.errors import ConfigError, VideoError
from uptal.video import decoding, with_nvdec, with_torchcodec
from uptal.video.probing import VideoInfo, probe

Size = int | tuple[int, int] | None
"""None: as in the file. One number: length of the short side, proportions kept. Two: height and width, whatever the
proportions."""


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

    Frame i is the i-th that is shown, whatever the file says about rates and times. Pictures are upright (display
    matrix applied), 8-bit RGB whatever the stored format; alpha is dropped, grey becomes three equal colours, high
    dynamic range is not tone-mapped, pixels that are not square are left so. Other sizes are made with bilinear
    interpolation, without aliasing, in the same step as the conversion to RGB.

    Args:
        path: The video.
        frame_indices: Frame numbers from 0, in any order, with or without repeats.
        size: None for the native size, a short side, or (height, width).
        info: What `probe` says about the file; None has it looked at here.
        backend: `pyav`, or `torchcodec` if it is installed. At native size the pictures are identical; scaled ones are
            of the same frames and differ in rounding and at edges of colour (torchcodec scales after the conversion).
            `nvdec` is torchcodec on the current GPU, whose conversion rounds in its own way; not in forked processes.
        threads: Decoder threads; 1 is best where several processes read.

    Raises:
        VideoError: The file cannot be read, is damaged, or has no frame of such a number.
        ConfigError: The size or the backend is none, or what the backend needs is not there.
    """
    info = info or probe(path)
    indices = np.array([_checked(info, index) for index in frame_indices], dtype=np.int64)
    wanted, place = np.unique(indices, return_inverse=True)
    height, width = target_size(info, size)
    pictures = torch.empty((len(wanted), 3, height, width), dtype=torch.uint8)
    for row, (_, picture) in enumerate(_pictures(info, wanted.tolist(), (height, width), backend, threads)):
        pictures[row] = picture
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
    for index, picture in _pictures(info, chosen, target_size(info, size), backend, threads):
        yield index, float(info.times[index]), picture.contiguous()


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


def _pictures(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], backend: str, threads: int
) -> Iterator[tuple[int, UInt8[Tensor, "C H W"]]]:
    """The wanted frames, upright, from the decoder of that name."""
    sources = {
        "pyav": decoding.stored_pictures,
        "torchcodec": with_torchcodec.stored_pictures,
        "nvdec": with_nvdec.stored_pictures,
    }
    if backend not in sources:
        raise ConfigError(f"There is no decoder '{backend}'. Choose one of: {', '.join(sources)}.")
    transposed, mirrored, upended = info.flips
    stored_size = (size[1], size[0]) if transposed else size
    for index, stored in sources[backend](info, wanted, stored_size, threads):
        turned = stored.transpose(0, 2, 1) if transposed else stored
        upright = turned[:, :: -1 if upended else 1, :: -1 if mirrored else 1]
        yield index, torch.from_numpy(np.ascontiguousarray(upright) if any(info.flips) else upright)
