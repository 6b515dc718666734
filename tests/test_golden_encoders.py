"""Inception-I3D gives the numbers of the PyTorch implementation whose checkpoints it loads."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import golden_params
from uptal.encoders.i3d import I3D, I3DConfig

pytestmark = pytest.mark.golden

FORWARD = 1e-4
"""Largest error allowed, relative to the largest entry: other order of summation through 57 layers in float32."""
GRADIENT = 1e-3
"""Largest relative error of a gradient's norm."""


@pytest.fixture(autouse=True)
def two_threads():
    """The kernels that the original ran on. In training mode the last layers normalise over eight numbers a channel,
    which magnifies rounding: with one thread, another order of summation moves the features by 4e-4."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The golden files' rule for the value of a tensor of that name ("crc-fill v1")."""
    rng = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())]))
    if key == "input":
        values = 0.5 * rng.standard_normal(shape)
    elif key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    elif key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = 0.5 + rng.random(shape)
    elif len(shape) == 1 and key.endswith("weight"):
        values = 0.75 + 0.5 * rng.random(shape)
    elif len(shape) <= 1:
        values = 0.05 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    return values.astype(np.float32)


def case(file: Path) -> tuple[dict[str, np.ndarray], nn.Module, torch.Tensor]:
    """The stored arrays, the network filled by the rule, and its input."""
    stored = dict(np.load(file))
    seed = int(stored["meta/seed"])
    shapes = json.loads(str(stored["meta/state_shapes"]))
    model = I3D(I3DConfig(num_classes=shapes["logits.conv3d.bias"][0]))
    state = {key: torch.from_numpy(drawn(key, tuple(shapes[key]), seed)) for key in stored["meta/state_keys"].tolist()}
    model.load_state_dict(state, strict=True)
    return stored, model.eval(), torch.from_numpy(drawn("input", tuple(stored["meta/input_shape"]), seed))


def error(found: torch.Tensor | np.ndarray | float, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry where that exceeds 1."""
    found = np.asarray(found.detach() if isinstance(found, torch.Tensor) else found, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


def statistics(x: torch.Tensor) -> np.ndarray:
    flat = x.double().flatten()
    at = [flat[0], flat[len(flat) // 2], flat[-1]]
    return torch.stack([flat.mean(), flat.std(correction=0), flat.abs().max(), *at]).numpy()


def intermediate(model: nn.Module, x: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """Outputs of named modules in one forward pass."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(name):
        return lambda module, args, output: outputs.__setitem__(name, output.clone())

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("file", golden_params("bb_i3d"))
def test_i3d_equals_the_original(file, compared):
    stored, model, x = case(file)
    assert sum(p.numel() for p in model.parameters()) == stored["meta/n_params"]
    names = [key.split("/")[1] for key in stored if key.startswith("point/") and key.endswith("/shape")]
    for name, output in intermediate(model, x, names).items():
        assert tuple(output.shape) == tuple(stored[f"point/{name}/shape"]), name
        assert error(statistics(output), stored[f"point/{name}/stat"]) < FORWARD, name
    with torch.no_grad():
        trunk, pooled = model.trunk(x), model(x)
    assert error(trunk, stored["out/trunk"]) < FORWARD
    assert error(pooled, stored["out/pooled"]) < FORWARD
    assert error(model.classify(pooled), stored["out/logits_from_global_pool"]) < FORWARD
    if "out/avg_pool_2x7x7" in stored:
        check_stock_head(model, trunk, stored)
    if "train/loss" in stored:
        check_training_step(model, x, stored)
    compared(file)


def check_stock_head(model: I3D, trunk: torch.Tensor, stored: dict[str, np.ndarray]) -> None:
    """The fixed pool of the original, and its scores for every step in time, follow from our trunk and classifier."""
    window = F.avg_pool3d(trunk, (2, 7, 7), stride=1)
    assert error(window, stored["out/avg_pool_2x7x7"]) < FORWARD
    assert error(model.logits(window)[..., 0, 0], stored["out/official_logits"]) < FORWARD


def check_training_step(model: I3D, x: torch.Tensor, stored: dict[str, np.ndarray]) -> None:
    """One forward and backward pass with batch statistics: loss, gradients, running statistics."""
    pooled = model.train()(x)
    loss = pooled.square().mean()
    loss.backward()
    assert error(pooled, stored["train/pooled"]) < FORWARD
    assert error(loss, stored["train/loss"]) < FORWARD
    with_gradient = dict(model.named_parameters())
    for key in (key for key in stored if key.startswith("train/gradnorm/")):
        gradient = with_gradient[key.removeprefix("train/gradnorm/")].grad
        norm = -1.0 if gradient is None else float(gradient.double().norm())
        assert norm == pytest.approx(float(stored[key]), rel=GRADIENT, abs=1e-9), key
    buffers = dict(model.named_buffers())
    for key in (key for key in stored if key.startswith("train/bn_sum/")):
        assert error(buffers[key.removeprefix("train/bn_sum/")].double().sum(), stored[key]) < FORWARD, key
