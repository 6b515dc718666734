"""From clips as decoders give them to features: the only place where an encoder runs for extraction.

Letters: N clips, D feature width, T frames of a clip, C H W picture, h w cropped picture.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from uptal.clipspec import ClipSpec
from uptal.device import Precision, move, number_format
from uptal.features.grid import crop
from uptal.pixels import normalise


def make_ready(encoder: nn.Module, device: torch.device, compiled: bool = False) -> Any:
    """The encoder on its device, in evaluation mode and in the memory layout that convolutions like best.

    On a CPU it is a copy, in which parts that can `fold` have done so; elsewhere the encoder itself.

    Args:
        encoder: A `ClipEncoder`.
        device: Where it shall run.
        compiled: Compile it with `torch.compile`: seconds to minutes once, for every shape of batch.
    """
    encoder.eval()
    if device.type == "cpu":
        encoder = copy.deepcopy(encoder)
        for part in [part for part in encoder.modules() if hasattr(part, "fold")]:
            part.fold()  # pyright: ignore[reportCallIssue]
    move(encoder, device)
    if not compiled:
        return encoder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the compiler's own, while it is imported
        return torch.compile(encoder)


@torch.inference_mode()
def encode(
    encoder: Any,
    clips: UInt8[Tensor, "N T C H W"],
    spec: ClipSpec,
    device: torch.device,
    batch: int = 0,
    precision: Precision = "auto",
) -> Float[Tensor, "N D"]:
    """Features of clips as the decoder gives them, in fp32 on the CPU.

    Fewer clips than `batch` are filled up to it: libraries round differently for other batch sizes, and so a clip's
    feature does not depend on how many others it met.
    """
    count = len(clips)
    clips = torch.cat([clips, clips[-1:].expand(max(0, batch - count), -1, -1, -1, -1)])
    pictures = normalise(clips.to(device, non_blocking=True).float() / 255, spec.mean, spec.std)
    pictures = pictures.contiguous(memory_format=torch.channels_last_3d)
    dtype = number_format(precision, device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        return encoder(pictures)[:count].float().cpu()


@torch.inference_mode()
def shrink(frames: UInt8[Tensor, "T C H W"], spec: ClipSpec, device: torch.device) -> UInt8[Tensor, "T C h w"]:
    """Whole pictures to the encoder's size, on its device: bilinear without aliasing, then the middle."""
    height, width = frames.shape[-2:]
    scale = spec.resize / min(height, width)
    size = (max(spec.resize, round(height * scale)), max(spec.resize, round(width * scale)))
    pictures = interpolate(frames.to(device, non_blocking=True).float(), size, mode="bilinear", antialias=True)
    return crop(pictures.round().clamp(0, 255).byte(), spec.size)
