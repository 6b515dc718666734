"""S3D and S3D-G: Inception-I3D with separable convolutions, without and with gates. Weights in circulation are for
`s3d_weights`.

Xie et al., "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification", ECCV 2018.
The networks that go by these names differ in padding, epsilon, stem and gates; `form` says which one is meant.

Letters: N clips, C channels, T frames, H height, W width, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError

Form = Literal["coclr", "coclr_gated", "kinetics", "rspnet"]
Triple = tuple[int, int, int]

MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Channels into each block, and of its convolutions in the order b0, b1a, b1b, b2a, b2b, b3b."""

STAGES = (
    "Conv_1a",
    "MaxPool_2a",
    "Conv_2b",
    "Conv_2c",
    "MaxPool_3a",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool_4a",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool_5a",
    "Mixed_5b",
    "Mixed_5c",
)
"""Names of the stages in order."""


@dataclass(frozen=True, kw_only=True)
class S3DConfig:
    """Options of `S3D`."""

    form: Form = "coclr"
    """`coclr`: S3D as CoCLR trained it, epsilon 1e-5. `coclr_gated`: its S3D-G, a gate on each of the four branches.
    `kinetics`: the supervised S3D of kylemin and torchvision, epsilon 1e-3. `rspnet`: its S3D-G, a gate after every
    separable convolution, and a stem whose spatial convolution already drops every other frame."""
    num_classes: int = 0
    """Classes of the optional classifier `fc`; 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.form not in CLIPS:
            raise ConfigError(f"S3D: form must be one of {', '.join(CLIPS)}, found {self.form!r}.")
        if self.num_classes < 0:
            raise ConfigError(f"S3D: num_classes must be 0 or more, found {self.num_classes}.")


class S3D(nn.Module):
    """Stem, nine Inception blocks, the mean over time and space."""

    Config: ClassVar = S3DConfig
    variants: ClassVar[Mapping[str, S3DConfig]]

    def __init__(self, config: S3DConfig | None = None):
        super().__init__()
        self.config = config = S3DConfig() if config is None else config
        self.width = 1024
        gated = config.form == "rspnet"
        for name in STAGES:
            self.add_module(name, _stage(name, config.form, gated))
        self.fc = nn.Linear(self.width, config.num_classes) if config.num_classes else None
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = 1e-3 if config.form in ("kinetics", "rspnet") else 1e-5

    @property
    def native(self) -> ClipSpec:
        """What the released weights of this form were trained on."""
        return CLIPS[self.config.form]

    def trunk(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The last feature map: D = 1024, t about T / 8, h and w about H or W / 32 (112 pixels end in 3)."""
        for name in STAGES:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D"]:
        """Features of normalised RGB clips."""
        return self.trunk(x).mean(dim=(2, 3, 4))

    def classify(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N K"]:
        """Class scores (before softmax) of features."""
        if self.fc is None:
            raise ValueError("This S3D was built without a classifier: set num_classes.")
        return self.fc(features)


class Unit(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1)):
        super().__init__()
        padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Separable(nn.Module):
    """A spatial and a temporal unit, and in some networks a gate."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, gated: bool = False):
        super().__init__()
        self.spatial = Unit(in_channels, out_channels, (1, kernel, kernel))
        self.temporal = Unit(out_channels, out_channels, (kernel, 1, 1))
        self.gate = Gate(out_channels) if gated else nn.Identity()

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c t h w"]:
        return self.gate(self.temporal(self.spatial(x)))


class Gate(nn.Module):
    """Each channel times a number in [0, 1] that follows from the mean of all channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C T H W"]:
        return x * self.fc(x.mean(dim=(2, 3, 4))).sigmoid()[:, :, None, None, None]


class MaxPool(nn.Module):
    """Max pool with fixed padding; a window larger than the map takes all of the map."""

    def __init__(self, kernel: Triple, stride: Triple, padding: Triple):
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C t h w"]:
        fits = zip(self.kernel, x.shape[2:], self.padding, strict=True)
        kernel = [min(window, size + 2 * pad) for window, size, pad in fits]
        return F.max_pool3d(x, kernel, self.stride, self.padding)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 then separable, twice; max pool then 1x1x1. Gates may follow each."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], *, gated_units: bool, gated_branches: bool):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(in_channels, b0)
        self.b1a = Unit(in_channels, b1a)
        self.b1b = Separable(b1a, b1b, gated=gated_units)
        self.b2a = Unit(in_channels, b2a)
        self.b2b = Separable(b2a, b2b, gated=gated_units)
        self.b3a = nn.MaxPool3d(3, 1, 1)
        self.b3b = Unit(in_channels, b3b)
        for number, channels in enumerate((b0, b1b, b2b, b3b)):
            self.add_module(f"gate{number}", Gate(channels) if gated_branches else nn.Identity())

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c T H W"]:
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))
        return torch.cat([self.get_submodule(f"gate{number}")(branch) for number, branch in enumerate(branches)], 1)


def _stage(name: str, form: Form, gated: bool) -> nn.Module:
    match name:
        case "Conv_1a":
            stem = Separable(3, 64, 7, gated=gated)
            early = form == "rspnet"  # the frame rate is halved before any temporal filter
            stem.spatial.conv.stride = (2, 2, 2) if early else (1, 2, 2)
            stem.temporal.conv.stride = (1, 1, 1) if early else (2, 1, 1)
            return stem
        case "Conv_2b":
            return Unit(64, 64)
        case "Conv_2c":
            return Separable(64, 192, gated=gated)
        case "MaxPool_2a" | "MaxPool_3a":
            return MaxPool((1, 3, 3), (1, 2, 2), (0, 1, 1))
        case "MaxPool_4a":
            return MaxPool((3, 3, 3), (2, 2, 2), (1, 1, 1))
        case "MaxPool_5a":
            return MaxPool((2, 2, 2), (2, 2, 2), (0, 0, 0))
    return Inception(*MIXED[name], gated_units=gated, gated_branches=form == "coclr_gated")


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COCLR = ClipSpec(frames=32, stride=1, size=128, resize=146, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Clips of CoCLR; it crops at random from whole frames, the short side is 8/7 of the crop here."""
KYLEMIN = ClipSpec(frames=64, stride=1, size=224, resize=256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Clips of kylemin's weights: RGB in [-1, 1]."""
RSPNET = ClipSpec(frames=16, stride=1, size=224, resize=256, mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""Clips of RSPNet's S3D-G."""

CLIPS: dict[Form, ClipSpec] = {"coclr": COCLR, "coclr_gated": COCLR, "kinetics": KYLEMIN, "rspnet": RSPNET}

S3D.variants = {
    "S3D (CoCLR)": S3DConfig(),
    "S3D-G (CoCLR)": S3DConfig(form="coclr_gated"),
    "S3D (kylemin, torchvision)": S3DConfig(form="kinetics"),
    "S3D-G (RSPNet)": S3DConfig(form="rspnet"),
}

Encoder = S3D
