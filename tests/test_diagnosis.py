"""Why detections are wrong: one kind each, prices that add up, tables in the record and on the page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uptal.cli import main
from uptal.metrics import DEVKIT_RULES, detection_map, diagnose
from uptal.metrics.diagnosis import KINDS
from uptal.types import Detections, Segment, Video

TRUTH = {
    "v": Video(
        id="v",
        duration=100.0,
        subset="",
        segments=(Segment(0.0, 10.0, "a"), Segment(20.0, 24.0, "a"), Segment(40.0, 50.0, "b")),
    )
}
ROWS = {
    "hit": (0.0, 10.0, 0.9, "a"),
    "double": (0.0, 9.0, 0.8, "a"),
    "localisation": (5.0, 25.0, 0.7, "a"),
    "class": (41.0, 50.0, 0.6, "a"),
    "class and localisation": (48.0, 60.0, 0.5, "a"),
    "background": (70.0, 80.0, 0.4, "a"),
}


def found(*rows: tuple[float, float, float, str]) -> dict[str, Detections]:
    table = np.array([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3)
    return {"v": Detections(table[:, :2], table[:, 2], tuple(row[3] for row in rows))}


def test_each_false_positive_has_the_first_kind_that_fits():
    result = diagnose(TRUTH, found(*ROWS.values())).to_json()
    assert result["counts"] == dict.fromkeys(("hit", *KINDS), 1)
    assert (result["missed"], result["instances"]) == (2, 3)
    assert result["classes"]["a"] == {"instances": 2, "missed": 1, **dict.fromkeys(("hit", *KINDS), 1)}
    assert result["classes"]["b"] == {"instances": 1, "missed": 1, **dict.fromkeys(("hit", *KINDS), 0)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_price_is_the_map_that_is_gained_without_it(kind):
    rows = {**ROWS, "late": (20.0, 24.0, 0.1, "a")}  # a hit that all errors come before
    everything, without = found(*rows.values()), found(*(row for name, row in rows.items() if name != kind))
    before, after = (detection_map(TRUTH, each, tious=[0.5]).average_map for each in (everything, without))
    assert after > before
    assert diagnose(TRUTH, everything).gains[kind] == pytest.approx(after - before, abs=1e-12)


def test_missed_instances_have_a_price_too():
    gains = diagnose(TRUTH, found(ROWS["hit"])).gains
    assert gains["missed"] == pytest.approx(1 / 2 - 1 / 4, abs=1e-12)  # class a from a half to one, b stays at nothing
    assert all(gains[kind] == 0.0 for kind in KINDS)


def test_a_perfect_result_has_no_errors():
    result = diagnose(TRUTH, found((0.0, 10.0, 0.9, "a"), (20.0, 24.0, 0.8, "a"), (40.0, 50.0, 0.7, "b")))
    assert (result.kind == -1).all() and not result.missed.any() and result.mean_ap == 1.0
    assert not any(result.gains.values())


def test_only_the_best_predictions_are_counted_and_videos_without_truth_are_background():
    many = [(float(i), i + 1.0, 0.01 * i, "b") for i in range(60, 90)]
    result = diagnose(TRUTH, {**found(*many), "elsewhere": found((0.0, 10.0, 0.99, "b"))["v"]}).to_json()
    assert result["counts"]["background"] == 10  # ten for the one instance of b
    assert [sum(counts.values()) for counts in result["profile"].values()] == list(range(1, 11))


def test_instances_fall_into_groups_of_length_and_so_do_predictions():
    groups = diagnose(TRUTH, found(*ROWS.values())).to_json()["lengths"]
    assert sum(group["instances"] for group in groups) == 3
    assert [(group["from"], group["to"], group["missed"]) for group in groups] == [(4.0, 4.0, 1), (10.0, 10.0, 1)]
    assert sum(group[kind] for group in groups for kind in ("hit", *KINDS)) == 6


def test_what_a_protocol_does_not_count_is_no_error():
    unsure = {
        "v": Video(id="v", duration=9.0, subset="", segments=(*TRUTH["v"].segments, Segment(70.0, 80.0, "Ambiguous")))
    }
    result = diagnose(unsure, found(*ROWS.values()), rules=DEVKIT_RULES).to_json()
    assert result["counts"]["background"] == 0 and result["counts"]["hit"] == 1


def test_the_command_prints_the_diagnosis_and_writes_it_into_record_and_page(tmp_path, capsys):
    annotations = [{"segment": [s.start, s.end], "label": s.label} for s in TRUTH["v"].segments]
    rows = [{"segment": [a, b], "score": p, "label": label} for a, b, p, label in ROWS.values()]
    (tmp_path / "t.json").write_text(json.dumps({"database": {"v": {"annotations": annotations}}}))
    (tmp_path / "f.json").write_text(json.dumps({"results": {"v": rows}}))
    words = [
        "--truth",
        str(tmp_path / "t.json"),
        "--found",
        str(tmp_path / "f.json"),
        "--json",
        str(tmp_path / "o.json"),
    ]
    assert main(["evaluate", "detection", *words, "--report", str(tmp_path / "page.html")]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["diagnosis"]["counts"]["localisation"] == 1
    assert "missed instances" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert all(
        title in page for title in ("Errors at tIoU 0.5", "What the best predictions are", "By length", "By class")
    )
    assert main(["evaluate", "proposals", *words, "--diagnose"]) == 1
