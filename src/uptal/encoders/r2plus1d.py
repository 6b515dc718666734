"""R(2+1)D: residual networks whose 3-D convolutions are a spatial one, a norm and a temporal one. Weights in
circulation are for `r2plus1d_weights`.

Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018. The networks that go by
this name differ in how many channels lie between the two convolutions; their weights do not fit each other.

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

WIDTHS = (64, 128, 256, 512)
BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
"""Statistics of Kinetics-400 that torchvision, VMZ and TSP normalise with."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Rule = Literal["torchvision", "vmz", "rspnet"]
Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class R2Plus1DConfig:
    """Options of `R2Plus1D`."""

    depth: Literal[10, 18, 34] = 18
    """Layers. RSPNet released what it calls R(2+1)D with one block a stage, which is 10."""
    rule: Rule = "torchvision"
    """Channels between the two convolutions: `torchvision` computes them once a block, from its input (VideoMoCo);
    `vmz` for each convolution (XDC, TSP, ig65m), with a batch norm epsilon of 1e-3; `rspnet` as `vmz`, also in the stem
    and in the shortcuts, which are (2+1)D themselves."""
    num_classes: int = 0
    """Classes of the optional classifier `fc`; 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ConfigError(f"R2Plus1D: depth must be one of {', '.join(map(str, BLOCKS))}, found {self.depth}.")
        if self.rule not in ("torchvision", "vmz", "rspnet"):
            raise ConfigError(f"R2Plus1D: rule must be torchvision, vmz or rspnet, found {self.rule!r}.")
        if self.num_classes < 0:
            raise ConfigError(f"R2Plus1D: num_classes must be 0 or more, found {self.num_classes}.")


class R2Plus1D(nn.Module):
    """Stem, four stages of basic blocks, the mean over time and space."""

    Config: ClassVar = R2Plus1DConfig
    variants: ClassVar[Mapping[str, R2Plus1DConfig]] = {
        "R(2+1)D-18 (torchvision)": R2Plus1DConfig(),
        "R(2+1)D-18 (VMZ)": R2Plus1DConfig(rule="vmz"),
        "R(2+1)D-34 (VMZ)": R2Plus1DConfig(depth=34, rule="vmz"),
        "R(2+1)D-10 (RSPNet)": R2Plus1DConfig(depth=10, rule="rspnet"),
    }

    def __init__(self, config: R2Plus1DConfig = R2Plus1DConfig()):
        super().__init__()
        self.config = config
        self.width = WIDTHS[-1]
        stem_width = between(3, WIDTHS[0], (3, 7, 7)) if config.rule == "rspnet" else 45
        stem = _pair(3, stem_width, WIDTHS[0], (3, 7, 7), (1, 2, 2))
        self.stem = nn.Sequential(*stem, nn.BatchNorm3d(WIDTHS[0]), nn.ReLU(inplace=True))
        inputs = (WIDTHS[0], *WIDTHS)
        for number, count in enumerate(BLOCKS[config.depth]):
            first = Block(inputs[number], WIDTHS[number], 2 if number else 1, config.rule)
            rest = [Block(WIDTHS[number], WIDTHS[number], 1, config.rule) for _ in range(count - 1)]
            self.add_module(f"layer{number + 1}", nn.Sequential(first, *rest))
        self.fc = nn.Linear(self.width, config.num_classes) if config.num_classes else None
        if config.rule == "vmz":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eps = 1e-3

    @property
    def native(self) -> ClipSpec:
        """What the released weights of these options were trained on."""
        return CLIPS[self.config.depth, self.config.rule]

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The last feature map: D = 512, t = T / 8, h and w = H or W / 16, rounded up."""
        x = self.stem(x)
        for number in range(4):
            x = self.get_submodule(f"layer{number + 1}")(x)
        return x

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.trunk(x).mean(dim=(2, 3, 4))

    def classify(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Class scores (before softmax) of features."""
        if self.fc is None:
            raise ValueError("This R2Plus1D was built without a classifier: set num_classes.")
        return self.fc(features)


class Block(nn.Module):
    """Two (2+1)D convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, rule: Rule):
        super().__init__()
        first = between(in_channels, out_channels)
        second = first if rule == "torchvision" else between(out_channels, out_channels)
        self.conv1 = _unit(in_channels, first, out_channels, stride)
        self.conv1.append(nn.ReLU(inplace=True))
        self.conv2 = _unit(out_channels, second, out_channels, 1)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _shortcut(in_channels, out_channels, stride, rule), nn.BatchNorm3d(out_channels)
            )

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv2(self.conv1(x)) + shortcut, inplace=True)


