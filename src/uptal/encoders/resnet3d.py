"""3-D ResNet-50 in three forms: kenshohara's with 3x3x3 kernels, SlowOnly, and the inflated I3D-R50. Weights in
circulation are for `resnet3d_weights`.

Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?", CVPR 2018; Feichtenhofer et al.,
"SlowFast Networks for Video Recognition", ICCV 2019. Table 7 of PAL says "3D-Res50" without saying which.

Letters: N clips, C channels, T frames, H height, W width, D feature width, K classes.
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

Form = Literal["hara", "slowonly", "i3d"]
Triple = tuple[int, int, int]

BLOCKS = (3, 4, 6, 3)
MIDDLE = (64, 128, 256, 512)
EXPANSION = 4
TEMPORAL = {
    "slowonly": ((1, 1, 1), (1, 1, 1, 1), (3, 3, 3, 3, 3, 3), (3, 3, 3)),
    "i3d": ((3, 3, 3), (3, 1, 3, 1), (3, 1, 3, 1, 3, 1), (1, 3, 1)),
}
"""Temporal kernels of the first convolution of each block; 3x3x3 kernels need none."""


@dataclass(frozen=True, kw_only=True)
class ResNet3DConfig:
    """Options of `ResNet3D`."""

    form: Form = "hara"
    """`hara`: kenshohara's, 3x3x3 kernels, time halved in the pool and in stages 2 to 4. `slowonly`: temporal kernels
    in the last two stages only, all frames kept. `i3d`: every other block temporal, time halved after stage 1."""
    num_classes: int = 0
    """Classes of the optional classifier `fc`; 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.form not in CLIPS:
            raise ConfigError(f"ResNet3D: form must be one of {', '.join(CLIPS)}, found {self.form!r}.")
        if self.num_classes < 0:
            raise ConfigError(f"ResNet3D: num_classes must be 0 or more, found {self.num_classes}.")


class ResNet3D(nn.Module):
    """Stem, pool, sixteen bottlenecks in four stages, the mean over time and space."""

    Config: ClassVar = ResNet3DConfig
    variants: ClassVar[Mapping[str, ResNet3DConfig]]

    def __init__(self, config: ResNet3DConfig | None = None):
        super().__init__()
        self.config = config = ResNet3DConfig() if config is None else config
        self.width = MIDDLE[-1] * EXPANSION
        depth = {"hara": 7, "slowonly": 1, "i3d": 5}[config.form]
        self.conv1 = nn.Conv3d(3, 64, (depth, 7, 7), (1, 2, 2), (depth // 2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        along = config.form == "hara"
        self.maxpool = nn.MaxPool3d(*(((3, 3, 3), 2, 1) if along else ((1, 3, 3), (1, 2, 2), (0, 1, 1))))
        self.timepool = TimePool() if config.form == "i3d" else nn.Identity()
        for stage in range(4):
            self.add_module(f"layer{stage + 1}", _stage(stage, config.form))
        self.fc = nn.Linear(self.width, config.num_classes) if config.num_classes else None

    @property
    def native(self) -> ClipSpec:
        """What the released weights of this form were trained on."""
        return CLIPS[self.config.form]

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The last feature map: D = 2048, h and w = H or W / 32, rounded up; t = T / 16, T or T / 2 by `form`."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.timepool(self.get_submodule("layer1")(x))
        for stage in (2, 3, 4):
            x = self.get_submodule(f"layer{stage}")(x)
        return x

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.trunk(x).mean(dim=(2, 3, 4))

    def classify(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Class scores (before softmax) of features."""
        if self.fc is None:
            raise ValueError("This ResNet3D was built without a classifier: set num_classes.")
        return self.fc(features)


class Bottleneck(nn.Module):
    """Three convolutions, the second with the stride, beside a shortcut."""

    def __init__(self, in_channels: int, middle: int, first: Triple, second: Triple, stride: Triple):
        super().__init__()
        out_channels = middle * EXPANSION
        self.conv1 = nn.Conv3d(in_channels, middle, first, 1, _half(first), bias=False)
        self.bn1 = nn.BatchNorm3d(middle)
        self.conv2 = nn.Conv3d(middle, middle, second, stride, _half(second), bias=False)
        self.bn2 = nn.BatchNorm3d(middle)
        self.conv3 = nn.Conv3d(middle, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.downsample: nn.Module | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn3(self.conv3(y)) + shortcut, inplace=True)


class TimePool(nn.Module):
    """Maximum of every two frames; a single frame stays as it is."""

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C t H W"]:
        return F.max_pool3d(x, (min(2, x.shape[2]), 1, 1), (2, 1, 1))


def _stage(stage: int, form: Form) -> nn.Sequential:
    middle, count = MIDDLE[stage], BLOCKS[stage]
    inputs = [64 if stage == 0 else middle * 2, *[middle * EXPANSION] * (count - 1)]
    step = 2 if stage else 1
    blocks = []
    for number, in_channels in enumerate(inputs):
        space = step if number == 0 else 1
        if form == "hara":
            blocks.append(Bottleneck(in_channels, middle, (1, 1, 1), (3, 3, 3), (space, space, space)))
        else:
            first = (TEMPORAL[form][stage][number], 1, 1)
            blocks.append(Bottleneck(in_channels, middle, first, (1, 3, 3), (1, space, space)))
    return nn.Sequential(*blocks)


def _half(kernel: Triple) -> Triple:
    return kernel[0] // 2, kernel[1] // 2, kernel[2] // 2


HARA = ClipSpec(frames=16, stride=1, size=112, resize=112, mean=(0.4345, 0.4051, 0.3775), std=(0.2768, 0.2713, 0.2737))
"""Clips of kenshohara's weights."""
SLOWONLY = ClipSpec(frames=8, stride=8, size=224, resize=256)
"""Clips of pytorchvideo's weights: 8 frames, every eighth of the video."""

CLIPS: dict[Form, ClipSpec] = {"hara": HARA, "slowonly": SLOWONLY, "i3d": SLOWONLY}

ResNet3D.variants = {
    "3D-ResNet50 (kenshohara)": ResNet3DConfig(),
    "SlowOnly-R50": ResNet3DConfig(form="slowonly"),
    "I3D-R50": ResNet3DConfig(form="i3d"),
}

Encoder = ResNet3D
