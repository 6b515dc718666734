"""Decodes chosen frames on an NVIDIA GPU (NVDEC), through torchcodec; nothing here is imported without need.

The GPU decodes, converts to RGB and shrinks; small pictures come back, so whoever asked sees no difference but in
rounding. What the GPU does not decode (deep colour, codes that it does not know, pictures that are stored turned, files
whose time stamps cannot be trusted) PyAV reads instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from uptal.errors import ConfigError
from uptal.video.decoding import Picture
from uptal.video.decoding import stored_pictures as by_pyav
from uptal.video.packs import source_of
from uptal.video.probing import VideoInfo
from uptal.video.with_torchcodec import in_step, video_decoder

_INSTEAD = "Use the decoder 'pyav' or 'torchcodec', which work on the CPU."


def stored_pictures(
    info: VideoInfo, wanted: Sequence[int], size: tuple[int, int], threads: int = 1
) -> Iterator[tuple[int, Picture]]:
    """As `uptal.video.decoding.stored_pictures`, on the GPU that is PyTorch's current one in this thread.

    Raises:
        VideoError: As there.
        ConfigError: There is no GPU, no NVDEC, or no torchcodec that can use it.
    """
    decoder_type, done = _decoder_type(), 0
    device = f"cuda:{torch.cuda.current_device()}"
    if info.common_colours and info.stamps is not None and not any(info.flips):
        try:
            decoder = decoder_type(source_of(info.path), stream_index=info.stream, device=device, seek_mode="exact")
            if _on_gpu(decoder):
                for part, pictures in in_step(decoder, info, wanted):
                    for index, picture in zip(part, shrunk(pictures, size).cpu().numpy(), strict=True):
                        yield index, picture
                        done += 1
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # of the GPU; PyAV cannot know better
        except (RuntimeError, ValueError, IndexError) as error:
            _, found, device_named = str(error).partition("Unsupported device")
            if found:
                raise ConfigError(
                    "The decoder 'nvdec' needs a torchcodec that was built for CUDA, and the one that is installed was "
                    f"not (unsupported device{device_named}). Install the build for your PyTorch. {_INSTEAD}"
                ) from error
    yield from by_pyav(info, wanted[done:], size, threads)  # which also says whether the file is bad


def shrunk(pictures: UInt8[Tensor, "F C height width"], size: tuple[int, int]) -> UInt8[Tensor, "F C H W"]:
    """Bilinear without aliasing, as `uptal.video.with_torchcodec` has it, in float32: the 8-bit kernel is the CPU's."""
    if pictures.shape[-2:] == size:
        return pictures
    exact = interpolate(pictures.float(), size, mode="bilinear", antialias=True)
    return exact.round_().clamp_(0, 255).to(torch.uint8)


def _decoder_type() -> Any:
    if not torch.cuda.is_available():
        raise ConfigError(
            f"The decoder 'nvdec' needs an NVIDIA GPU, and PyTorch {torch.__version__} finds none on this machine. "
            + _INSTEAD
        )
    return video_decoder()


def _on_gpu(decoder: Any) -> bool:
    """Whether NVDEC decodes this video; what it does not know torchcodec would decode on the CPU.

    Raises:
        ConfigError: NVDEC is not there at all.
    """
    status = decoder.cpu_fallback
    if status and "nvcuvid" in str(status).lower():
        raise ConfigError(
            f"The decoder 'nvdec' finds no NVDEC on this machine ({status}). The driver brings it as libnvcuvid; in a "
            f"container it takes the driver capability 'video'. {_INSTEAD}"
        )
    return not status
