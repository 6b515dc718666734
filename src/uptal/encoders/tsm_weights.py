"""Weights of TSM in circulation: the authors' layout, with or without their wrappers."""

from __future__ import annotations

from typing import Any

from uptal.encoders.layouts import Layout, Tensors, by_name, classes_in
from uptal.encoders.tsm import CLIP


def _options(tensors: Tensors) -> dict[str, Any]:
    return _described(tensors, "", "fc.")


def _wrapped_options(tensors: Tensors) -> dict[str, Any]:
    return _described(tensors, "base_model.", "new_fc.")


def _described(tensors: Tensors, start: str, head: str) -> dict[str, Any]:
    depth = 50 if f"{start}layer1.0.conv3.weight" in tensors else 18
    return {"depth": depth, "num_classes": classes_in(tensors, f"{head}weight")}


def _name(name: str) -> str:
    name = name.removeprefix("base_model.").replace(".conv1.net.", ".conv1.")
    return f"fc.{name.removeprefix('new_fc.')}" if name.startswith("new_fc.") else name


LAYOUTS = (
    Layout(
        name="TSM-ResNet with the wrapper of its training",
        architecture="tsm",
        anchors=("base_model.layer1.0.conv1.net.weight", "base_model.conv1.weight"),
        options=_wrapped_options,
        rename=by_name(_name),
        head="new_fc.",
        clip=CLIP,
    ),
    Layout(
        name="TSM-ResNet",
        architecture="tsm",
        anchors=("layer1.0.conv1.net.weight", "conv1.weight"),
        options=_options,
        rename=by_name(_name),
        head="fc.",
        clip=CLIP,
    ),
)
