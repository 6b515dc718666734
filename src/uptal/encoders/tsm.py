"""TSM: a 2-D ResNet whose blocks shift some channels to the neighbouring frames. Weights in circulation are for
`tsm_weights`.

Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019: shift in the residual branch of
every block, an eighth of the channels in each direction.

Letters: N clips, C channels, T frames, H height, W width, D feature width, K classes, M = N * T pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
MIDDLE = (64, 128, 256, 512)
CLIP = ClipSpec(frames=8, stride=8, size=224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Eight pictures. The authors spread them over the whole video, or take every eighth frame (dense)."""


@dataclass(frozen=True, kw_only=True)
class TSMConfig:
    """Options of `TSM`."""

    depth: Literal[18, 50] = 50
    """Layers of the ResNet."""
    shift_div: int = 8
    """One part in so many of the channels comes from the next frame, and as much from the frame before."""
    num_classes: int = 0
    """Classes of the optional classifier `fc`; 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ConfigError(f"TSM: depth must be 18 or 50, found {self.depth}.")
        if self.shift_div < 2:
            raise ConfigError(f"TSM: shift_div must be at least 2, found {self.shift_div}.")
        if self.num_classes < 0:
            raise ConfigError(f"TSM: num_classes must be 0 or more, found {self.num_classes}.")


class TSM(nn.Module):
    """Stem, pool, four stages, the mean over space and over frames."""

    Config: ClassVar = TSMConfig
    native: ClassVar[ClipSpec] = CLIP
    variants: ClassVar[Mapping[str, TSMConfig]] = {
        "TSM-ResNet18": TSMConfig(depth=18),
        "TSM-ResNet50": TSMConfig(),
    }

    def __init__(self, config: TSMConfig = TSMConfig()):
        super().__init__()
        self.config = config
        expansion = 4 if config.depth == 50 else 1
        self.width = MIDDLE[-1] * expansion
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, (middle, count) in enumerate(zip(MIDDLE, BLOCKS[config.depth], strict=True)):
            inputs = [channels, *[middle * expansion] * (count - 1)]
            strides = [2 if stage else 1] + [1] * (count - 1)
            blocks = [
                Block(c, middle, expansion, stride, config.shift_div) for c, stride in zip(inputs, strides, strict=True)
            ]
            self.add_module(f"layer{stage + 1}", Stage(blocks))
            channels = middle * expansion
        self.fc = nn.Linear(self.width, config.num_classes) if config.num_classes else None

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D T h w"]:
        """The last feature map: D = 512 or 2048, all frames, h and w = H or W / 32, rounded up."""
        count, _, frames = x.shape[:3]
        pictures = x.transpose(1, 2).flatten(0, 1)
        y = self.maxpool(F.relu(self.bn1(self.conv1(pictures)), inplace=True))
        for stage in range(4):
            y = self.get_submodule(f"layer{stage + 1}")(y, frames)
        return y.unflatten(0, (count, frames)).transpose(1, 2)

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.trunk(x).mean(dim=(2, 3, 4))

    def classify(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Class scores (before softmax); those of a clip are the mean over its frames, as the classifier is affine."""
        if self.fc is None:
            raise ValueError("This TSM was built without a classifier: set num_classes.")
        return self.fc(features)


class Stage(nn.ModuleList):
    """Blocks in a row, all of which need to know how many frames make a clip."""

    def forward(self, x: Float[Tensor, "M C H W"], frames: int) -> Float[Tensor, "M c h w"]:
        for block in self:
            x = block(x, frames)
        return x


class Block(nn.Module):
    """A basic block (expansion 1) or a bottleneck (4) whose first convolution sees shifted channels."""

    def __init__(self, in_channels: int, middle: int, expansion: int, stride: int, shift_div: int):
        super().__init__()
        self.shift_div = shift_div
        out_channels, deep = middle * expansion, expansion > 1
        kernel = 1 if deep else 3
        self.conv1 = nn.Conv2d(in_channels, middle, kernel, 1 if deep else stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride if deep else 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out_channels, 1, bias=False) if deep else None
        self.bn3 = nn.BatchNorm2d(out_channels) if deep else None
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Float[Tensor, "M C H W"], frames: int) -> Float[Tensor, "M c h w"]:
        y = F.relu(self.bn1(self.conv1(shift(x, frames, self.shift_div))), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.conv3 is not None and self.bn3 is not None:
            y = self.bn3(self.conv3(F.relu(y, inplace=True)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(y + shortcut, inplace=True)


def shift(x: Float[Tensor, "M C H W"], frames: int, shift_div: int) -> Float[Tensor, "M C H W"]:
    """The first fold of channels from the next frame, the second from the frame before; zeros beyond the ends."""
    fold = x.shape[1] // shift_div
    clips = x.unflatten(0, (-1, frames))
    shifted = clips.clone()
    shifted[:, :, : 2 * fold] = 0
    shifted[:, :-1, :fold] = clips[:, 1:, :fold]
    shifted[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    return shifted.flatten(0, 1)


Encoder = TSM
