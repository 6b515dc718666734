"""Decodes chosen frames with torchcodec (exact seek), for those who have it; nothing here is imported without need.

At native size the pictures are PyAV's, to the last bit. Where torchcodec would give others (deep colour, unusual
matrices and ranges, files whose time stamps cannot be trusted) or fails on a healthy file, PyAV reads them instead.
Pictures of other sizes are scaled after the conversion to RGB, so they differ from PyAV's, which are scaled within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from uptal.errors import ConfigError
from uptal.video.decoding import Picture
from uptal.video.decoding import stored_pictures as by_pyav
from uptal.video.packs import source_of
from uptal.video.probing import VideoInfo

AT_A_TIME = 8
"""Pictures of full size that are held at once."""

SAME_TIME = 1e-4
"""Seconds by which the time stamp of a frame may differ from the one that `probe` found: rounding only."""


def stored_pictures(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], threads: int = 1
) -> Iterator[tuple[int, Picture]]:
    """As `uptal.video.decoding.stored_pictures`.

    Raises:
        VideoError: As there.
        ConfigError: torchcodec is not installed, or does not load.
    """
    decoder_type = video_decoder()
    done = 0
    if info.common_colours and info.stamps is not None:
        try:
            source = source_of(info.path)
            decoder = decoder_type(source, stream_index=info.stream, num_ffmpeg_threads=threads, seek_mode="exact")
            for part, pictures in in_step(decoder, info, wanted):
                for index, picture in zip(part, pictures, strict=True):
                    yield index, _as_stored(info, picture.numpy(), size)
                    done += 1
        except (RuntimeError, ValueError, IndexError):
            pass  # PyAV says whether the file is bad
    yield from by_pyav(info, wanted[done:], size, threads)


def in_step(
    decoder: Any, info: VideoInfo, wanted: Sequence[int]
) -> Iterator[tuple[Sequence[int], UInt8[Tensor, "F C height width"]]]:
    """The wanted frames, a few at a time, on the decoder's device; it ends at the first whose time is not as probed."""
    for first in range(0, len(wanted), AT_A_TIME):
        part = list(wanted[first : first + AT_A_TIME])
        batch = decoder.get_frames_at(indices=part)
        if np.abs(batch.pts_seconds.cpu().numpy() - (info.times[part] + info.start)).max() > SAME_TIME:
            return
        yield part, batch.data


def video_decoder() -> Any:
    """torchcodec's class.

    Raises:
        ConfigError: torchcodec is not installed, or does not load.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            "The decoder 'torchcodec' cannot be loaded. Install it with `pip install 'uptal[torchcodec]'` beside a "
            f"system FFmpeg (versions 4 to 8), or use the decoder 'pyav', which gives the same frames. It said: {error}"
        ) from error
    return VideoDecoder


def _as_stored(
    info: VideoInfo, picture: UInt8[np.ndarray, "C height width"], size: tuple[int, int]
) -> UInt8[np.ndarray, "C H W"]:
    """Takes back the turn that torchcodec has applied (it knows quarter turns, but no mirror images), and scales."""
    stored = np.rot90(picture, -info.rotation // 90, axes=(1, 2))
    if stored.shape[1:] == size:
        return stored
    native = torch.from_numpy(np.ascontiguousarray(stored))
    return interpolate(native[None], size, mode="bilinear", antialias=True)[0].numpy()
