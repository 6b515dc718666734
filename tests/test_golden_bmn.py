"""BMN against stored outputs of the public PyTorch code: maps, losses, gradients, masks, labels and proposals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import golden_params
from golden_rule import compare_double, stored_weights, weights_by_rule
from uptal.localizers.bmn import BMN, BMNConfig, BoundaryBatch, candidates, labels, proposals
from uptal.localizers.bmn_weights import from_official
from uptal.localizers.layers import map_cells, sampling_weights
from uptal.localizers.targets import boundary_losses
from uptal.types import Detections

pytestmark = pytest.mark.golden

SINGLE = {"rtol": 1e-4, "atol": 1e-5}
"""Outputs in 32 bits: sums of thousands of products, added in another order than in the dense public form."""
DOUBLE = {"rtol": 1e-9, "atol": 1e-9}
"""The same sums in 64 bits."""
OUTPUTS = ("confidence_map", "start", "end")
LOSSES = {"loss": "loss_total", "tem": "loss_tem", "pem_reg": "loss_pem_reg", "pem_cls": "loss_pem_cls"}


def config_of(case) -> BMNConfig:
    options = json.loads(str(case["config_json"]))
    return BMNConfig(
        in_channels=options["feat_dim"],
        num_steps=options["temporal_scale"],
        num_samples=options["num_sample"],
        num_points=options["num_sample_perbin"],
        hidden=tuple(options["hidden"]),
        prop_boundary_ratio=options["prop_boundary_ratio"],
        safe=False,
    )


def compare_training(model: BMN, case) -> None:
    """Outputs, losses and gradients of one batch."""
    batch = BoundaryBatch(
        features=torch.from_numpy(case["x"]).requires_grad_(),
        gt_map=torch.from_numpy(case["gt_iou_map"]),
        gt_start=torch.from_numpy(case["gt_start"]),
        gt_end=torch.from_numpy(case["gt_end"]),
    )
    assert np.array_equal(model.valid.numpy(), case["bm_mask"] == 1)
    outputs = model(batch.features)
    for name, output in zip(OUTPUTS, outputs, strict=True):
        np.testing.assert_allclose(output.detach().numpy(), case[name], **SINGLE, err_msg=name)

    uniform = torch.from_numpy(np.stack((case["rand_m"], case["rand_l"])))
    exact = boundary_losses(*outputs, batch, model.valid, uniform, safe=False)
    safe = boundary_losses(*outputs, batch, model.valid, uniform, safe=True)
    for name, stored in LOSSES.items():
        np.testing.assert_allclose(exact[name].item(), case[stored], rtol=1e-4, err_msg=name)  # 32-bit sums
        assert safe[name].item() == exact[name].item() or not exact[name].isfinite()

    exact["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        norm = parameter.grad.norm().item()
        np.testing.assert_allclose(norm, case[f"gradnorm/{name}"], rtol=1e-3, err_msg=name)  # 32-bit sums, twice
    if "grad_x" in case.files:
        assert batch.features.grad is not None
        np.testing.assert_allclose(batch.features.grad.numpy(), case["grad_x"], **SINGLE)


@pytest.mark.parametrize("path", golden_params("bmn_small"))
def test_a_small_model_is_the_public_one(path: Path, compared) -> None:
    case = np.load(path)
    model = from_official(stored_weights(case))
    assert BMNConfig(**{**vars(model.cfg), "safe": False}) == config_of(case)
    with torch.no_grad():
        base = model.x_1d_b(torch.from_numpy(case["x"]))
        np.testing.assert_allclose(base.numpy(), case["mid/base_feature"], **SINGLE)
        if len(expected := case["mid/bm_layer_out_b0"]):
            pooled = model.matching.pool(model.x_1d_p(base)[:1])[0]
            np.testing.assert_allclose(pooled.numpy(), expected, **SINGLE)
    compare_training(model, case)
    compare_double(model, case, OUTPUTS)
    compared(path)


@pytest.mark.parametrize("path", golden_params("bmn_full"))
def test_the_full_model_is_the_public_one(path: Path, compared) -> None:
    case = np.load(path)
    model = from_official(weights_by_rule(case, BMN(config_of(case)).state_dict()), config_of(case))
    check_mask_sums(case, model.cfg)
    compare_training(model, case)
    compare_double(model, case, OUTPUTS)
    compared(path)


def check_mask_sums(case, cfg: BMNConfig) -> None:
    weights = sampling_weights(
        map_cells(cfg.num_steps, cfg.layout), cfg.num_steps, cfg.num_samples, cfg.num_points, cfg.prop_boundary_ratio
    )
    found = np.bincount(weights.step, weights=weights.weight, minlength=cfg.num_steps)
    assert tuple(case["sample_mask_shape"]) == (cfg.num_steps, cfg.num_samples * cfg.num_steps**2)
    np.testing.assert_allclose(found, case["sample_mask_rowsum"], rtol=1e-5)  # stored sums may have been 32-bit


@pytest.mark.parametrize("path", golden_params("bmn_sample_mask"))
def test_the_mask_is_the_public_one_to_the_bit(path: Path, compared) -> None:
    case = np.load(path)
    for i, (num_steps, num_samples, num_points, ratio) in enumerate(case["cases"].tolist()):
        num_steps, num_samples = int(num_steps), int(num_samples)
        cells = map_cells(num_steps, "start_end")
        weights = sampling_weights(cells, num_steps, num_samples, int(num_points), ratio)
        mask = np.zeros((num_steps, num_samples, num_steps, num_steps), np.float32)
        mask[weights.step, weights.sample, cells.row[weights.cell], cells.column[weights.cell]] = weights.weight
        assert np.array_equal(mask.reshape(num_steps, -1), case[f"mask{i}"])
    compared(path)


@pytest.mark.parametrize("path", golden_params("bmn_labels"))
def test_labels_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    for video in case["videos"]:
        seconds, frames, covered = (
            float(case[f"{video}/{name}"]) for name in ("duration_second", "duration_frame", "feature_frame")
        )
        segments = case[f"{video}/segments"].reshape(-1, 2).astype(np.float64)
        found = labels(segments, covered / frames * seconds, int(case["temporal_scale"]))
        for name, part in zip(("gt_iou_map", "gt_start", "gt_end"), found, strict=True):
            # one rounding to 32 bits of a ratio of differences
            np.testing.assert_allclose(part, case[f"{video}/{name}"], rtol=0, atol=1e-6, err_msg=f"{video} {name}")
    compared(path)


@pytest.mark.parametrize("path", golden_params("bmn_pipeline"))
def test_proposals_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    model = from_official(stored_weights(case), config_of(case))
    with torch.no_grad():
        for name, output in zip(OUTPUTS, model(torch.from_numpy(case["x"])), strict=True):
            np.testing.assert_allclose(output.numpy(), case[name], **SINGLE, err_msg=name)
    durations = [floor_to_snippets(*case[f"{video}/duration"][:2].tolist()) for video in case["videos"]]
    predicted = model.predict(torch.from_numpy(case["x"]), torch.tensor(durations, dtype=torch.float64))
    for i, video in enumerate(case["videos"]):
        maps = tuple(case[name][i] for name in OUTPUTS)
        compare_candidates(candidates(*maps), case[f"{video}/candidates"])
        compare_ranking(proposals(*maps, durations[i], model.cfg), case[f"{video}/proposals"])
        compare_ranking(predicted[i], case[f"{video}/proposals"])
    compared(path)


def floor_to_snippets(frames: float, seconds: float) -> float:
    """The duration that the public post-processing counts with: whole snippets of 16 frames."""
    return frames // 16 * 16 / frames * seconds


def compare_candidates(found: Detections, expected: np.ndarray) -> None:
    """Columns of the public file: start, end, four probabilities, score."""
    np.testing.assert_allclose(found.segments, expected[:, :2], rtol=1e-12)  # printed in full, read back
    np.testing.assert_allclose(found.scores, expected[:, -1], rtol=1e-5)  # products of 32-bit factors


def compare_ranking(found: Detections, expected: np.ndarray) -> None:
    """The same proposals in the same order, where scores closer than their rounding may change places."""
    rounding = 2e-6
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected[:, 2], rtol=0, atol=rounding)
    for start, end, score in expected[np.abs(expected[:, 2]) > expected[-1, 2] + rounding]:
        near = found.segments[np.abs(found.scores - score) <= rounding]
        assert np.isclose(near, [start, end], rtol=0, atol=1e-6).all(axis=1).any(), (start, end, score)
