"""How pixels become the input of an encoder: one record that travels with weights and features; it converts nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from uptal.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The clip that an encoder expects. Features are comparable only when this record is the same for all of them.

    >>> ClipSpec(frames=8, stride=2).span
    15
    """

    frames: int = 8
    """Frames of a clip (Sec. 4.1.1)."""
    stride: int = 2
    """Frames of the video from one frame of the clip to the next, when features are extracted. The paper does not say:
    with 2, a clip of 8 sees 15 of 16 frames."""
    size: int = 112
    """Height and width of the crop in pixels (Sec. 4.1.1)."""
    resize: int = 128
    """Length in pixels of the short side before the crop. The paper does not say: 8/7 of `size`."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Subtracted from RGB in [0, 1]. The paper does not say: the usual value for video."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """RGB is divided by this after the subtraction. The paper does not say: the usual value for video."""

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "size", "resize"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"ClipSpec.{name} must be a whole number of at least 1, found {value!r}.")
        if self.resize < self.size:
            raise ConfigError(f"ClipSpec.resize ({self.resize}) must not be smaller than the crop ({self.size}).")
        for name, lowest in (("mean", -math.inf), ("std", 0.0)):
            value = getattr(self, name)
            if len(value) != 3 or not all(math.isfinite(v) and v > lowest for v in value):
                raise ConfigError(f"ClipSpec.{name} must be three numbers, one a colour, found {value!r}.")

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last frame of a clip, both counted."""
        return (self.frames - 1) * self.stride + 1
