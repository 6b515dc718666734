"""Drawing of tapered capsules as anti-aliased, shaded distance fields into a run of frames, in numpy.

The arithmetic of a stroke runs over small patches of many frames at once; only the blending goes frame by frame.
Letters: F frames, H W pixels, P patch side; colours are planar, (F, 3, H, W), in 0..255. Points are pixels, y down.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_LIGHT = (-0.42, -0.56, 0.72)
"""Direction towards the light: left, above, before the picture (x right, y down, z to the viewer)."""
_AMBIENT, _DIFFUSE = 0.58, 0.52


def draw_capsule(
    canvas: Float[np.ndarray, "F 3 H W"],
    start: Float[np.ndarray, "F 2"],
    end: Float[np.ndarray, "F 2"],
    radii: Float[np.ndarray, "F 2"],
    colour: Float[np.ndarray, " 3"],
    *,
    stripes: float = 0.0,
    shadow: float = 0.0,
    softness: float = 1.0,
) -> None:
    """Draw one capsule into every frame, in place; radii in pixels at start and end, 0 draws nothing.

    `stripes` is the contrast of bands along the capsule; `shadow` the strength and `softness` the reach in pixels of
    the shade that it throws on what is behind.
    """
    side, corner = _patches(start, end, radii, softness if shadow else 0.0)
    keep, light = _shade(start - corner, end - corner, radii, side, stripes, shadow, softness)
    paint = light[:, None] * colour.astype(np.float32)[None, :, None, None]
    for image, (left, top), factor, addend in zip(canvas, corner.tolist(), keep, paint, strict=True):
        _blend(image, int(left), int(top), factor, addend)


def darken_ellipse(
    canvas: Float[np.ndarray, "F 3 H W"],
    middle: Float[np.ndarray, "F 2"],
    half_axes: Float[np.ndarray, "F 2"],
    strength: Float[np.ndarray, " F"],
) -> None:
    """Lay a soft elliptic shadow on every frame, in place; half axes in pixels (of one standard deviation)."""
    reach = np.ceil(2.5 * half_axes.max(axis=0)).astype(int)
    corner = np.floor(middle) - reach
    x = np.arange(2 * reach[0] + 1, dtype=np.float32) + 0.5
    y = np.arange(2 * reach[1] + 1, dtype=np.float32) + 0.5
    place = (middle - corner).astype(np.float32)
    across = np.exp(-0.5 * ((x - place[:, :1]) / half_axes[:, :1].astype(np.float32)) ** 2)
    along = np.exp(-0.5 * ((y - place[:, 1:]) / half_axes[:, 1:].astype(np.float32)) ** 2)
    keep = 1 - strength[:, None, None].astype(np.float32) * along[:, :, None] * across[:, None, :]
    for image, (left, top), factor in zip(canvas, corner.tolist(), keep, strict=True):
        _blend(image, int(left), int(top), factor, None)


def _patches(start, end, radii, margin: float) -> tuple[int, Float[np.ndarray, "F 2"]]:
    """Side of the square that holds the capsule in every frame, and its top left corner in each."""
    reach = radii.max(axis=1, keepdims=True) + margin + 1.0
    low = np.floor(np.minimum(start, end) - reach)
    high = np.maximum(start, end) + reach
    return int(np.ceil((high - low).max())), low


def _shade(start, end, radii, side: int, stripes: float, shadow: float, softness: float):
    """What the patch keeps of the picture behind, and the light that it adds: (F, P, P) each."""
    start, along, radii = start.astype(np.float32), (end - start).astype(np.float32), radii.astype(np.float32)
    grid = np.arange(side, dtype=np.float32) + 0.5
    x = (grid - start[:, :1])[:, None, :]
    y = (grid - start[:, 1:])[:, :, None]
    along_x, along_y = along[:, 0, None, None], along[:, 1, None, None]
    near, far = radii[:, 0, None, None], radii[:, 1, None, None]
    length = along_x**2 + along_y**2
    if length.max() < 1e-6:
        part, radius = None, np.maximum(near, 1e-3)
    else:
        inverse = 1 / np.maximum(length, 1e-6)
        part = x * (along_x * inverse) + y * (along_y * inverse)
        np.clip(part, 0, 1, out=part)
        radius = np.maximum(near + part * (far - near), 1e-3)
        x, y = x - part * along_x, y - part * along_y
    distance = np.sqrt(x * x + y * y)
    cover = np.clip(radius - distance + 0.5, 0, 1) * np.minimum(near * 2, 1)
    height = np.sqrt(np.maximum(1 - (distance / radius) ** 2, 0))
    slope = (x * _LIGHT[0] + y * _LIGHT[1]) / np.maximum(radius, distance)
    light = _AMBIENT + _DIFFUSE * np.maximum(slope + _LIGHT[2] * height, 0)
    if stripes and part is not None:
        light *= 1 - stripes * (np.sin(part * 22.0) > 0.35)
    keep = 1 - cover
    if shadow:
        shade = np.clip(1 - (distance - radius) / softness, 0, 1) * np.minimum(near * 2, 1)
        keep *= 1 - shadow * shade * shade
    return keep, cover * light


def _blend(image: Float[np.ndarray, "3 H W"], left: int, top: int, factor, addend) -> None:
    """image = image * factor + addend on the part of the patch that lies inside the image."""
    height, width = image.shape[1:]
    rows, columns = factor.shape
    y0, y1, x0, x1 = max(top, 0), min(top + rows, height), max(left, 0), min(left + columns, width)
    if y0 >= y1 or x0 >= x1:
        return
    patch = image[:, y0:y1, x0:x1]
    inside = (..., slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    patch *= factor[inside]
    if addend is not None:
        patch += addend[inside]
