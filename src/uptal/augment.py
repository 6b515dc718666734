"""Random crop, flip, colour and blur on the device: one draw for all frames of a role, one pass for the whole batch.

Crop, antialiased resize, flip and Gaussian blur are linear and separable, so they fold into two small matrices a sample
(rows and columns); brightness, contrast, saturation and hue fold into one 3x3 colour matrix. A batch then costs two
matrix products and one colour product, without a loop over samples. Pictures lie rows first (H C F W) meanwhile: with
rows and columns as the first and the last axis, one large product serves all pictures of a sample. On a CPU that is
still more arithmetic than the few pixels that have a say need: `resize` "fast" asks for PyTorch's 8-bit kernel there.

Letters: B samples, F frames (all axes between the first and C), C colours, H W decoded size, h w output size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from uptal.errors import ConfigError

_BLUR_REACH = 12
"""Pixels on either side that a blur looks at: three standard deviations of the widest."""

_GREY = (0.299, 0.587, 0.114)
"""Luma weights of ITU-R BT.601, as PIL, torchvision and kornia use them."""
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""From red, green and blue to luma and the plane in which hue turns."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Spatial augmentation (Sec. 3.2.1 names the four operations and no numbers; the numbers are CoCLR's)."""

    size: int = 112
    """Height and width that the encoder sees (Sec. 4.1.1)."""
    area: tuple[float, float] = (0.2, 1.0)
    """Share of the picture that a crop keeps. The paper does not say."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of a crop. The paper does not say."""
    flip: float = 0.5
    """Probability of a horizontal flip. The paper does not say."""
    jitter: float = 0.8
    """Probability of colour jitter. The paper does not say."""
    brightness: float = 0.4
    """Brightness factor from [1 - x, 1 + x]."""
    contrast: float = 0.4
    """Contrast factor from [1 - x, 1 + x]."""
    saturation: float = 0.4
    """Saturation factor from [1 - x, 1 + x]."""
    hue: float = 0.1
    """Hue shift from [-x, x] turns of the colour circle."""
    grey: float = 0.0
    """Probability of dropping colour. The paper does not list it."""
    blur: float = 0.5
    """Probability of Gaussian blur. The paper does not say."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur in output pixels, at most 4. The paper does not say."""
    scope: Literal["per_source", "composite"] = "per_source"
    """Augment each source video by itself before blending (four draws a sample), or the finished synthetic video."""
    resize: Literal["exact", "fast"] = "exact"
    """Crops between pixels and float32 arithmetic, or crops of whole pixels, which a CPU resizes in 8 bits, as Pillow
    does, and in less time."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.area[0] <= self.area[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(
                "aug needs size >= 1, 0 < area <= 1 and positive ratios, each range from low to high, found "
                f"size {self.size}, area {self.area}, ratio {self.ratio}."
            )
        if not all(0 <= share <= 1 for share in (self.flip, self.jitter, self.grey, self.blur)):
            raise ConfigError(
                "aug.flip, jitter, grey and blur are probabilities from 0 to 1, found "
                f"{self.flip}, {self.jitter}, {self.grey}, {self.blur}."
            )
        if min(self.brightness, self.contrast, self.saturation) < 0 or not 0 <= self.hue <= 0.5:
            raise ConfigError(
                "aug needs factors of at least 0 and a hue from 0 to 0.5 turns, found brightness "
                f"{self.brightness}, contrast {self.contrast}, saturation {self.saturation}, hue {self.hue}."
            )
        if not 0 <= self.sigma[0] <= self.sigma[1] <= _BLUR_REACH / 3:
            raise ConfigError(f"aug.sigma is a range within [0, {_BLUR_REACH // 3}] output pixels, found {self.sigma}.")


@dataclass(frozen=True)
class AugmentParams:
    """One draw: arrays when drawn for a sample, tensors when a batch was stacked."""

    box: Float[Tensor, "*N 4"] | Float[np.ndarray, "*N 4"]
    """Top, left, height, width of the crop as shares of the picture."""
    flip: Bool[Tensor, "*N"] | Bool[np.ndarray, "*N"]
    """Whether to mirror left and right."""
    colour: Float[Tensor, "*N 4"] | Float[np.ndarray, "*N 4"]
    """Brightness, contrast and saturation factors and the hue shift in turns; 1, 1, 1, 0 changes nothing."""
    sigma: Float[Tensor, "*N"] | Float[np.ndarray, "*N"]
    """Standard deviation of the blur in output pixels; 0 for none."""

    def map(self, change) -> AugmentParams:
        """The same record with `change` applied to every field (stacking, indexing, moving to a device)."""
        return AugmentParams(*(change(getattr(self, field.name)) for field in fields(self)))


def draw(rng: np.random.Generator, count: int, aspect: float, cfg: AugmentConfig) -> AugmentParams:
    """Draws `count` independent augmentations for pictures of width/height `aspect`."""
    jitter = rng.random(count) < cfg.jitter
    factors = [rng.uniform(max(0.0, 1 - x), 1 + x, count) for x in (cfg.brightness, cfg.contrast, cfg.saturation)]
    colour = np.stack([np.where(jitter, f, 1.0) for f in factors] + [rng.uniform(-cfg.hue, cfg.hue, count) * jitter], 1)
    colour[rng.random(count) < cfg.grey, 2] = 0.0
    sigma = rng.uniform(*cfg.sigma, count) * (rng.random(count) < cfg.blur)
    return AugmentParams(
        box=_draw_boxes(rng, count, aspect, cfg).astype(np.float32),
        flip=rng.random(count) < cfg.flip,
        colour=colour.astype(np.float32),
        sigma=sigma.astype(np.float32),
    )


def centre(count: int, aspect: float, share: float = 1.0) -> AugmentParams:
    """The deterministic view: the central square whose side is `share` of the short side, colours untouched."""
    height, width = share * min(1.0, aspect), share * min(1.0, 1 / aspect)
    box = np.array([(1 - height) / 2, (1 - width) / 2, height, width], np.float32)
    return AugmentParams(
        box=np.tile(box, (count, 1)),
        flip=np.zeros(count, bool),
        colour=np.tile(np.array([1, 1, 1, 0], np.float32), (count, 1)),
        sigma=np.zeros(count, np.float32),
    )


def apply(
    frames: UInt8[Tensor, "B *F C H W"] | Float[Tensor, "B *F C H W"],
    params: AugmentParams,
    size: int,
    resize: Literal["exact", "fast"] = "exact",
) -> Float[Tensor, "B *F C size size"]:
    """Augments a batch: every sample by its own draw, all its frames alike.

    In order: crop and resize, flip, blur, brightness, contrast about the frame's mean grey, saturation, hue; values are
    clamped once, at the end.

    Args:
        frames: Decoded pictures, 0 to 255.
        params: One draw a sample, on the device of `frames`.
        size: Output height and width.
        resize: `AugmentConfig.resize`; pictures in float32 and other devices get the crops of whole pixels only.

    Returns:
        Pictures in [0, 1]; a view whose memory is not in the order of its axes.
    """
    height, width = frames.shape[-2:]
    return tables(params, (height, width), size, resize, frames.dtype).on(frames)


@dataclass(frozen=True)
class Tables:
    """What draws do to pictures, worked out once for a batch. H W decoded size, h w output size."""

    size: int
    flip: Bool[Tensor, " B"]
    sigma: Float[Tensor, " B"]
    matrix: Float[Tensor, "B 3 3"]
    """Colours to colours, from 0..255 to what comes out."""
    offset: Float[Tensor, " 3"]
    """Added to them: what black is."""
    grey: Float[Tensor, "B 3 3"]
    """What contrast adds of a frame's mean colour."""
    limits: tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]
    """Black and white."""
    rows: Float[Tensor, "B h H"] | None
    """Crop, resize and blur of rows; None where the 8-bit kernel does it."""
    columns: Float[Tensor, "B w W"] | None
    """The same of columns, and the flip."""
    corners: Int[Tensor, "B 4"] | None
    """For the 8-bit kernel: top, left, height, width in pixels."""

    def at(self, which: slice | Int[Tensor, " N"]) -> Tables:
        """The tables of some of the draws."""
        parts = (self.flip, self.sigma, self.matrix, self.grey, self.rows, self.columns, self.corners)
        flip, sigma, matrix, grey, rows, columns, corners = (None if each is None else each[which] for each in parts)
        assert flip is not None and sigma is not None and matrix is not None and grey is not None
        return Tables(self.size, flip, sigma, matrix, self.offset, grey, self.limits, rows, columns, corners)

    def on(
        self,
        frames: UInt8[Tensor, "N *F C H W"] | Float[Tensor, "N *F C H W"],
        rows: Int[Tensor, " N"] | None = None,
        out: Float[Tensor, "N *F h w C"] | None = None,
    ) -> Float[Tensor, "N *F C h w"]:
        """The pictures of `apply`; `rows` says which draw each sample takes, in ascending order, None its own."""
        if self.corners is None:
            found = (self if rows is None else self.at(rows))._by_products(frames)
            return found if out is None else out.copy_(found.movedim(-3, -1)).movedim(-1, -3)
        counts = [1] * len(frames) if rows is None else rows.bincount(minlength=len(self.flip)).tolist()
        found = torch.empty(*frames.shape[:-3], self.size, self.size, 3) if out is None else out
        self._by_kernel(frames, counts, found)
        return found.movedim(-1, -3)

    def _by_products(self, frames: Tensor) -> Tensor:
        assert self.rows is not None and self.columns is not None
        batch, (height, width) = len(frames), frames.shape[-2:]
        rows_first = frames.reshape(batch, -1, 3, height, width).permute(0, 3, 2, 1, 4)
        pictures = rows_first.to(self.rows.dtype, memory_format=torch.contiguous_format).contiguous()
        pictures = (pictures.view(batch, -1, width) @ self.columns.transpose(1, 2)).view(batch, height, -1)
        pictures = self._recoloured((self.rows @ pictures).view(batch, self.size, 3, -1, self.size))
        return pictures.permute(0, 3, 2, 1, 4).unflatten(1, frames.shape[1:-3])

    def _recoloured(self, pictures: Float[Tensor, "B h 3 F w"]) -> Float[Tensor, "B h 3 F w"]:
        """Brightness, contrast about each frame's mean grey, saturation, hue; clamped."""
        batch, height, _, _, width = pictures.shape
        shift = self.grey @ pictures.mean((1, 4)) + self.offset[:, None]
        shift = shift[:, None, :, :, None].expand(-1, height, -1, -1, width)
        matrix = self.matrix[:, None].expand(-1, height, -1, -1).reshape(-1, 3, 3)
        pixels = pictures.reshape(batch * height, 3, -1)
        mixed = torch.baddbmm(shift.reshape(batch * height, 3, -1), matrix, pixels)
        black, white = (limit[:, None] for limit in self.limits)
        torch.clamp(mixed, black, white, out=mixed)
        return mixed.view(pictures.shape)

    def _by_kernel(
        self, frames: UInt8[Tensor, "N *F C H W"], counts: list[int], out: Float[Tensor, "N *F h w C"]
    ) -> None:
        """On a CPU; each draw is for so many samples. Colours come last in memory, which is how the 8-bit kernel and
        convolutions are fastest."""
        assert self.corners is not None
        side, small = (self.size, self.size), torch.empty(out.shape, dtype=torch.uint8)
        drawn = zip(self.corners.tolist(), self.flip.tolist(), frames.split(counts), small.split(counts), strict=True)
        for (top, left, height, width), flip, before, after in drawn:
            if len(before):
                crop = before.flatten(0, -4)[..., top : top + height, left : left + width]
                resized = F.interpolate(crop, side, mode="bilinear", antialias=True)
                after.flatten(0, -4).copy_((resized.flip(-1) if flip else resized).movedim(1, -1))
        pictures = small.float()
        for draw, part in enumerate(pictures.split(counts)):
            if self.sigma[draw] > 0:
                part.copy_(_blurred(part.flatten(0, -4), self.sigma[draw]).view(part.shape))
        mean = pictures.flatten(-2).sum(-2).unflatten(-1, (-1, 3)).sum(-2) / self.size**2
        grey = self.grey.repeat_interleave(torch.tensor(counts), 0)
        shift = (mean.flatten(1, -2) @ grey.mT + self.offset).tile(self.size)
        parts = (each.split(counts) for each in (pictures, shift, out))
        for matrix, before, added, after in zip(self.matrix[..., None, None], *parts, strict=True):
            if len(before):
                # dilation means nothing to one pixel; it has PyTorch take oneDNN's convolution for few pictures, too
                mixed = F.conv2d(before.flatten(0, -4).movedim(-1, 1), matrix, dilation=2).movedim(1, -1).flatten(2)
                torch.add(mixed, added.flatten(0, -2)[:, None], out=after.flatten(0, -4).flatten(2))
        black, white = (limit.repeat(self.size) for limit in self.limits)
        lines = out.flatten(-2)
        torch.clamp(lines, black, white, out=lines)


