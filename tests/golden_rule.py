"""The golden files' rules for weights and inputs: values follow from a tensor's name and a seed.

`drawn` is the encoders' rule ("crc-fill v1"), `weights_by_rule` that of the localizers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch


def drawn(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The value of the tensor of that name; `input` is the network's input."""
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


def weights_by_rule(case, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a localizer that a case names by seed instead of storing them, in the shapes of `like`; each is
    checked against its stored sums, where there are any."""
    seed, weights = json.loads(str(case["config_json"]))["seed"], {}
    for key, tensor in like.items():
        scale = 2.45 / np.sqrt(np.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.1
        rng = np.random.RandomState((zlib.crc32(key.encode()) ^ seed) & 0x7FFFFFFF)
        weight = (rng.uniform(-1, 1, tuple(tensor.shape)) * scale).astype(np.float32)
        if f"sdsum/{key}" in case.files:
            sums = [weight.sum(dtype=np.float64), np.abs(weight).sum(dtype=np.float64)]
            np.testing.assert_allclose(sums, case[f"sdsum/{key}"], rtol=1e-6, atol=1e-4)  # a rounding a weight
        weights[key] = torch.from_numpy(weight)
    return weights


def stored_weights(case) -> dict[str, torch.Tensor]:
    """The state of a localizer that a golden case holds."""
    return {key.removeprefix("sd/"): torch.from_numpy(case[key]) for key in case.files if key.startswith("sd/")}


def compare_double(model: torch.nn.Module, case, names: Sequence[str]) -> None:
    """The forward pass in 64 bits, where sums differ by their order alone."""
    with torch.no_grad():
        outputs = model.double()(torch.from_numpy(case["x"]).double())
    for name, output in zip(names, outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), case[f"f64/{name}"], rtol=1e-9, atol=1e-9, err_msg=name)
