"""G-TAD against stored outputs of its public codes: pooling, maps, losses, gradients, windows, labels, detections."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import golden_params
from golden_rule import compare_double, stored_weights, weights_by_rule
from uptal.features import Features
from uptal.localizers.align import align1d, at_steps, neighbours
from uptal.localizers.gtad import GTAD, GTADConfig, candidates, proposals, suppress
from uptal.localizers.gtad_published import thumos14_detections
from uptal.localizers.gtad_targets import LOSS_WEIGHTS, labels
from uptal.localizers.samples import CutConfig, cut_video, holds_instance
from uptal.localizers.targets import BoundaryBatch, boundary_losses
from uptal.postprocess import fuse
from uptal.types import Detections, Segment, Timebase, Video

pytestmark = pytest.mark.golden

SINGLE = {"rtol": 1e-4, "atol": 1e-5}
"""Outputs in 32 bits: sums of thousands of products, added in another order than in the public form."""
DOUBLE = {"rtol": 1e-9, "atol": 1e-9}
"""The same sums in 64 bits."""
OUTPUTS = ("iou_map", "start", "end")


def config_of(case) -> GTADConfig:
    """The configuration of a stored network; pipeline cases name its widths otherwise than the others."""
    options = json.loads(str(case["config_json"]))
    anet = options.get("variant", "anet" if options["kern_2d"] == 1 else "thumos") == "anet"
    names = ("h_dim_1d", "h_dim_2d", "h_dim_3d")
    hidden = [options[name] for name in names] if names[0] in options else options["hidden"]
    return GTADConfig(
        in_channels=options["feat_dim"],
        form="activitynet" if anet else "thumos14",
        num_steps=options["temporal_scale"],
        max_duration=options["max_duration"],
        inner=32 if anet else 16,
        context=4 if anet else 16,
        inner_ratio=options["goi_samp"],
        context_ratio=0 if anet else options["goi_samp"],
        style=options["goi_style"],
        kernel_2d=options["kern_2d"],
        hidden=tuple(hidden),
        groups=options.get("groups", 32),
        group_width=options.get("width_group", 4),
        num_neighbours=options.get("k", 3),
        safe=False,
    )


def loaded(case, weights: dict[str, torch.Tensor]) -> GTAD:
    model = GTAD(config_of(case))
    model.load_state_dict(weights)
    return model


def compare_training(model: GTAD, case) -> None:
    """Outputs, losses and gradients of one batch."""
    batch = BoundaryBatch(
        features=torch.from_numpy(case["x"]).requires_grad_(),
        gt_map=torch.from_numpy(case["gt_iou_map"]),
        gt_start=torch.from_numpy(case["gt_start"]),
        gt_end=torch.from_numpy(case["gt_end"]),
    )
    assert np.array_equal(model.valid.numpy(), case["mask"] == 1)
    outputs = model(batch.features)
    for name, output in zip(OUTPUTS, outputs, strict=True):
        np.testing.assert_allclose(output.detach().numpy(), case[name], **SINGLE, err_msg=name)

    uniform = torch.from_numpy(np.stack((case["rand_m"], case["rand_l"])))
    weights = LOSS_WEIGHTS[model.cfg.form]
    exact, safe = (boundary_losses(*outputs, batch, model.valid, uniform, s, weights) for s in (False, True))
    stored = {"loss": "loss_total", "pem_reg": "loss_pem_reg", "pem_cls": "loss_pem_cls"}
    stored["tem"] = "loss_tem" if model.cfg.form == "activitynet" else "loss_node"
    for name, other in stored.items():
        np.testing.assert_allclose(exact[name].item(), case[other], rtol=1e-4, err_msg=name)  # 32-bit sums
        assert safe[name].item() == exact[name].item() or not exact[name].isfinite()
    if "loss_subgraph" in case.files:
        np.testing.assert_allclose((exact["loss"] - exact["tem"]).item(), case["loss_subgraph"], rtol=1e-4)

    exact["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        norm = parameter.grad.norm().item()
        np.testing.assert_allclose(norm, case[f"gradnorm/{name}"], rtol=1e-3, err_msg=name)  # 32-bit sums, twice
    if "grad_x" in case.files:
        assert batch.features.grad is not None
        np.testing.assert_allclose(batch.features.grad.numpy(), case["grad_x"], **SINGLE)


@torch.no_grad()
def graph_of(model: GTAD, case) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The features that are pooled and their context; what lies on the way is compared."""
    count, style = model.cfg.num_neighbours, model.cfg.style
    stem = model.backbone1[:2](torch.from_numpy(case["x"]))
    first = neighbours(stem, count)
    base = model.backbone1[2](stem, first)
    second = neighbours(base, count)
    compare_neighbours(first, torch.from_numpy(case["knn_idx_0"]).long(), stem)
    compare_neighbours(second, torch.from_numpy(case["knn_idx_1"]).long(), base)
    graph = model.backbone2[0](base, second)
    if "mid/gcnext_feature" in case.files:
        np.testing.assert_allclose(graph.numpy(), case["mid/gcnext_feature"], **SINGLE)
    index = neighbours(graph, count) if style == 1 else torch.cat((first, second), dim=2)
    return graph, at_steps(graph, index).mean(-1) if style else None


