"""Weights of S3D and S3D-G in circulation: CoCLR, kylemin, torchvision, RSPNet."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from uptal.encoders.layouts import Layout, Tensors, by_name, classes_in
from uptal.encoders.s3d import COCLR, KYLEMIN, RSPNET, STAGES

_BRANCHES = {"0.0": "b0", "0": "b0", "1.0": "b1a", "1.1": "b1b", "2.0": "b2a", "2.1": "b2b", "3.1": "b3b"}
_TORCHVISION = replace(
    KYLEMIN, frames=128, stride=2, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989)
)
"""Clips of torchvision's weights: 128 frames at 15 a second."""
_RSPNET_STAGES = {"sepConv1": "Conv_1a", "basicConv3d": "Conv_2b", "sep_conv2": "Conv_2c"}


def _coclr_name(name: str) -> str:
    if match := re.fullmatch(r"(Mixed_\w+)\.gating_b(\d)\.fc\.(\w+)", name):
        return f"{match[1]}.gate{match[2]}.fc.{match[3]}"
    name = re.sub(r"\.branch(\d\.\d)\.", lambda match: f".{_BRANCHES[match[1]]}.", name)
    name = re.sub(r"\.(conv|bn)1\.", r".spatial.\1.", name)
    return re.sub(r"\.(conv|bn)2\.", r".temporal.\1.", name)


def _kylemin_name(name: str) -> str:
    if match := re.fullmatch(r"fc\.0\.(\w+)", name):
        return f"fc.{match[1]}"
    name = re.sub(r"^base\.(\d+)\.", lambda match: f"{STAGES[int(match[1])]}.", name)
    name = re.sub(r"\.branch(\d\.\d)\.", lambda match: f".{_BRANCHES[match[1]]}.", name)
    name = re.sub(r"\.(conv|bn)_s\.", r".spatial.\1.", name)
    return re.sub(r"\.(conv|bn)_t\.", r".temporal.\1.", name)


def _torchvision_name(name: str) -> str:
    if match := re.fullmatch(r"classifier\.1\.(\w+)", name):
        return f"fc.{match[1]}"
    match = re.fullmatch(r"features\.(\d+)\.(?:branch(0|1\.0|1\.1|2\.0|2\.1|3\.1)\.)?(?:([01])\.)?([01])\.(\w+)", name)
    if match is None:
        return name
    stage, branch, half, layer, kind = match.groups()
    parts = [STAGES[int(stage)]]
    parts += [_BRANCHES[branch]] if branch else []
    parts += [("spatial", "temporal")[int(half)]] if half else []
    return ".".join([*parts, ("conv", "bn")[int(layer)], kind])


def _rspnet_name(name: str) -> str:
    name = name.removeprefix("feature.")
    name = re.sub(r"^(sepConv1|basicConv3d|sep_conv2)\.", lambda match: f"{_RSPNET_STAGES[match[1]]}.", name)
    name = re.sub(r"^sepInc_(\w+?)\.", r"Mixed_\1.", name)
    name = re.sub(r"\.branch(\d(?:\.\d)?)\.", lambda match: f".{_BRANCHES[match[1]]}.", name)
    name = re.sub(r"\.sep_conv\.([01])\.", lambda match: f".{('spatial', 'temporal')[int(match[1])]}.", name)
    return name.replace(".conv3d.", ".conv.").replace(".excitation.", ".gate.fc.")


def _flat(rename: Callable[[str], str]) -> Callable[[Tensors], dict[str, Tensor]]:
    """A renaming after which classifiers and gates that were 1x1x1 convolutions are linear layers."""

    def apply(tensors: Tensors) -> dict[str, Tensor]:
        named = by_name(rename)(tensors)
        return {k: v.flatten(1) if k.endswith("fc.weight") and v.dim() == 5 else v for k, v in named.items()}

    return apply


def _coclr(tensors: Tensors) -> dict[str, Any]:
    gated = any("gating_b0" in name for name in tensors)
    return {"form": "coclr_gated" if gated else "coclr"}


def _kylemin(tensors: Tensors) -> dict[str, Any]:
    return {"form": "kinetics", "num_classes": classes_in(tensors, "fc.0.weight")}


def _torchvision(tensors: Tensors) -> dict[str, Any]:
    return {"form": "kinetics", "num_classes": classes_in(tensors, "classifier.1.weight")}


def _rspnet(tensors: Tensors) -> dict[str, Any]:
    return {"form": "rspnet", "num_classes": classes_in(tensors, "fc.weight")}


LAYOUTS = (
    Layout(
        name="S3D or S3D-G of CoCLR",
        architecture="s3d",
        anchors=("Conv_1a.conv1.weight",),
        options=_coclr,
        rename=by_name(_coclr_name),
        head="fc.",
        clip=COCLR,
        ignored=r"block\d\.",  # every layer is stored a second time under its block
    ),
    Layout(
        name="S3D of kylemin",
        architecture="s3d",
        anchors=("base.0.conv_s.weight",),
        options=_kylemin,
        rename=_flat(_kylemin_name),
        head="fc.",
        clip=KYLEMIN,
    ),
    Layout(
        name="S3D of torchvision",
        architecture="s3d",
        anchors=("features.0.0.0.weight", "features.15.branch3.1.0.weight"),
        options=_torchvision,
        rename=_flat(_torchvision_name),
        head="classifier.",
        clip=_TORCHVISION,
    ),
    Layout(
        name="S3D-G of RSPNet",
        architecture="s3d",
        anchors=("feature.sepConv1.sep_conv.0.conv3d.weight",),
        options=_rspnet,
        rename=_flat(_rspnet_name),
        head="fc.",
        clip=RSPNET,
    ),
)