def tables(
    params: AugmentParams,
    source: tuple[int, int],
    size: int,
    resize: Literal["exact", "fast"] = "exact",
    dtype: torch.dtype = torch.uint8,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Tables:
    """The tables for pictures of `source` height and width in `dtype`, on the device of `params`.

    What comes out is (x - mean) / std, colour by colour, of the augmented pictures in [0, 1].
    """
    box, flip, colour, sigma = map(torch.as_tensor, (params.box, params.flip, params.colour, params.sigma))
    device = box.device
    shift, scale = (_constant(value, device) for value in (mean, std))
    matrix = _colour_matrix(colour) / scale[:, None]
    darker = colour[:, 0] * (1 - colour[:, 1]) / 255
    grey = darker[:, None, None] * (_constant(_GREY, device) / scale[:, None])
    limits = (-shift / scale, (1 - shift) / scale)
    corners = _whole_pixels(box, *source) if resize == "fast" else None
    if corners is not None and dtype == torch.uint8 and device.type == "cpu":
        return Tables(size, flip, sigma, matrix, limits[0], grey, limits, None, None, corners)
    if corners is not None:
        box = corners / _constant([*source, *source], device)
    blur = _blur_matrix(sigma, size)
    rows = blur @ _resize_matrix(box[:, 0], box[:, 2], source[0], size)
    columns = blur @ _resize_matrix(box[:, 1], box[:, 3], source[1], size)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return Tables(size, flip, sigma, matrix, limits[0], grey, limits, rows, columns, None)


def _whole_pixels(box: Float[Tensor, "B 4"], height: int, width: int) -> Int[Tensor, "B 4"]:
    """Top, left, height, width in pixels: the nearest whole ones, at least one."""
    sides = _constant([height, width], box.device)
    extent = (box[:, 2:] * sides).round().clamp(min=1)
    begin = torch.minimum((box[:, :2] * sides).round(), sides - extent)
    return torch.cat([begin, extent], 1).long()


def _draw_boxes(rng: np.random.Generator, count: int, aspect: float, cfg: AugmentConfig) -> Float[np.ndarray, "N 4"]:
    """Random-resized crops: the first of ten tries that fits, else the largest centred crop of an allowed ratio."""
    tries = (count, 10)
    area = rng.uniform(*cfg.area, tries)
    ratio = np.exp(rng.uniform(math.log(cfg.ratio[0]), math.log(cfg.ratio[1]), tries))
    height, width = np.sqrt(area * aspect / ratio), np.sqrt(area * ratio / aspect)
    fits = np.maximum(height, width) <= 1
    pick, found = (np.arange(count), fits.argmax(axis=1)), np.any(fits, axis=1)
    closest = float(np.clip(aspect, *cfg.ratio))
    height = np.where(found, height[pick], min(1.0, aspect / closest))
    width = np.where(found, width[pick], min(1.0, closest / aspect))
    place = np.where(np.expand_dims(found, 1), rng.random((count, 2)), 0.5)
    return np.stack([place[:, 0] * (1 - height), place[:, 1] * (1 - width), height, width], 1)


def _resize_matrix(
    start: Float[Tensor, " B"], share: Float[Tensor, " B"], source: int, size: int
) -> Float[Tensor, "B h H"]:
    """Triangle-filter resampling of [start, start + share) to `size` points; antialiased when it shrinks.

    Equal to cropping and then `interpolate(mode="bilinear", antialias=True)`: pixels outside the crop have no say.
    """
    begin, extent = start[:, None, None] * source, share[:, None, None] * source
    support = (extent / size).clamp(min=1.0)
    target = begin + (torch.arange(size, device=start.device)[:, None] + 0.5) * extent / size
    pixel = torch.arange(source, device=start.device) + 0.5
    weights = (1 - (pixel - target).abs() / support).clamp(min=0.0)
    inside = (pixel >= begin - 1e-3) & (pixel <= begin + extent + 1e-3)
    weights = torch.where(inside.any(-1, keepdim=True), weights * inside, weights)
    return weights / weights.sum(-1, keepdim=True)


def _blur_matrix(sigma: Float[Tensor, " B"], size: int) -> Float[Tensor, "B h h"]:
    """Gaussian blur with mirrored borders; the identity where sigma is 0."""
    reach = min(size - 1, _BLUR_REACH)
    kernel = _gauss(sigma[:, None], reach)
    place = _mirrored(size, reach, sigma.device).unfold(0, 2 * reach + 1, 1)
    matrix = torch.zeros(len(sigma), size, size, device=sigma.device, dtype=sigma.dtype)
    return matrix.scatter_add(2, place.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, size, -1))


