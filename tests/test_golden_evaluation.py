"""Evaluators and Soft-NMS against stored outputs of the official implementations, read through our own readers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from conftest import GOLDEN, golden_params
from uptal.annotations import read_activitynet, read_detections, write_detections
from uptal.metrics import STRICT_TIOUS, Ties, detection_map, proposal_recall
from uptal.postprocess import gaussian_soft_nms, soft_nms
from uptal.types import Detections, Video

pytestmark = pytest.mark.golden

EXACT = 1e-12
"""Sums of the same numbers in another order."""
LOOSE = 0.02
"""An unstable sort orders tied scores by processor and numpy version; results then move by up to about a point."""

Case = tuple[dict, dict[str, Video], dict[str, Detections], Mapping[str, np.ndarray]]


def _case(path: Path, folder: Path) -> Case:
    """The case's description, ground truth and predictions, and the official results."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    for name in ("ground_truth", "predictions"):
        (folder / name).write_text(json.dumps(content[name]))
    expected = np.load(path.with_name(path.name.replace(".json.gz", ".expected.npz")))
    return content["meta"], read_activitynet(folder / "ground_truth"), read_detections(folder / "predictions"), expected


def _variants(expected: Mapping[str, np.ndarray], last: str) -> Iterator[tuple[str, Ties, bool]]:
    """Each prefix of the stored results, the order of ties it was made with, and whether that order mattered."""
    names = list(expected)
    for prefix in (name.removesuffix(last) for name in names if name == last or name.endswith("_" + last)):
        if "stable" in prefix:
            yield prefix, "later-first", False
        else:
            twin = f"stable_{prefix}{last}"
            yield prefix, "numpy", twin in names and not np.array_equal(expected[twin], expected[prefix + last])


def _compare_detection(case: Case) -> None:
    meta, truth, found, expected = case
    subset = meta.get("subset", "test")
    for prefix, ties, unsettled in _variants(expected, "ap"):
        tious = STRICT_TIOUS if len(expected[prefix + "ap"]) == 10 else (0.3, 0.4, 0.5, 0.6, 0.7)
        blocked = meta["blocked"] if "blocked" in prefix else ()
        result = detection_map(truth, found, tious=tious, subset=subset, blocked=blocked, ties=ties)
        order = [result.labels.index(label) for label in expected[prefix + "classes"]]
        assert result.num_truth == expected[prefix + "n_gt"]
        assert result.num_predictions == expected[prefix + "n_pred"]
        if unsettled:
            assert result.average_map == pytest.approx(float(expected[prefix + "avg_mAP"]), abs=LOOSE)
            continue
        np.testing.assert_allclose(result.ap[:, order], expected[prefix + "ap"], rtol=0, atol=EXACT)
        np.testing.assert_allclose(result.mean_ap, expected[prefix + "mAP"], rtol=0, atol=EXACT)
        assert result.average_map == pytest.approx(float(expected[prefix + "avg_mAP"]), abs=EXACT)


@pytest.mark.parametrize("path", golden_params("anet_det"))
def test_detection_map_equals_the_official_evaluator(path, tmp_path, compared):
    _compare_detection(_case(path, tmp_path))
    compared(path)


@pytest.mark.parametrize("path", golden_params("thumos_gtad_eval"))
def test_the_same_code_equals_the_evaluator_that_gtad_runs_on_thumos(path, tmp_path, compared):
    _compare_detection(_case(path, tmp_path))
    compared(path)


@pytest.mark.parametrize("path", golden_params("anet_prop"))
def test_proposal_recall_equals_the_official_evaluator(path, tmp_path, compared):
    meta, truth, found, expected = _case(path, tmp_path)
    for prefix, ties, unsettled in _variants(expected, "recall"):
        if prefix.endswith("avg_"):
            continue
        most = None if "maxnone" in prefix else meta["max_avg_nr_proposals"]
        result = proposal_recall(truth, found, subset=meta["subset"], max_proposals=most, ties=ties)
        tolerance = LOOSE if unsettled else EXACT
        assert (result.num_truth, result.num_proposals) == (expected[prefix + "n_gt"], expected[prefix + "n_prop"])
        np.testing.assert_array_equal(result.proposals_per_video, expected[prefix + "proposals_per_video"])
        assert result.auc == pytest.approx(expected[prefix + "auc_percent"] / 100, abs=tolerance)
        if unsettled:
            continue
        np.testing.assert_array_equal(result.recall, expected[prefix + "recall"])
        np.testing.assert_array_equal(result.average_recall, expected[prefix + "avg_recall"])
        for point, value in result.to_json()["AR"].items():
            assert value == pytest.approx(float(expected[f"{prefix}AR@{point}"]), abs=EXACT)
    compared(path)


