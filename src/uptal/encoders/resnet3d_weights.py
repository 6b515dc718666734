"""Weights of 3-D ResNet-50 in circulation: kenshohara's, and pytorchvideo's SlowOnly and I3D-R50."""

from __future__ import annotations

import re
from typing import Any

from uptal.encoders.layouts import Layout, Tensors, by_name, classes_in
from uptal.encoders.resnet3d import HARA, SLOWONLY

_LETTERS = {"a": "1", "b": "2", "c": "3"}
_SHORTCUT = {"conv": "0", "norm": "1"}


def _hara(tensors: Tensors) -> dict[str, Any] | None:
    if tensors["conv1.weight"].dim() != 5 or tensors["layer1.0.conv2.weight"].shape[2:] != (3, 3, 3):
        return None
    return {"form": "hara", "num_classes": classes_in(tensors, "fc.weight")}


def _pytorchvideo(tensors: Tensors) -> dict[str, Any] | None:
    form = {1: "slowonly", 5: "i3d"}.get(tensors["blocks.0.conv.weight"].shape[2])
    if form is None or "blocks.0.multipathway_blocks.0.conv.weight" in tensors:
        return None
    heads = [name for name in tensors if re.fullmatch(r"blocks\.\d\.proj\.weight", name)]
    return {"form": form, "num_classes": classes_in(tensors, heads[0] if heads else "")}


def _pytorchvideo_names(tensors: Tensors) -> dict[str, Any]:
    skipped = int("blocks.2.res_blocks.0.branch2.conv_a.weight" not in tensors)  # I3D-R50 counts its pool as a block

    def rename(name: str) -> str:
        if match := re.fullmatch(r"blocks\.0\.(conv|norm)\.(\w+)", name):
            return f"{'conv1' if match[1] == 'conv' else 'bn1'}.{match[2]}"
        if match := re.fullmatch(r"blocks\.\d\.proj\.(\w+)", name):
            return f"fc.{match[1]}"
        match = re.fullmatch(r"blocks\.(\d)\.res_blocks\.(\d+)\.(.+)", name)
        if match is None:
            return name
        number = int(match[1])
        return f"layer{number - skipped * (number > 1)}.{match[2]}.{_part(match[3])}"

    return by_name(rename)(tensors)


def _part(part: str) -> str:
    if match := re.fullmatch(r"branch1_(conv|norm)\.(\w+)", part):
        return f"downsample.{_SHORTCUT[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"branch2\.(conv|norm)_([abc])\.(\w+)", part):
        return f"{'conv' if match[1] == 'conv' else 'bn'}{_LETTERS[match[2]]}.{match[3]}"
    return part


LAYOUTS = (
    Layout(
        name="3D-ResNet50 of kenshohara",
        architecture="resnet3d",
        anchors=("conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv3.weight", "layer3.5.conv1.weight"),
        options=_hara,
        rename=dict,
        head="fc.",
        clip=HARA,
    ),
    Layout(
        name="SlowOnly-R50 or I3D-R50 of pytorchvideo",
        architecture="resnet3d",
        anchors=("blocks.0.conv.weight", "blocks.1.res_blocks.0.branch2.conv_a.weight"),
        options=_pytorchvideo,
        rename=_pytorchvideo_names,
        head="blocks.5.proj.",
        clip=SLOWONLY,
    ),
)