def _gauss(sigma: Float[Tensor, "*#K"], reach: int) -> Float[Tensor, "*K"]:
    taps = torch.arange(-reach, reach + 1, device=sigma.device)
    kernel = torch.exp(-(taps**2) / (2 * sigma.clamp(min=1e-3) ** 2))
    return kernel / kernel.sum(-1, keepdim=True)


def _blurred(pictures: Float[Tensor, "F h w C"], sigma: Float[Tensor, ""]) -> Float[Tensor, "F h w*C"]:
    """The same for one draw, by shifting and adding, as far as the kernel has weight in float32."""
    reach = min(pictures.shape[1] - 1, _BLUR_REACH, math.ceil(6 * float(sigma)))
    kernel = _gauss(sigma, reach).tolist()
    flat = pictures.flatten(2)
    for axis, width in ((1, 1), (2, 3)):
        length, reflected = flat.shape[axis], _mirrored(pictures.shape[1], reach, flat.device)
        if axis == 2:
            reflected = (3 * reflected[:, None] + torch.arange(3)).flatten()
        padded = flat.index_select(axis, reflected)
        flat = padded.narrow(axis, 0, length) * kernel[0]
        for tap, weight in enumerate(kernel[1:], 1):
            flat.add_(padded.narrow(axis, tap * width, length), alpha=weight)
    return flat


