"""Every encoder gives the numbers of the implementation whose checkpoints it loads, through the converter of weights.

Each file says what the original's tensors are called; they are drawn by rule, recognised and renamed like a checkpoint.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import golden_params
from golden_rule import drawn
from uptal.encoders.converting import Recognised, load, place
from uptal.encoders.foreign import Foreign
from uptal.encoders.s3d import STAGES
from uptal.features import make_ready

pytestmark = pytest.mark.golden

FORWARD = 1e-4
"""Largest error allowed, relative to the largest entry: other order of summation in up to 100 layers of float32."""
GRADIENT = 1e-3
"""Largest relative error of a gradient's norm, beyond what rounding makes of it."""
ROUNDING = 3
"""In training mode the last layers normalise over eight numbers a channel, which magnifies rounding: the stored float32
outputs are themselves 9e-4 away from the same pass in float64, and ours 6e-4 to 1.3e-3, depending on the processor's
kernels and the number of threads. So there the stored values are compared with our pass in float64, and may differ
from it by this many times what our own float32 pass does."""

STEMS = (
    "bb_coclr_s3d",
    "bb_coclr_s3dg",
    "bb_hara_r3d50",
    "bb_i3d",
    "bb_kylemin_s3d",
    "bb_ptv_i3d_r50",
    "bb_ptv_slow_r50",
    "bb_rspnet_r2plus1d_1111",
    "bb_rspnet_s3dg",
    "bb_torchvision_r2plus1d_18",
    "bb_torchvision_s3d",
    "bb_tsm_resnet18",
    "bb_tsm_resnet50",
    "bb_tsp_r2plus1d_34",
    "bb_vmz_r2plus1d_18",
)

LAST = {"i3d": "Mixed_5c", "s3d": "Mixed_5c", "r2plus1d": "layer4", "resnet3d": "layer4", "tsm": "layer4"}
"""The module whose output is the trunk's."""
COCLR_BLOCKS = ("Conv_1a", "Conv_2c", "Mixed_3c", "Mixed_4f", "Mixed_5c")
"""Last stage of CoCLR's blocks 1 to 5."""
RSPNET_STAGES = ("sepConv1", "maxPool1", "basicConv3d", "sep_conv2", "maxPool2", "sepInc_3b", "sepInc_3c", "maxPool3")
RSPNET_STAGES += ("sepInc_4b", "sepInc_4c", "sepInc_4d", "sepInc_4e", "sepInc_4f", "maxpool4", "sepInc_5b", "sepInc_5c")


def module_name(point: str, found: Recognised) -> str:
    """What we call the module whose output a file holds under its original name."""
    name, form = found.layout.name, found.options.get("form")
    if "CoCLR" in name:
        return COCLR_BLOCKS[int(point.removeprefix("block")) - 1]
    if "S3D" in name:
        stage = point.split(".")[-1]
        return STAGES[RSPNET_STAGES.index(stage) if stage in RSPNET_STAGES else int(stage)]
    if "R(2+1)D of RSPNet" in name:
        return "stem.4" if point == "bn1" else f"layer{int(point.removeprefix('conv')) - 1}"
    if "pytorchvideo" in name:
        stages = ["maxpool", "layer1", *["timepool"] * (form == "i3d"), "layer2", "layer3", "layer4"]
        return stages[int(point.removeprefix("blocks."))]
    if "TSM" in name and point.startswith("layer"):
        last = {18: (1, 1, 1, 1), 50: (2, 3, 5, 2)}[found.options["depth"]]
        return f"{point}.{last[int(point[-1]) - 1]}"
    return point


def case(file: Path) -> tuple[dict[str, np.ndarray], Recognised, Any, Tensor]:
    """The stored arrays, what its tensors were recognised as, the network with them, and its input."""
    stored = dict(np.load(file))
    seed, shapes = int(stored["meta/seed"]), json.loads(str(stored["meta/state_shapes"]))
    names = [name for name in stored["meta/state_keys"].tolist() if not second_name(name)]
    tensors = {name: torch.from_numpy(drawn(name, tuple(shapes[name]), seed)) for name in names}
    found = place(Foreign(file, tensors, {}))
    x = torch.from_numpy(drawn("input", tuple(stored["meta/input_shape"]), seed))
    if x.dim() == 4:  # pictures, the eight of a clip together
        x = x.unflatten(0, (-1, 8)).transpose(1, 2)
    return stored, found, load(found).eval(), x


def second_name(name: str) -> bool:
    """Whether the tensor is one that CoCLR's network has under another name as well; the rule goes by the other."""
    return re.match(r"block\d\.", name) is not None


