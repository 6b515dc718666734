"""Decodes chosen frames with torchcodec (exact seek), for those who have it; nothing here is imported without need.

The frames are the same as PyAV's. Where torchcodec would give others (deep colour, which it converts in its own way;
files whose time stamps cannot be trusted) or fails on a healthy file, PyAV reads them instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from av.video.format import VideoFormat

from uptal.errors import ConfigError
from uptal.video.decoding import Stored
from uptal.video.decoding import stored_pictures as by_pyav
from uptal.video.probing import VideoInfo

AT_A_TIME = 8
"""Pictures of full size that are held at once."""

SAME_TIME = 1e-4
"""Seconds by which the time stamp of a frame may differ from the one that `probe` found: rounding only."""


def stored_pictures(info: VideoInfo, wanted: Sequence[int], threads: int = 1) -> Iterator[tuple[int, Stored]]:
    """As `uptal.video.decoding.stored_pictures`.

    Raises:
        VideoError: As there.
        ConfigError: torchcodec is not installed, or does not load.
    """
    decoder_type = _decoder_type()
    done = 0
    if _agrees_with_pyav(info):
        try:
            decoder = decoder_type(info.path, stream_index=info.stream, num_ffmpeg_threads=threads, seek_mode="exact")
            while done < len(wanted):
                part = wanted[done : done + AT_A_TIME]
                batch = decoder.get_frames_at(indices=list(part))
                expected = info.times[list(part)] + info.start
                if np.abs(batch.pts_seconds.numpy() - expected).max() > SAME_TIME:
                    break
                for index, picture in zip(part, batch.data, strict=True):
                    yield index, _as_stored(info, picture.permute(1, 2, 0).numpy())
                    done += 1
        except (RuntimeError, ValueError, IndexError):  # what torchcodec raises on files; PyAV says whether they are bad
            pass
    yield from by_pyav(info, wanted[done:], threads)


def _decoder_type():
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigError(
            "The decoder 'torchcodec' cannot be loaded. Install it with `pip install 'uptal[torchcodec]'` beside a system "
            f"FFmpeg (versions 4 to 8), or use the decoder 'pyav', which gives the same frames. It said: {error}"
        ) from error
    return VideoDecoder


def _agrees_with_pyav(info: VideoInfo) -> bool:
    depth = max(component.bits for component in VideoFormat(info.pixel_format).components)
    return info.stamps is not None and depth <= 8


def _as_stored(info: VideoInfo, picture: Stored) -> Stored:
    """Takes back the turn that torchcodec has applied; it knows quarter turns, but no mirror images."""
    return np.rot90(picture, -info.rotation // 90)
