"""Inception-I3D, the encoder of the paper; weights in circulation are for `i3d_weights`.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017. Module names are those of the PyTorch checkpoints in
circulation (`rgb_imagenet.pt` and kin), so their state dictionaries load as they are.

Letters: N clips, C channels, T frames, H height, W width, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.encoders.folding import folded
from uptal.errors import ConfigError

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class I3DConfig:
    """Options of `I3D`; none of them changes the shape of a weight of the trunk."""

    num_classes: int = 0
    """Classes of the optional classifier `logits`; 0 leaves it out."""
    final_temporal_stride: int = 2
    """Temporal stride of the last pool. 2 is stock I3D, one step in time for 8 frames; 1 keeps two steps and costs 2 %
    more, which is what the 3.6 GFLOPs of Table 1 amount to."""

    def __post_init__(self) -> None:
        if self.num_classes < 0:
            raise ConfigError(f"I3D: num_classes must be 0 or more, found {self.num_classes}.")
        if self.final_temporal_stride not in (1, 2):
            raise ConfigError(f"I3D: final_temporal_stride must be 1 or 2, found {self.final_temporal_stride}.")


class I3D(nn.Module):
    """Inception-I3D, its fixed 2x7x7 pool (more than 8 frames of 112x112 can fill) made a global average."""

    Config: ClassVar = I3DConfig
    native: ClassVar[ClipSpec] = ClipSpec(frames=8, stride=2, size=112, resize=128)
    variants: ClassVar[Mapping[str, I3DConfig]] = {
        "I3D": I3DConfig(),
        "I3D, time kept in the last pool": I3DConfig(final_temporal_stride=1),
    }

    def __init__(self, config: I3DConfig = I3DConfig()):
        super().__init__()
        self.config = config
        self.width = 1024
        stages = _stages(config.final_temporal_stride)
        self._order = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.logits = Logits(self.width, config.num_classes) if config.num_classes else None

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The last feature map: D = 1024, t = ceil(T / 8) (T / 4 with final stride 1), h and w = ceil(H or W / 32)."""
        for name in self._order:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips: the mean of the trunk over time and space."""
        return self.trunk(x).mean(dim=(2, 3, 4))

    def classify(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Class scores (before softmax) of pooled features; the classifier is affine, so the order does not matter."""
        if self.logits is None:
            raise ValueError("This I3D was built without a classifier: set num_classes.")
        return self.logits(features[:, :, None, None, None])[:, :, 0, 0, 0]


class Unit3D(nn.Module):
    """Convolution without bias, batch norm, ReLU. TensorFlow's SAME padding."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d: nn.Module = nn.Conv3d(
            in_channels, out_channels, kernel, stride, padding=_fixed_padding(kernel, stride), bias=False
        )
        self.bn: nn.Module = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        if self.stride > 1:
            x = pad_same(x, (self.kernel,) * 3, (self.stride,) * 3)
        return F.relu(self.bn(self.conv3d(x)), inplace=True)

    def fold(self) -> None:
        """Puts the norm into the convolution, for good; see `ClipEncoder`."""
        if isinstance(self.conv3d, nn.Conv3d) and isinstance(self.bn, nn.BatchNorm3d):
            self.conv3d, self.bn = folded(self.conv3d, self.bn), nn.Identity()


class MaxPool3d(nn.Module):
    """Max pool with TensorFlow's SAME padding.

    Its inputs come from ReLU, so zeros around them change nothing and need not be written: the pool pads the front, and
    where the back is one longer, its last window hangs over the end. Only stride 1 leaves no room for that.
    """

    def __init__(self, kernel: Triple, stride: Triple):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C t h w"]:
        totals = same_padding(x.shape[2:], self.kernel, self.stride)
        if any(total % 2 and stride == 1 for total, stride in zip(totals, self.stride, strict=True)):
            return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)
        return F.max_pool3d(x, self.kernel, self.stride, [total // 2 for total in totals], ceil_mode=True)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 then 3x3x3, twice; max pool then 1x1x1."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit3D(in_channels, b0)
        self.b1a = Unit3D(in_channels, b1a)
        self.b1b = Unit3D(b1a, b1b, 3)
        self.b2a = Unit3D(in_channels, b2a)
        self.b2b = Unit3D(b2a, b2b, 3)
        self.b3a = MaxPool3d((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(in_channels, b3b)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c T H W"]:
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class Logits(nn.Module):
    """The classifier: a 1x1x1 convolution with bias."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.conv3d = nn.Conv3d(width, num_classes, 1)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N K T H W"]:
        return self.conv3d(x)


def same_padding(sizes: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> list[int]:
    """Total SAME padding of each dimension, so that the output has ceil(size / stride) steps.

    >>> same_padding((8, 112, 7), (7, 7, 3), (2, 2, 2))
    [5, 5, 2]
    """
    return [max(k - (n % s or s), 0) for n, k, s in zip(sizes, kernel, stride, strict=True)]


def pad_same(
    x: Float[Tensor, "N C T H W"], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> Float[Tensor, "N C t h w"]:
    """Zeros around the clip, the odd one at the back."""
    totals = same_padding(x.shape[2:], kernel, stride)
    pads = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return F.pad(x, pads) if any(pads) else x


def _fixed_padding(kernel: int, stride: int) -> int:
    return kernel // 2 if stride == 1 else 0


def _stages(final_temporal_stride: int) -> dict[str, nn.Module]:
    return {
        "Conv3d_1a_7x7": Unit3D(3, 64, 7, 2),
        "MaxPool3d_2a_3x3": MaxPool3d((1, 3, 3), (1, 2, 2)),
        "Conv3d_2b_1x1": Unit3D(64, 64),
        "Conv3d_2c_3x3": Unit3D(64, 192, 3),
        "MaxPool3d_3a_3x3": MaxPool3d((1, 3, 3), (1, 2, 2)),
        "Mixed_3b": Inception(192, (64, 96, 128, 16, 32, 32)),
        "Mixed_3c": Inception(256, (128, 128, 192, 32, 96, 64)),
        "MaxPool3d_4a_3x3": MaxPool3d((3, 3, 3), (2, 2, 2)),
        "Mixed_4b": Inception(480, (192, 96, 208, 16, 48, 64)),
        "Mixed_4c": Inception(512, (160, 112, 224, 24, 64, 64)),
        "Mixed_4d": Inception(512, (128, 128, 256, 24, 64, 64)),
        "Mixed_4e": Inception(512, (112, 144, 288, 32, 64, 64)),
        "Mixed_4f": Inception(528, (256, 160, 320, 32, 128, 128)),
        "MaxPool3d_5a_2x2": MaxPool3d((2, 2, 2), (final_temporal_stride, 2, 2)),
        "Mixed_5b": Inception(832, (256, 160, 320, 32, 128, 128)),
        "Mixed_5c": Inception(832, (384, 192, 384, 48, 128, 128)),
    }


Encoder = I3D