def error(found: Tensor | np.ndarray | float, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry where that exceeds 1."""
    found = np.asarray(found.detach() if isinstance(found, Tensor) else found, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def statistics(x: Tensor) -> np.ndarray:
    flat = x.double().flatten()
    at = [flat[0], flat[len(flat) // 2], flat[-1]]
    return torch.stack([flat.mean(), flat.std(correction=0), flat.abs().max(), *at]).numpy()


def watch(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Outputs of named modules in one forward pass; cloned, as later layers work in place."""
    outputs: dict[str, Tensor] = {}

    def keep(name):
        return lambda module, args, output: outputs.__setitem__(name, output.clone())

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("file", [param for stem in STEMS for param in golden_params(stem)])
def test_an_encoder_equals_the_original(file, compared):
    stored, found, model, x = case(file)
    assert sum(p.numel() for p in model.parameters()) == stored["meta/n_params"]
    points = {key.split("/")[1] for key in stored if key.startswith("point/")}
    last = LAST[found.layout.architecture]
    outputs = watch(model, x, [last, *(module_name(point, found) for point in points)])
    trunk = outputs[last]
    if trunk.dim() == 4:
        trunk = trunk.unflatten(0, (-1, 8)).transpose(1, 2)
    pooled = trunk.mean(dim=(2, 3, 4))
    for point in sorted(points):
        output = outputs[module_name(point, found)]
        assert list(output.shape) == stored[f"point/{point}/shape"].tolist(), point
        assert error(statistics(output), stored[f"point/{point}/stat"]) < FORWARD, point
    checks = {"trunk": trunk, "pooled": pooled, "frame_pooled": trunk.mean(dim=(3, 4)).transpose(1, 2).flatten(0, 1)}
    for key in (key for key in checks if f"out/{key}" in stored):
        assert error(checks[key], stored[f"out/{key}"]) < FORWARD, key
    with torch.inference_mode():  # what extraction runs, norms and convolutions as one
        ready = make_ready(model, torch.device("cpu"))(x.contiguous(memory_format=torch.channels_last_3d))
    assert error(ready, pooled.numpy()) < FORWARD
    if "out/pooled" in stored:
        assert error(ready, stored["out/pooled"]) < FORWARD
    check_classifier(model, checks, stored)
    if "out/avg_pool_2x7x7" in stored:
        check_stock_head(model, trunk, stored)
    if "train/loss" in stored:
        check_training_step(model, x, stored)
    compared(file)


def check_classifier(model: Any, features: dict[str, Tensor], stored: dict[str, np.ndarray]) -> None:
    """Class scores from the pooled features; of networks over pictures also those of every picture."""
    sources = {"logits": "pooled", "logits_from_global_pool": "pooled", "frame_logits": "frame_pooled"}
    for key, source in sources.items():
        if f"out/{key}" in stored:
            with torch.no_grad():
                assert error(model.classify(features[source]), stored[f"out/{key}"]) < FORWARD, key


def check_stock_head(model: Any, trunk: Tensor, stored: dict[str, np.ndarray]) -> None:
    """The fixed pool of the original, and its scores for every step in time, follow from our trunk and classifier."""
    window = F.avg_pool3d(trunk, (2, 7, 7), stride=1)
    assert error(window, stored["out/avg_pool_2x7x7"]) < FORWARD
    assert error(model.logits(window)[..., 0, 0], stored["out/official_logits"]) < FORWARD


def check_training_step(model: Any, x: Tensor, stored: dict[str, np.ndarray]) -> None:
    """One forward and backward pass with batch statistics: loss, gradients, running statistics."""
    exact, exact_norms = training_step(copy.deepcopy(model).double(), x.double())
    single, single_norms = training_step(model, x)
    assert error(exact, stored["train/pooled"]) < ROUNDING * error(single, exact.numpy()) < 1e-2
    assert error(exact.square().mean(), stored["train/loss"]) < FORWARD
    rounding = max(abs(single_norms[n] / norm - 1) for n, norm in exact_norms.items())
    assert rounding < 1e-2
    for key in (key for key in stored if key.startswith("train/gradnorm/")):
        norm = exact_norms.get(key.removeprefix("train/gradnorm/"), -1.0)
        assert norm == pytest.approx(float(stored[key]), rel=GRADIENT + ROUNDING * rounding, abs=1e-9), key
    buffers = dict(model.named_buffers())
    for key in (key for key in stored if key.startswith("train/bn_sum/")):
        assert error(buffers[key.removeprefix("train/bn_sum/")].double().sum(), stored[key]) < FORWARD, key


def training_step(model: Any, x: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Features, and the norm of every gradient that there is."""
    pooled = model.train()(x)
    pooled.square().mean().backward()
    norms = {n: float(p.grad.double().norm()) for n, p in model.named_parameters() if p.grad is not None}
    return pooled.detach().double(), norms