def compare_neighbours(found: torch.Tensor, stored: torch.Tensor, x: torch.Tensor) -> None:
    """The same steps, where two that are equally far within 32 bits may change places."""
    distances = [(at_steps(x, index) - x[..., None]).square().sum(1) for index in (found, stored)]
    scale = x.square().sum(1).max().item()  # what is rounded is a difference of squared norms
    np.testing.assert_allclose(*distances, rtol=0, atol=1e-5 * scale)
    assert (found == stored).float().mean() > 0.99


def pooled_map(model: GTAD, graph: torch.Tensor, around: torch.Tensor | None) -> torch.Tensor:
    """Every pooled channel at every cell of the first video: mixed with an identity."""
    channels, width = graph.shape[1], model.cfg.inner + model.cfg.used_context
    kernel = torch.eye(channels * width).unflatten(1, (channels, width))
    first = None if around is None else around[:1]
    return model.goi_align.spread(model.goi_align(graph[:1], first, kernel))[0]


def pooled_sums(model: GTAD, graph: torch.Tensor, around: torch.Tensor | None) -> torch.Tensor:
    """Every pooled channel summed over the map: the gradient of that sum, mixed with a kernel of zeros."""
    kernel = torch.zeros(1, graph.shape[1], model.cfg.inner + model.cfg.used_context, requires_grad=True)
    model.goi_align.spread(model.goi_align(graph, around, kernel)).sum().backward()
    assert kernel.grad is not None
    return kernel.grad.flatten()


@pytest.mark.parametrize("path", golden_params("align1d"))
def test_pooling_is_the_public_one_in_both_directions(path: Path, compared) -> None:
    case = np.load(path)
    for i in range(int(case["n_cases"])):
        rois, options = (
            torch.from_numpy(case[f"c{i}/rois"]),
            (int(case[f"c{i}/resolution"]), int(case[f"c{i}/sampling_ratio"])),
        )
        single = align1d(torch.from_numpy(case[f"c{i}/x"]), rois, *options)
        np.testing.assert_allclose(single.numpy(), case[f"c{i}/out"], rtol=1e-5, atol=1e-6)  # another order of sums
        x = torch.from_numpy(case[f"c{i}/x"]).double().requires_grad_()
        align1d(x, rois.double(), *options).backward(torch.from_numpy(case[f"c{i}/grad_out"]).double())
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), case[f"c{i}/grad_in"], **DOUBLE)
    compared(path)


@pytest.mark.parametrize("path", golden_params("gtad_anet_small") + golden_params("gtad_thumos_small"))
def test_a_small_model_is_the_public_one(path: Path, compared) -> None:
    case = np.load(path)
    model = loaded(case, stored_weights(case))
    graph = graph_of(model, case)
    if "mid/subgraph_map_b0" in case.files:
        np.testing.assert_allclose(pooled_map(model, *graph).numpy(), case["mid/subgraph_map_b0"], **SINGLE)
    compare_training(model, case)
    compare_double(model, case, OUTPUTS)
    compared(path)


@pytest.mark.parametrize("path", golden_params("gtad_anet_full") + golden_params("gtad_thumos_full"))
def test_the_full_model_is_the_public_one(path: Path, compared) -> None:
    case = np.load(path)
    model = loaded(case, weights_by_rule(case, GTAD(config_of(case)).state_dict()))
    sums = case["mid/subgraph_sum_per_channel"]
    np.testing.assert_allclose(
        pooled_sums(model, *graph_of(model, case)).numpy(), sums, rtol=1e-4, atol=1e-5 * np.abs(sums).max()
    )
    compare_training(model, case)
    compare_double(model, case, OUTPUTS)
    compared(path)


