"""Weights of R(2+1)D in circulation: torchvision, VideoMoCo, XDC, ig65m, TSP, RSPNet."""

from __future__ import annotations

import re
from typing import Any

from uptal.encoders.layouts import Layout, Tensors, by_name, classes_in
from uptal.encoders.r2plus1d import IG65M, KINETICS, RSPNET, TSP, VIDEO_MOCO, XDC, between

_UNITS = {"spatial_conv": "0", "bn": "1", "temporal_conv": "3"}


def _options(tensors: Tensors, rule: str, start: str = "", head: str = "fc.") -> dict[str, Any] | None:
    """Options by shapes: the rules differ in the channels between the convolutions of the first wider block."""
    middle = len(tensors[f"{start}layer2.0.conv2.0.0.weight"])
    if middle != between(64 if rule == "torchvision" else 128, 128):
        return None
    depth = 34 if f"{start}layer3.5.conv1.0.0.weight" in tensors else 18
    return {"depth": depth, "rule": rule, "num_classes": classes_in(tensors, f"{head}weight")}


def _torchvision(tensors: Tensors) -> dict[str, Any] | None:
    return _options(tensors, "torchvision")


def _vmz_18(tensors: Tensors) -> dict[str, Any] | None:
    found = _options(tensors, "vmz")
    return found if found and found["depth"] == 18 else None


def _vmz_34(tensors: Tensors) -> dict[str, Any] | None:
    found = _options(tensors, "vmz")
    return found if found and found["depth"] == 34 else None


def _tsp(tensors: Tensors) -> dict[str, Any] | None:
    head = "fc1." if "fc1.weight" in tensors else "fc."
    return _options(tensors, "vmz", "features.", head)


def _tsp_name(name: str) -> str:
    name = name.removeprefix("features.")
    return f"fc.{name.removeprefix('fc1.')}" if name.startswith("fc1.") else name


def _rspnet(tensors: Tensors) -> dict[str, Any]:
    depth = 18 if "conv2.block2.conv1.spatial_conv.weight" in tensors or any("blocks." in n for n in tensors) else 10
    return {"depth": depth, "rule": "rspnet", "num_classes": classes_in(tensors, "linear.weight")}


def _rspnet_name(name: str) -> str:
    if match := re.fullmatch(r"conv1\.(spatial_conv|bn|temporal_conv)\.(\w+)", name):
        return f"stem.{_UNITS[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"bn1\.(\w+)", name):
        return f"stem.4.{match[1]}"
    if match := re.fullmatch(r"linear\.(\w+)", name):
        return f"fc.{match[1]}"
    block = re.fullmatch(r"conv([2-5])\.(?:block1|blocks\.(\d+))\.(.+)", name)
    if block is None:
        return name
    start = f"layer{int(block[1]) - 1}.{0 if block[2] is None else int(block[2]) + 1}"
    return f"{start}.{_rspnet_part(block[3])}"


def _rspnet_part(part: str) -> str:
    if match := re.fullmatch(r"(conv[12]|downsampleconv)\.(spatial_conv|bn|temporal_conv)\.(\w+)", part):
        unit = "downsample" if match[1] == "downsampleconv" else match[1]
        return f"{unit}.0.{_UNITS[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"bn([12])\.(\w+)", part):
        return f"conv{match[1]}.1.{match[2]}"
    if match := re.fullmatch(r"downsamplebn\.(\w+)", part):
        return f"downsample.1.{match[1]}"
    return part


_ANCHORS = ("stem.0.weight", "layer2.0.conv2.0.0.weight")

LAYOUTS = (
    Layout(
        name="R(2+1)D, torchvision's rule (torchvision; VideoMoCo)",
        architecture="r2plus1d",
        anchors=_ANCHORS,
        options=_torchvision,
        rename=dict,
        head="fc.",
        clip=KINETICS,
        contrastive_clip=VIDEO_MOCO,
    ),
    Layout(
        name="R(2+1)D-18, VMZ's rule (XDC, ig65m)",
        architecture="r2plus1d",
        anchors=_ANCHORS,
        options=_vmz_18,
        rename=dict,
        head="fc.",
        clip=XDC,
    ),
    Layout(
        name="R(2+1)D-34, VMZ's rule (ig65m)",
        architecture="r2plus1d",
        anchors=_ANCHORS,
        options=_vmz_34,
        rename=dict,
        head="fc.",
        clip=IG65M,
    ),
    Layout(
        name="R(2+1)D of TSP",
        architecture="r2plus1d",
        anchors=("features.stem.0.weight", "features.layer2.0.conv2.0.0.weight"),
        options=_tsp,
        rename=by_name(_tsp_name),
        head="fc",
        clip=TSP,
        ignored=r"fc2\.",  # tells actions from background by the clip and the mean of its video
    ),
    Layout(
        name="R(2+1)D of RSPNet",
        architecture="r2plus1d",
        anchors=("conv1.spatial_conv.weight", "conv2.block1.conv1.spatial_conv.weight"),
        options=_rspnet,
        rename=by_name(_rspnet_name),
        head="linear.",
        clip=RSPNET,
    ),
)
