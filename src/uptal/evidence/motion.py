"""A control that learns nothing: how much changes from frame to frame, and where. Not in the paper.

What these few numbers find can be found by motion energy alone; an encoder has to be better to be worth anything.
Letters: N clips, T frames, H height, W width, D = fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError

_SCALE = 10.0
"""Brings the numbers near 1, which is where heads expect features."""


@dataclass(frozen=True, kw_only=True)
class FrameDifferenceConfig:
    """Options of `FrameDifference`."""

    grid: int = 3
    """The picture is divided into this many rows and columns of fields."""

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise ConfigError(f"FrameDifference: grid must be at least 1, found {self.grid}.")


class FrameDifference(nn.Module):
    """Mean change of brightness between neighbouring frames of a clip, field by field."""

    Config: ClassVar = FrameDifferenceConfig
    native: ClassVar[ClipSpec] = ClipSpec(frames=8, stride=2, size=64, resize=72)

    def __init__(self, config: FrameDifferenceConfig = FrameDifferenceConfig()):
        super().__init__()
        self.config, self.width = config, config.grid**2

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips; zeros for clips of one frame."""
        grey = x.mean(1)
        if grey.shape[1] < 2:
            return x.new_zeros(len(x), self.width)
        change = grey.diff(dim=1).abs().mean(1, keepdim=True)
        return _SCALE * F.adaptive_avg_pool2d(change, self.config.grid).flatten(1)
