"""A canvas and the few shapes that scenes are painted with; which scene shows what is left to `scenes.py`.

Coordinates are frame heights from the middle, x to the right and y down; a shape is a signed distance, negative inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

FLOOR = 0.2
"""Where wall and floor (or land and sky) meet, in frame heights below the middle."""
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Easel:
    """A canvas under work: colours, coordinates of its pixels, one pixel's width for soft edges."""

    image: Float[np.ndarray, "H W 3"]
    x: Float[np.ndarray, "1 W"]
    y: Float[np.ndarray, "H 1"]
    pixel: float

    def cover(self, colour, distance, alpha: float = 1.0) -> None:
        """Paint where the signed distance (frame heights) is negative, with a soft edge one pixel wide."""
        share = alpha * np.clip(0.5 - distance / self.pixel, 0.0, 1.0)
        share = np.broadcast_to(share, self.image.shape[:2])[..., None]
        self.image[:] = self.image * (1 - share) + share * colour

    def blend(self, colour, share) -> None:
        """Mix a colour in by a share per pixel."""
        share = np.broadcast_to(share, self.image.shape[:2])[..., None]
        self.image[:] = self.image * (1 - share) + share * colour


def stretch(height: int, width: int, margin: int) -> Easel:
    """An empty canvas for frames of height x width pixels with `margin` pixels around them, finer than both."""
    rows, columns = (height + 2 * margin) * _OVERSAMPLING, (width + 2 * margin) * _OVERSAMPLING
    unit = 1.0 / (height * _OVERSAMPLING)
    return Easel(
        image=np.zeros((rows, columns, 3), np.float32),
        x=((np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) * unit)[None, :],
        y=((np.arange(rows, dtype=np.float32) + 0.5 - rows / 2) * unit)[:, None],
        pixel=1.5 * unit,
    )


def frame(easel: Easel) -> UInt8[np.ndarray, "R C 3"]:
    """The finished picture at the resolution of the video."""
    rows, columns = (side // _OVERSAMPLING for side in easel.image.shape[:2])
    small = easel.image.reshape(rows, _OVERSAMPLING, columns, _OVERSAMPLING, 3).mean(axis=(1, 3))
    return np.clip(small, 0, 255).astype(np.uint8)


def gradient(easel: Easel, top, bottom, start: float, end: float) -> None:
    """Fill the canvas from one colour above the height `start` to another below `end`."""
    share = np.clip((easel.y - start) / (end - start), 0, 1)
    easel.image[:] = top + (share * share * (3 - 2 * share))[..., None] * (bottom - top)


def floor(easel: Easel, near, far) -> None:
    """Cover everything below `FLOOR`, fading from the far to the near colour."""
    depth = np.clip((easel.y - FLOOR) / 0.6, 0, 1)
    easel.cover(far + depth[..., None] * (near - far), FLOOR - easel.y)


def disc(easel: Easel, x: float, y: float, radius: float) -> Float[np.ndarray, "H W"]:
    """Signed distance of a disc."""
    return np.hypot(easel.x - x, easel.y - y) - radius


def box(easel: Easel, x: float, y: float, half_width: float, half_height: float) -> Float[np.ndarray, "H W"]:
    """Signed distance (exact inside) of a rectangle."""
    return np.maximum(np.abs(easel.x - x) - half_width, np.abs(easel.y - y) - half_height)