def between(in_channels: int, out_channels: int, kernel: Triple = (3, 3, 3)) -> int:
    """Channels between the two convolutions, so that the pair has as many weights as the 3-D one it replaces.

    >>> between(64, 64), between(64, 128), between(3, 64, (3, 7, 7))
    (144, 230, 83)
    """
    t, h, w = kernel
    return t * h * w * in_channels * out_channels // (h * w * in_channels + t * out_channels)


def _pair(in_channels: int, middle: int, out_channels: int, kernel: Triple, stride: Triple) -> list[nn.Module]:
    t, h, w = kernel
    return [
        nn.Conv3d(in_channels, middle, (1, h, w), (1, *stride[1:]), (0, h // 2, w // 2), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, out_channels, (t, 1, 1), (stride[0], 1, 1), (t // 2, 0, 0), bias=False),
    ]


def _unit(in_channels: int, middle: int, out_channels: int, stride: int) -> nn.Sequential:
    pair = _pair(in_channels, middle, out_channels, (3, 3, 3), (stride, stride, stride))
    return nn.Sequential(nn.Sequential(*pair), nn.BatchNorm3d(out_channels))


def _shortcut(in_channels: int, out_channels: int, stride: int, rule: Rule) -> nn.Module:
    if rule != "rspnet":
        return nn.Conv3d(in_channels, out_channels, 1, stride, bias=False)
    middle = between(in_channels, out_channels, (1, 1, 1))
    return nn.Sequential(*_pair(in_channels, middle, out_channels, (1, 1, 1), (stride, stride, stride)))


VIDEO_MOCO = ClipSpec(frames=32, stride=1, size=112, resize=128, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Clips of VideoMoCo."""
XDC = ClipSpec(frames=32, stride=1, size=224, resize=256, mean=MEAN, std=STD)
"""Clips of XDC as Table 1 counts them; its repository states no normalisation, so this is VMZ's."""
IG65M = ClipSpec(frames=32, stride=1, size=112, resize=128, mean=MEAN, std=STD)
"""Clips of the weights trained on 65 million videos from Instagram."""
TSP = ClipSpec(frames=16, stride=2, size=112, resize=128, mean=MEAN, std=STD)
"""Clips of TSP: 16 frames at 15 a second, which is every second frame of a usual video."""
RSPNET = ClipSpec(frames=16, stride=1, size=112, resize=128, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Clips of RSPNet."""
KINETICS = ClipSpec(frames=16, stride=2, size=112, resize=128, mean=MEAN, std=STD)
"""Clips of torchvision's supervised weights: 16 frames at 15 a second."""

CLIPS: dict[tuple[int, Rule], ClipSpec] = {
    (10, "torchvision"): VIDEO_MOCO,
    (18, "torchvision"): VIDEO_MOCO,
    (34, "torchvision"): VIDEO_MOCO,
    (10, "vmz"): XDC,
    (18, "vmz"): XDC,
    (34, "vmz"): TSP,
    (10, "rspnet"): RSPNET,
    (18, "rspnet"): RSPNET,
    (34, "rspnet"): RSPNET,
}

Encoder = R2Plus1D
