"""Reads checkpoints of the public BMN code: recognises how their map was laid out, checks every weight, drops the mask.

Reading the file itself is left to the caller. Letters: T steps, N samples a proposal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from uptal.errors import CheckpointError
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.layers import Layout, map_cells, sampling_weights
from uptal.localizers.samples import GROUPS


def from_official(checkpoint: Mapping[str, Any], cfg: BMNConfig | None = None) -> BMN:
    """A BMN from a checkpoint of the public code: its state_dict, with or without the record around it.

    The stored mask tells the axes of the map, the boundary ratio and the points a sample; it is not kept. Without a
    mask they cannot be known from the weights, and `cfg` must say.

    Raises:
        CheckpointError: A weight is missing, unknown or of another shape, or the mask is of no known kind or not that
            of `cfg`.
    """
    weights = stored_weights(checkpoint)
    mask = weights.pop("sample_mask", None)
    cfg = _config_of(weights, mask) if cfg is None else cfg
    if mask is not None:
        dense = _dense_mask(mask, cfg.num_samples)
        if not mask_agrees(dense, cfg.num_points, cfg.prop_boundary_ratio, cfg.layout):
            raise CheckpointError(
                f"The checkpoint's sample_mask is not that of num_points={cfg.num_points}, prop_boundary_ratio="
                f"{cfg.prop_boundary_ratio}, layout='{cfg.layout}'. Leave out the configuration to have it recognised."
            )
    model = BMN(cfg)
    check_weights(weights, model.state_dict(), "BMN")
    model.load_state_dict(weights)
    return model


def _config_of(weights: Mapping[str, Tensor], mask: Tensor | None) -> BMNConfig:
    """The configuration that a checkpoint implies."""
    needed = ("x_1d_b.0.weight", "x_2d_p.0.weight", "x_3d_p.0.weight")
    if missing := [key for key in needed if key not in weights]:
        raise CheckpointError(f"This is no BMN checkpoint: it holds {len(weights)} weights, but not {missing}.")
    if mask is None:
        raise CheckpointError(
            "The checkpoint holds no sample_mask, which would tell how its map was laid out: pass a BMNConfig."
        )
    base, cell, mix = (weights[key].shape for key in needed)
    dense = _dense_mask(mask, mix[2])
    recognised = recognise_mask(dense)
    if recognised is None:
        raise CheckpointError(
            f"The checkpoint's sample_mask of shape {tuple(mask.shape)} is neither that of a start x end map (2020) "
            "nor that of a duration x start map (2019). If its weights are wanted all the same, drop the mask and pass "
            "a BMNConfig."
        )
    num_points, ratio, layout = recognised
    return BMNConfig(
        in_channels=base[1] * GROUPS,
        num_steps=len(dense),
        num_samples=mix[2],
        num_points=num_points,
        hidden=(base[0], cell[0], mix[0]),
        prop_boundary_ratio=ratio,
        layout=layout,
    )


def _dense_mask(mask: Tensor, num_samples: int) -> np.ndarray:
    """The stored (T, N * T * T) mask as (T, N, T, T)."""
    num_steps = len(mask)
    if mask.numel() != num_steps**3 * num_samples:
        raise CheckpointError(
            f"The checkpoint's sample_mask has shape {tuple(mask.shape)}; {num_samples} samples and {num_steps} steps "
            f"ask for ({num_steps}, {num_samples * num_steps**2})."
        )
    return mask.detach().cpu().numpy().reshape(num_steps, num_samples, num_steps, num_steps)


def stored_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, without the record around them and the prefix of `DataParallel`.

    Raises:
        CheckpointError: Something else than tensors is in it.
    """
    stored = checkpoint.get("state_dict", checkpoint)
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"A checkpoint's state_dict maps names to tensors, found {type(stored).__name__}.")
    if strange := [key for key, value in stored.items() if not (isinstance(key, str) and isinstance(value, Tensor))]:
        raise CheckpointError(f"A checkpoint maps names to tensors, but entry {strange[0]!r} is no tensor.")
    return {key.removeprefix("module."): tensor for key, tensor in stored.items()}


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], kind: str) -> None:
    """Refuse weights that are missing, unknown or of another shape, naming the first of each."""
    faults = [f"{key} is missing" for key in expected if key not in found][:3]
    faults += [f"{key} is unknown" for key in found if key not in expected][:3]
    faults += [
        f"{key} has shape {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ][:3]
    if faults:
        raise CheckpointError(f"The checkpoint does not fit this {kind}: {'; '.join(faults)}.")


def mask_agrees(
    mask: Float[np.ndarray, "T N T T"], num_points: int, ratio: float, layout: Layout, tolerance: float = 1e-5
) -> bool:
    """Whether a dense boundary-matching mask, as older checkpoints store it, holds the weights of these settings."""
    num_steps, num_samples = mask.shape[:2]
    cells = map_cells(num_steps, layout)
    cell, step, sample, weight = sampling_weights(cells, num_steps, num_samples, num_points, ratio)
    held = mask[step, sample, cells.row[cell], cells.column[cell]]
    nothing_else = np.isclose(mask.sum(dtype=np.float64), weight.sum(dtype=np.float64), rtol=tolerance)
    return bool(nothing_else and np.allclose(held, weight, rtol=0, atol=tolerance))


def recognise_mask(mask: Float[np.ndarray, "T N T T"]) -> tuple[int, float, Layout] | None:
    """The points a sample, the boundary ratio and the axes with which a dense mask was made; None when unknown.

    One cell that stands for two steps' length in the middle of the video gives the ratio for every number of points;
    the whole mask then decides. Up to 8 points a sample and ratios of up to five decimals are tried.
    """
    num_steps, num_samples = mask.shape[:2]
    if num_samples < 2:
        return None
    middle = (num_steps - 1) // 2
    centre = mask[:, [0, -1]].T @ (np.arange(num_steps) - middle)  # (column, row, 2): mean position of two samples
    probes: dict[Layout, tuple[int, int]] = {"start_end": (middle, middle), "duration_start": (1, middle)}
    for layout, (row, column) in probes.items():
        spread = np.ptp(centre[column, row % num_steps])
        for num_points in (3, 1, 2, 4, 5, 6, 7, 8):
            whole = spread * (num_samples * num_points - 1) / (num_points * (num_samples - 1))
            ratio = round(float(whole - 1) / 4, 5)
            if ratio >= 0 and mask_agrees(mask, num_points, ratio, layout):
                return num_points, ratio, layout
    return None