@pytest.mark.parametrize("path", golden_params("gtad_anet_labels"))
def test_labels_of_whole_videos_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    num_steps = int(case["temporal_scale"])
    for video in case["videos"]:
        seconds, frames, covered = (
            float(case[f"{video}/{name}"]) for name in ("duration_second", "duration_frame", "feature_frame")
        )
        segments = case[f"{video}/segments"].reshape(-1, 2).astype(np.float64)
        found = labels(segments, covered / frames * seconds, num_steps, num_steps, "activitynet")
        compare_labels(found, case, video)
    compared(path)


def compare_labels(found, case, where: str) -> None:
    for name, part in zip(("gt_iou_map", "gt_start", "gt_end"), found, strict=True):
        # one rounding to 32 bits of a ratio of differences
        np.testing.assert_allclose(part, case[f"{where}/{name}"], rtol=0, atol=1e-6, err_msg=f"{where} {name}")


SNIPPET = Timebase(fps=1.0, stride=5.0, window=5.0)
"""A clock in frames. The public code has snippet i at frame 5 i, we have its middle at frame 5 i + 2.5."""


def video_in_frames(case, name: str, num_frames: int) -> tuple[Features, Video]:
    """Features that hold their frame, and annotations moved to our clock."""
    frames = torch.arange(0, num_frames, 5.0)[:, None]
    spans = zip((case[f"ann/{name}"] + 2.5).tolist(), case[f"ann_type/{name}"].tolist(), strict=True)
    segments = tuple(Segment(start, end, label) for (start, end), label in spans)
    duration = float(5 * len(frames))
    video = Video(id=name, duration=duration, subset="", segments=segments)
    return Features(name, frames, SNIPPET, duration), video


@pytest.mark.parametrize("path", golden_params("gtad_thumos_windows_labels"))
def test_windows_and_their_labels_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    lengths = zip(case["videos"].tolist(), case["num_feature_frames"].tolist(), strict=True)
    videos = [video_in_frames(case, name, count) for name, count in lengths]
    for scale in sorted({key.split("/")[0] for key in case.files if key.startswith("T")}):
        num_steps, max_duration = int(scale[1:]), int(case[f"{scale}/max_duration"])
        cut = CutConfig(mode="windows", overlap=0.5, tail=0.2, coverage=0.9)
        every = [sample for read, video in videos for sample in cut_video(read, video, num_steps, cut)]
        kept = [sample for sample in every if holds_instance(sample, cut.coverage)]
        for name, samples in (("infer", every), ("train", kept)):
            assert [sample.id for sample in samples] == case[f"{scale}/{name}_videos"].tolist()
            assert [5 * sample.first for sample in samples] == case[f"{scale}/{name}_first_frame"].tolist()
        ends = [sample.values[0, [0, -1]].tolist() for sample in kept]
        assert ends == case[f"{scale}/train_first_last_feature"].tolist()
        for number in case[f"{scale}/label_windows"]:
            sample = kept[number]
            assert np.array_equal(sample.segments - 2.5, case[f"{scale}/{number}/gt_bbox_frames"])
            begin = 5 * sample.first - 2.5
            found = labels(
                sample.segments - sample.start,
                sample.span,
                num_steps,
                max_duration,
                "thumos14",
                map_shift=(begin - int(begin)) / 5,
            )
            compare_labels(found, case, f"{scale}/{number}")
    compared(path)


@pytest.mark.parametrize("path", golden_params("gtad_anet_pipeline"))
def test_detections_in_whole_videos_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    model = loaded(case, stored_weights(case) or weights_by_rule(case, GTAD(config_of(case)).state_dict())).eval()
    compare_maps(model, case)
    for i, video in enumerate(case["names"].tolist()):
        maps, num_steps = [case[name][i] for name in OUTPUTS], model.cfg.num_steps
        found = candidates(*maps, model.cfg.form)
        compare_candidates(found.segments / num_steps, found.scores, case[f"{video}/candidates"])
        _, seconds, _ = case[f"{video}/duration"]
        best = proposals(*maps, replace(model.cfg, soft_nms_sigma=options_of(case)["nms_thr"]))
        scores = dict(zip(case["class_names"].tolist(), case[f"{video}/cls_scores"].tolist(), strict=True))
        detections = fuse(Detections(best.segments / num_steps * seconds, best.scores), scores, top_k=2)
        compare_detections(detections, case[f"{video}/det"], case[f"{video}/det_labels"], 1e-6)
    compared(path)