def _mirrored(size: int, reach: int, device: torch.device) -> Int[Tensor, " K"]:
    """Pixels from `reach` before the first to `reach` beyond the last, mirrored at both."""
    place = torch.arange(-reach, size + reach, device=device)
    return (size - 1) - ((size - 1) - place.abs()).abs()


def _colour_matrix(colour: Float[Tensor, "B 4"]) -> Float[Tensor, "B 3 3"]:
    """All that is done to colours but for the shift; from 0..255 to 0..1.

    Saturation, then a turn of the chroma plane by `hue` turns; greys stay as they are.
    """
    brightness, contrast, saturation, hue = colour.unbind(1)
    device = colour.device
    grey, eye = _constant(_GREY, device).expand(3, 3), torch.eye(3, device=device)
    to_yiq, from_yiq = _constant(_YIQ, device), torch.linalg.inv(torch.tensor(_YIQ)).to(device, non_blocking=True)
    angle = 2 * math.pi * hue
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, zero, zero, zero, angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos()], 1)
    rotate = from_yiq @ turn.reshape(-1, 3, 3) @ to_yiq
    saturate = saturation[:, None, None] * eye + (1 - saturation[:, None, None]) * grey
    return rotate @ saturate * (brightness * contrast / 255)[:, None, None]


def _constant(values: Sequence[float | int] | Sequence[Sequence[float]], device: torch.device) -> Float[Tensor, "..."]:
    """Numbers on a device, for which no GPU is waited: `torch.tensor(values, device=...)` waits."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)