def _one(name: str) -> Path:
    """The golden file of this name, wherever in the folder; skips when it is absent."""
    paths = sorted(GOLDEN.rglob(name))
    if not paths:
        pytest.skip(f"no golden file '{name}' in {GOLDEN} (set UPTAL_GOLDEN to the folder that holds it)")
    return paths[0]


def _official_truth(path: Path, folder: Path) -> dict[str, Video]:
    (folder / "truth.json").write_bytes(gzip.decompress(path.read_bytes()))
    return read_activitynet(folder / "truth.json", subset="validation")


def test_the_perfect_submission_on_the_whole_validation_set(tmp_path, compared):
    """The official sample file holds the ground truth with score 1; here it is rebuilt from that ground truth."""
    names = (
        "anet_sample_detection.expected.npz",
        "anet_val_full_reconstructed_gt.json.gz",
        "anet_val4728_gt.json.gz",
    )
    paths = [_one(name) for name in names]
    expected = np.load(paths[0])
    truth, fewer = (_official_truth(path, tmp_path) for path in paths[1:])
    perfect = {
        id: Detections(
            np.array([(s.start, s.end) for s in each.segments]),
            np.ones(len(each.segments)),
            tuple(s.label or "" for s in each.segments),
        )
        for id, each in truth.items()
    }
    write_detections(tmp_path / "perfect.json", perfect)
    found = read_detections(tmp_path / "perfect.json")
    assert detection_map(truth, found).average_map == float(expected["full4926_avg_mAP"]) == 1.0
    blocked = expected["blocked_list"].tolist()
    assert detection_map(fewer, found, blocked=blocked).average_map == float(expected["val4728_blocked_avg_mAP"]) == 1.0
    for prefix, videos in (("full4926_prop_", truth), ("val4728_prop_", fewer)):
        result = proposal_recall(videos, found)
        np.testing.assert_array_equal(result.recall, expected[prefix + "recall"])
        assert result.auc == pytest.approx(float(expected[prefix + "auc_percent"]) / 100, abs=EXACT)
    for path in paths:
        compared(path)


def _table(found: Detections) -> np.ndarray:
    return np.column_stack([found.segments, found.scores])


def _same(found: Detections, expected: np.ndarray) -> None:
    # 1e-12: the loop is the same, exp may differ in the last bit
    np.testing.assert_allclose(_table(found), expected.reshape(-1, 3), rtol=1e-12, atol=0)


@pytest.mark.parametrize("path", golden_params("softnms"))
def test_soft_nms_equals_the_official_loops(path, compared):
    golden = np.load(path)
    for case in range(int(golden["n_cases"])):
        order = golden[f"bmn{case}/sorted_in_order"]  # the order that pandas gave to ties
        rows = golden[f"bmn{case}/in"][order]
        found = Detections(rows[:, :2], rows[:, 2])
        _same(soft_nms(found, max_output=101), golden[f"bmn{case}/out"])
        other = soft_nms(found, alpha=0.75, low=0.65, high=0.9, max_output=101)
        _same(other, golden[f"bmn{case}/out_a0.75_t0.65_0.9"])
        _same(gaussian_soft_nms(found, sigma=0.8), golden[f"bmn{case}/gtad_anet_out"])
        frames = golden[f"th{case}/in"][order]
        windows = Detections(frames[:, :2], frames[:, 2])
        _same(gaussian_soft_nms(windows, sigma=0.46, max_output=200, longest=300.0), golden[f"th{case}/out"])
        hard = gaussian_soft_nms(windows, sigma=1e-5, max_output=200, longest=300.0)
        _same(hard, golden[f"th{case}/out_default_sigma1e-5"])
    compared(path)


@pytest.mark.parametrize("path", golden_params("bmn_pipeline"))
def test_soft_nms_turns_the_official_candidates_into_the_official_proposals(path):
    golden = np.load(path)
    for id in golden["videos"]:
        rows = golden[f"{id}/candidates"]
        kept = soft_nms(Detections(rows[:, :2], rows[:, -1]))
        frames, seconds, _ = golden[f"{id}/duration"]
        covered = frames // 16 * 16 / frames * seconds
        _same(Detections(kept.segments.clip(0, 1) * covered, kept.scores), golden[f"{id}/proposals"])