THUMOS_CLASSES = {
    "BaseballPitch": 7, "BasketballDunk": 9, "Billiards": 12, "CleanAndJerk": 21, "CliffDiving": 22,
    "CricketBowling": 23, "CricketShot": 24, "Diving": 26, "FrisbeeCatch": 31, "GolfSwing": 33, "HammerThrow": 36,
    "HighJump": 40, "JavelinThrow": 45, "LongJump": 51, "PoleVault": 68, "Shotput": 79, "SoccerPenalty": 85,
    "TennisSwing": 92, "ThrowDiscus": 93, "VolleyballSpiking": 97,
}  # fmt: skip
"""Class ids from 1, as the columns of UntrimmedNet's scores are ordered."""


@pytest.mark.parametrize("path", golden_params("gtad_th_pipeline"))
def test_detections_in_windows_are_the_public_ones(path: Path, compared) -> None:
    case = np.load(path)
    options = options_of(case)
    model = loaded(case, stored_weights(case) or weights_by_rule(case, GTAD(config_of(case)).state_dict())).eval()
    skip = options["skip_videoframes"]
    cfg = replace(model.cfg, soft_nms_sigma=options["nms_thr"], num_proposals=200, longest=300 // skip)
    compare_maps(model, case)
    offsets, names = case["offsets"].tolist(), case["names"].tolist()
    for i in range(len(case["iou_map"])):
        found = candidates(*(case[name][i] for name in OUTPUTS), cfg.form)
        stored = case[f"{names[i]}/candidates/{names[i]}_{offsets[i] // 250}.csv"]
        compare_candidates(found.segments * skip + offsets[i], found.scores, stored)
    for video in sorted({key.split("/")[0] for key in case.files if key.endswith("/det")}):
        windows = []
        for file in case[f"{video}/files_in_listdir_order"].tolist():
            table = case[f"{video}/candidates/{file}"].astype(np.float64)
            found = Detections(table[:, :2] / skip, table[:, 2] * table[:, 3])
            best = suppress(found, cfg)
            windows.append(Detections(best.segments * skip, best.scores))
        fps, num_frames = case[f"{video}/fps_frames"].tolist()
        scores = {label: float(case[f"{video}/unet_row"][id - 1]) for label, id in THUMOS_CLASSES.items()}
        detections = thumos14_detections(windows, fps, num_frames, scores, cfg)
        compare_detections(detections, case[f"{video}/det"], case[f"{video}/det_labels"], 2e-6)
    compared(path)


def options_of(case) -> dict:
    return json.loads(str(case["config_json"]))


def compare_maps(model: GTAD, case) -> None:
    with torch.no_grad():
        outputs = model(torch.from_numpy(case["x"]))
    for name, output in zip(OUTPUTS, outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), case[name], **SINGLE, err_msg=name)


def compare_candidates(segments: np.ndarray, scores: np.ndarray, stored: np.ndarray) -> None:
    """Columns of the public file: start, end, classification, regression, in the order of the map's rows."""
    order = np.lexsort((stored[:, 1], stored[:, 0]))
    assert len(segments) == len(stored)
    np.testing.assert_allclose(segments, stored[order, :2], rtol=1e-6)  # fractions or frames, some stored in 32 bits
    np.testing.assert_allclose(scores, stored[order, 2] * stored[order, 3], rtol=1e-5)  # products in 32 bits


def compare_detections(found: Detections, stored: np.ndarray, stored_labels: np.ndarray, rounding: float) -> None:
    """The same detections in the same order, where scores closer than their rounding may change places."""
    assert len(found) == len(stored)
    np.testing.assert_allclose(found.scores, stored[:, 2], rtol=0, atol=rounding)
    names = np.array(found.labels)
    for label in set(stored_labels.tolist()):
        mine, theirs = names == label, stored_labels == label
        assert mine.sum() == theirs.sum()
        last = stored[theirs, 2].min()
        for start, end, score in stored[theirs & (stored[:, 2] > last + rounding)]:
            near = found.segments[mine & (np.abs(found.scores - score) <= rounding)]
            assert np.isclose(near, [start, end], rtol=0, atol=1e-6).all(axis=1).any(), (label, start, end, score)
