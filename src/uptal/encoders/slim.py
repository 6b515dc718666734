"""A small 3-D residual network that trains on two CPU cores; our own, not in the paper.

Plain 3x3x3 convolutions, which CPU libraries do best, behind a stem that leaves little to do: below 100 M multiply-adds
the first feature maps cost more time than all the arithmetic.

Letters: N clips, C channels, T frames, H height, W width, D feature width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError

BASE_WIDTHS = (16, 32, 64, 128)

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class SlimConfig:
    """Options of `Slim`."""

    width_multiplier: float = 1.0
    """All channels times this; 1 gives 16, 32, 64, 128 and a feature of 128."""

    def __post_init__(self) -> None:
        if not self.width_multiplier >= 1 / BASE_WIDTHS[0]:
            raise ConfigError(
                f"Slim: width_multiplier must be at least 1/{BASE_WIDTHS[0]}, found {self.width_multiplier}."
            )


class Slim(nn.Module):
    """Ten layers: a stem, four residual blocks of two convolutions, the mean over time and space."""

    Config: ClassVar = SlimConfig
    native: ClassVar[ClipSpec] = ClipSpec(frames=8, stride=2, size=64, resize=72)
    variants: ClassVar[Mapping[str, SlimConfig]] = {"Slim": SlimConfig()}

    def __init__(self, config: SlimConfig = SlimConfig()):
        super().__init__()
        self.config = config
        widths = [round(width * config.width_multiplier) for width in BASE_WIDTHS]
        self.width = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv3d(3, widths[0], (3, 7, 7), (2, 4, 4), (1, 3, 3), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        )
        strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))
        self.blocks = nn.Sequential(*map(Residual, [widths[0], *widths], widths, strides))

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The last feature map: t = T / 8, h and w = H or W / 32, rounded up."""
        return self.blocks(self.stem(x))

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.trunk(x).mean(dim=(2, 3, 4))


class Residual(nn.Module):
    """Two 3x3x3 convolutions beside a shortcut, which is a 1x1x1 convolution where shapes change."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.shortcut = nn.Identity()
        if in_channels != out_channels or stride != (1, 1, 1):
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


Encoder = Slim
