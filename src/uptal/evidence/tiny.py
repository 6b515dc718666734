"""The encoder of the evidence: four 3-D convolutions for pictures of some 30 pixels.

Letters: N clips, T frames, H W picture, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Options of `Tiny`."""

    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of the convolutions; the last is the width of the feature."""


class Tiny(nn.Module):
    """Convolution, batch norm, ReLU, as many times as there are widths; then the mean over time and space."""

    Config: ClassVar = TinyConfig
    native: ClassVar[ClipSpec] = ClipSpec(frames=8, stride=2, size=32, resize=32)

    def __init__(self, config: TinyConfig = TinyConfig()):
        super().__init__()
        self.config, self.width = config, config.widths[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv3d(before, after, 3, stride=(1 if number == 0 else 2, 2, 2), padding=1, bias=False),
                    nn.BatchNorm3d(after),
                    nn.ReLU(),
                )
                for number, (before, after) in enumerate(pairwise((3, *config.widths)))
            )
        )

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.blocks(x).mean(dim=(2, 3, 4))
