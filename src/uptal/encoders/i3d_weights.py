"""Weights of Inception-I3D in circulation: the common PyTorch layout, and the names of the TensorFlow original."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from uptal.clipspec import ClipSpec
from uptal.encoders.layouts import Layout, Tensors, classes_in

CLIP = ClipSpec(frames=64, stride=1, size=224, resize=256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""What the official weights were trained on: RGB in [-1, 1] at 25 frames a second."""

_UNITS = {
    ("0", "0a"): "b0",
    ("1", "0a"): "b1a",
    ("1", "0b"): "b1b",
    ("2", "0a"): "b2a",
    ("2", "0b"): "b2b",
    ("3", "0b"): "b3b",
}
_PARTS = {
    "conv_3d/w": "conv3d.weight",
    "conv_3d/b": "conv3d.bias",
    "batch_norm/beta": "bn.bias",
    "batch_norm/gamma": "bn.weight",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}


def _options(tensors: Tensors) -> dict[str, Any]:
    return {"num_classes": classes_in(tensors, "logits.conv3d.weight")}


def _options_tensorflow(tensors: Tensors) -> dict[str, Any]:
    return {"num_classes": classes_in(tensors, "Logits/Conv3d_0c_1x1/conv_3d/b")}


def _from_tensorflow(tensors: Tensors) -> dict[str, Tensor]:
    """Kernels from time-height-width-in-out, norms without a scale get one of 1."""
    renamed = {_pytorch_name(name): tensor for name, tensor in tensors.items()}
    ours = {name: _pytorch_shape(name, tensor) for name, tensor in renamed.items()}
    shifts = [name for name in ours if name.endswith(".bn.bias")]
    scales = {name.replace(".bn.bias", ".bn.weight"): torch.ones_like(ours[name]) for name in shifts}
    return scales | ours


def _pytorch_name(name: str) -> str:
    match = re.fullmatch(r"(?:(Logits)/Conv3d_0c_1x1|(\w+?)(?:/Branch_(\d)/Conv3d_(0\w)_\dx\d)?)/(\w+/\w+)", name)
    if match is None or match[5] not in _PARTS:
        return name
    logits, stage, branch, unit, part = match.groups()
    if logits:
        return f"logits.{_PARTS[part]}"
    if branch is None:
        return f"{stage}.{_PARTS[part]}"
    if (stage, branch, unit) == ("Mixed_5b", "2", "0a") and name.split("/")[2].endswith("3x3"):
        unit = "0b"  # the original calls this 3x3 convolution 0a as well
    return f"{stage}.{_UNITS.get((branch, unit), f'b{branch}_{unit}')}.{_PARTS[part]}"


def _pytorch_shape(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("conv3d.weight") and tensor.dim() == 5:
        return tensor.permute(4, 3, 0, 1, 2).contiguous()
    return tensor.flatten() if ".bn." in name or name.endswith("conv3d.bias") else tensor


LAYOUTS = (
    Layout(
        name="Inception-I3D, PyTorch names",
        architecture="i3d",
        anchors=("Conv3d_1a_7x7.conv3d.weight",),
        options=_options,
        rename=dict,
        head="logits.",
        clip=CLIP,
    ),
    Layout(
        name="Inception-I3D, TensorFlow names",
        architecture="i3d",
        anchors=("Conv3d_1a_7x7/conv_3d/w",),
        options=_options_tensorflow,
        rename=_from_tensorflow,
        head="Logits/",
        clip=CLIP,
    ),
)
