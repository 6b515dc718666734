"""The rules of the THUMOS'14 toolkit against plain loops and known values, and what each protocol does to the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.cli import main
from uptal.errors import AnnotationError, ConfigError
from uptal.metrics import DEVKIT_RULES, UPDATED_DEVKIT_RULES, Rules, detection_map
from uptal.metrics.precision import RECALL_POINTS
from uptal.recipes.evaluating import Evaluation, evaluate_detection, evaluate_proposals
from uptal.recipes.protocols import PROTOCOLS
from uptal.types import Detections, Segment, Video

KITS = {"devkit": DEVKIT_RULES, "updated": UPDATED_DEVKIT_RULES}


def video(id: str, *segments: tuple[float, float, str], subset: str = "test") -> Video:
    return Video(id=id, duration=100.0, subset=subset, segments=tuple(Segment(*each) for each in segments))


def found(*rows: tuple[float, float, float, str]) -> Detections:
    table = np.array([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3)
    return Detections(table[:, :2], table[:, 2], tuple(row[3] for row in rows))


def kit_map(
    truth: Mapping[str, Video], predictions: Mapping[str, Detections], rules: Rules, tiou: float = 0.5
) -> float:
    return detection_map(truth, predictions, tious=[tiou], rules=rules).average_map


# ---- the toolkit's rules, one video, instance and detection after the other


def _loop_ap(truth: Mapping[str, Video], predictions: Mapping[str, Detections], tiou: float, updated: bool) -> list:
    labels = sorted({s.label or "" for v in truth.values() for s in v.segments} - {"Ambiguous"})
    return [_loop_class_ap(truth, predictions, label, tiou, updated) for label in labels]


def _loop_class_ap(truth, predictions, label: str, tiou: float, updated: bool) -> float:
    right: list[float] = []
    wrong: list[float] = []
    in_order: list[tuple[float, bool]] = []
    count = sum(s.label == label for v in truth.values() for s in v.segments)
    for id in sorted({*truth, *predictions}):
        segments = truth[id].segments if id in truth else ()
        rows = [s for s in (predictions[id].as_segments() if id in predictions else []) if s.label == label]
        rows.sort(key=lambda s: -(s.score or 0.0))
        taken = [False] * len(rows)
        for instance in (s for s in segments if s.label == label):
            free = [i for i in range(len(rows)) if not taken[i]]
            if free:
                best = max(free, key=lambda i: _hull(instance, rows[i]))  # the first of equal ones
                taken[best] = taken[best] or _hull(instance, rows[best]) > tiou
        for row, hit in zip(rows, taken, strict=True):
            unsure = any(_hull(row, s) > 0 for s in segments if s.label == "Ambiguous")
            if hit or not unsure:
                (right if hit else wrong).append(row.score or 0.0)
                in_order.append((row.score or 0.0, hit))
    if not right:
        return 0.0
    listed = in_order if updated else [(s, True) for s in right] + [(s, False) for s in wrong]
    hits = [hit for _, hit in sorted(listed, key=lambda row: -row[0])]
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    if updated:
        return sum(p for p, hit in zip(precision, hits, strict=True) if hit) / count
    recall = [sum(hits[: i + 1]) / count for i in range(len(hits))]
    reached = [[p for p, r in zip(precision, recall, strict=True) if r >= point] for point in RECALL_POINTS]
    return sum(max(some, default=0.0) for some in reached) / 11


def _hull(one: Segment, other: Segment) -> float:
    (a, b), (c, d) = sorted([one.start, one.end]), sorted([other.start, other.end])
    inside = min(b, d) - max(a, c)
    return inside / (max(b, d) - min(a, c)) if inside > 0 else 0.0


# A grid of few values, so that equal scores and overlaps, empty and inverted segments and duplicates are common.
_span = st.tuples(st.integers(0, 8), st.integers(0, 8))
_instances = st.lists(st.tuples(_span.map(sorted), st.sampled_from(["a", "b", "Ambiguous"])), max_size=5)
_predictions = st.lists(st.tuples(_span, st.sampled_from(["a", "b"]), st.integers(0, 4)), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_instances, st.none() | _predictions), min_size=1, max_size=4), st.booleans())
def test_the_toolkits_rules_equal_the_plain_loops_whatever_ties_and_degenerate_segments(drawn, updated):
    truth, predictions = {"anchor": video("anchor", (0.0, 5.0, "a"), (3.0, 7.0, "b"))}, {}
    for index, (instances, rows) in reversed(list(enumerate(drawn))):
        truth[f"v{index}"] = video(f"v{index}", *((float(s), float(e), label) for (s, e), label in instances))
        if rows is not None:
            predictions[f"v{index}"] = found(*((float(s), float(e), float(p), label) for (s, e), label, p in rows))
    tious = (0.1, 1 / 3, 0.5)
    rules = UPDATED_DEVKIT_RULES if updated else DEVKIT_RULES
    expected = [_loop_ap(truth, predictions, tiou, updated) for tiou in tious]
    scores = detection_map(truth, predictions, tious=tious, rules=rules)
    # 1e-12: sums of the same numbers in another order
    np.testing.assert_allclose(scores.ap, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rules", KITS.values(), ids=KITS)
class TestTheToolkit:
    def test_the_ground_truth_itself_scores_one(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"), (20.0, 30.0, "a"), (50.0, 60.0, "b"), (70.0, 80.0, "Ambiguous"))}
        perfect = {"v": found((0.0, 10.0, 0.9, "a"), (20.0, 30.0, 0.8, "a"), (50.0, 60.0, 0.7, "b"))}
        assert kit_map(truth, perfect, rules) == pytest.approx(1.0, abs=1e-12)  # a mean of eleven ones

    def test_an_overlap_equal_to_the_threshold_is_not_enough(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"))}
        half = {"v": found((0.0, 5.0, 0.9, "a"))}
        assert kit_map(truth, half, rules, 0.5) == 0.0
        assert kit_map(truth, half, rules, 0.49) == pytest.approx(1.0, abs=1e-12)

    def test_an_unmatched_detection_that_touches_an_ambiguous_stretch_does_not_count(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"), (50.0, 60.0, "Ambiguous"))}
        right = (0.0, 10.0, 0.5, "a")
        assert kit_map(truth, {"v": found((59.0, 70.0, 0.9, "a"), right)}, rules) == pytest.approx(1.0, abs=1e-12)
        assert kit_map(truth, {"v": found((60.0, 70.0, 0.9, "a"), right)}, rules) == pytest.approx(0.5, abs=1e-12)

    def test_a_hit_that_touches_an_ambiguous_stretch_counts(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"), (0.0, 10.0, "Ambiguous"))}
        assert kit_map(truth, {"v": found((0.0, 10.0, 0.9, "a"))}, rules) == pytest.approx(1.0, abs=1e-12)

    def test_the_instance_takes_the_nearest_detection_however_low_its_score(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"))}
        near_but_low = {"v": found((0.0, 8.0, 0.9, "a"), (0.0, 9.0, 0.1, "a"))}
        assert kit_map(truth, near_but_low, rules) == pytest.approx(0.5, abs=1e-12)
        assert detection_map(truth, near_but_low, tious=[0.5]).average_map == 1.0  # ActivityNet: the better score

    def test_videos_outside_the_ground_truth_hold_false_positives(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"))}
        predictions = {"elsewhere": found((0.0, 10.0, 0.9, "a")), "v": found((0.0, 10.0, 0.5, "a"))}
        assert kit_map(truth, predictions, rules) == pytest.approx(0.5, abs=1e-12)

    def test_the_order_of_ties_cannot_be_numpys(self, rules):
        truth = {"v": video("v", (0.0, 10.0, "a"))}
        with pytest.raises(ConfigError, match="own way"):
            detection_map(truth, {}, rules=rules, ties="numpy")


def test_of_equal_scores_the_older_toolkit_counts_hits_first_and_the_updated_one_goes_by_name():
    truth = {"b": video("b", (0.0, 10.0, "a"))}
    tied = {"b": found((0.0, 10.0, 0.5, "a")), "a": found((0.0, 10.0, 0.5, "a"))}
    assert kit_map(truth, tied, DEVKIT_RULES) == pytest.approx(1.0, abs=1e-12)
    assert kit_map(truth, tied, UPDATED_DEVKIT_RULES) == 0.5


def test_eleven_points_are_generous_to_the_first_hit():
    truth = {"v": video("v", *((10.0 * i, 10.0 * i + 5, "a") for i in range(10)))}
    one = {"v": found((0.0, 5.0, 0.9, "a"))}
    assert kit_map(truth, one, DEVKIT_RULES) == pytest.approx(2 / 11, abs=1e-12)  # at the recalls 0 and 0.1
    assert kit_map(truth, one, UPDATED_DEVKIT_RULES) == pytest.approx(1 / 10, abs=1e-12)


# ---- what the protocols do to the ground truth


def test_gtads_protocol_drops_ambiguous_stretches_and_three_videos_and_says_so():
    truth = {
        "video_test_0000004": video("video_test_0000004", (0.0, 1.0, "Diving"), (2.0, 3.0, "Ambiguous")),
        "video_test_0000270": video("video_test_0000270", (0.0, 1.0, "HammerThrow")),
    }
    kept, done = PROTOCOLS["thumos14"].ground_truth(truth)
    assert [s.label for v in kept.values() for s in v.segments] == ["Diving"]
    assert done == {"ambiguous": {"instances": 1, "treated_as": "dropped"}, "absent_videos": ["video_test_0000270"]}
    for name in ("activitynet", "thumos14-devkit", "thumos14-devkit-updated"):
        kept, done = PROTOCOLS[name].ground_truth(truth)
        assert kept == truth and done["absent_videos"] == []


# ---- the record


@pytest.fixture
def files(tmp_path):
    truth = {
        id: {"subset": "test", "duration": 50, "annotations": [{"segment": [0, 10], "label": "Diving"}]}
        for id in ("a", "b")
    }
    truth["b"]["annotations"].append({"segment": [20, 30], "label": "Ambiguous"})
    rows = [
        {"segment": [0, 10], "score": 0.9, "label": "Diving"},
        {"segment": [20, 30], "score": 0.95, "label": "Diving"},
    ]
    (tmp_path / "truth.json").write_text(json.dumps({"database": truth}))
    (tmp_path / "found.json").write_text(json.dumps({"results": {"b": rows}, "uptal": {"run": "runs/x", "seed": 3}}))
    return tmp_path


def _evaluate(folder, protocol: str, task=evaluate_detection, **more) -> dict:
    return task(
        Evaluation(truth=str(folder / "truth.json"), found=str(folder / "found.json"), protocol=protocol, **more)
    )


def test_a_number_stands_beside_its_settings_sources_and_missing_videos(files):
    record = _evaluate(files, "thumos14")
    assert record["mAP"].keys() == {"0.30", "0.40", "0.50", "0.60", "0.70"}
    assert record["average_mAP"] == pytest.approx(0.25, abs=1e-12)  # half the recall at half the precision
    assert record["without_missing_videos"]["average_mAP"] == pytest.approx(0.5, abs=1e-12)
    assert record["missing_videos"] == ["a"] and record["videos"] == {"truth": 2, "found": 1, "missing": 1}
    assert record["ground_truth"]["ambiguous"] == {"instances": 1, "treated_as": "dropped"}
    assert len(record["ground_truth"]["sha256"]) == len(record["result"]["sha256"]) == 64
    assert record["result"]["made_by"] == {"run": "runs/x", "seed": 3}
    assert record["settings"]["subset"] == "test" and record["settings"]["ties"] == "later-first"
    assert record["classes"] == {"Diving": {"instances": 2, "AP": [pytest.approx(0.25)] * 5}}
    json.dumps(record, allow_nan=False)


def test_the_toolkit_does_not_punish_what_it_is_unsure_about(files):
    assert _evaluate(files, "thumos14-devkit-updated")["average_mAP"] == pytest.approx(0.5, abs=1e-12)


def test_where_every_video_is_there_nothing_is_said_about_missing_ones(files):
    record = _evaluate(files, "thumos14", blocked=("a",))
    assert "without_missing_videos" not in record and record["missing_videos"] == []


def test_ids_that_look_like_paths_are_compared_as_they_are(files):
    for name in ("truth.json", "found.json"):
        (files / name).write_text((files / name).read_text().replace('"b"', '"../b/c"'))
    assert _evaluate(files, "thumos14")["videos"] == {"truth": 2, "found": 1, "missing": 1}


def test_classes_that_occur_in_missing_videos_alone_are_known(files):
    """A result of a part of the videos may name every class of the ground truth."""
    truth = json.loads((files / "truth.json").read_text())
    truth["database"]["a"]["annotations"].append({"segment": [20, 30], "label": "Shotput"})
    (files / "truth.json").write_text(json.dumps(truth))
    found = json.loads((files / "found.json").read_text())
    found["results"]["b"].append({"segment": [40, 45], "score": 0.99, "label": "Shotput"})
    (files / "found.json").write_text(json.dumps(found))
    record = _evaluate(files, "thumos14")
    assert record["average_mAP"] == pytest.approx(0.125, abs=1e-12)  # 0.25 of the dives, no throw
    assert record["without_missing_videos"]["average_mAP"] == pytest.approx(0.5, abs=1e-12)
    found["results"]["b"][-1]["label"] = "Nap"
    (files / "found.json").write_text(json.dumps(found))
    with pytest.raises(AnnotationError, match="'Nap'"):
        _evaluate(files, "thumos14")


@pytest.mark.parametrize(
    ("task", "words", "whose"),
    [
        ("detection", ["--max-proposals", "50"], "proposals"),
        ("proposals", ["--unknown-labels", "error"], "detection"),
        ("proposals", ["--diagnose"], "detection"),
        ("proposals", ["--report", "page.html"], "detection"),
        ("grounding", ["--unknown-labels", "false-positive"], "detection"),
        ("grounding", ["--max-proposals", "none"], "proposals"),
        ("grounding", ["--ties", "stable"], "detection and proposals"),
        ("grounding", ["--report", "page.html"], "detection"),
    ],
)
def test_options_of_another_task_are_refused(task, words, whose, files, capsys):
    data = ["--truth", str(files / "truth.json"), "--found", str(files / "found.json")]
    assert main(["evaluate", task, *data, *words]) == 1
    assert f"{words[0]} is for {whose}; leave it out for {task}." in capsys.readouterr().err.replace("\n", " ")


def test_proposals_have_no_toolkit(files):
    assert _evaluate(files, "thumos14", evaluate_proposals)["missing_videos"] == ["a"]
    with pytest.raises(ConfigError, match="scores detections only"):
        _evaluate(files, "thumos14-devkit", evaluate_proposals)


def test_the_command_takes_every_protocol_and_order_of_ties(files, capsys):
    words = ["evaluate", "detection", "--truth", str(files / "truth.json"), "--found", str(files / "found.json")]
    for protocol in PROTOCOLS:
        assert main([*words, "--protocol", protocol]) == 0
    assert main([*words, "--protocol", "thumos14", "--ties", "numpy", "--json", str(files / "out.json")]) == 0
    record = json.loads((files / "out.json").read_text())
    assert record["settings"]["ties"] == "numpy" and record["protocol"] == "thumos14"
    out = capsys.readouterr().out
    assert "1 instances are labelled Ambiguous: dropped" in out and "without the missing ones" in out
    assert main([*words, "--protocol", "thumos14-devkit", "--ties", "numpy"]) == 1


def test_all_of_a_files_times_and_scores_are_finite_or_it_is_refused(files, capsys):
    (files / "found.json").write_text('{"results": {"a": [{"segment": [0, 1], "score": NaN, "label": "Diving"}]}}')
    words = ["evaluate", "detection", "--truth", str(files / "truth.json"), "--found", str(files / "found.json")]
    assert main([*words, "--protocol", "thumos14"]) == 1
    assert "video 'a', entry 0, score: found nan" in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda p: p * 1000, lambda p: p - 5, lambda p: math.log(p)])
def test_scores_outside_zero_to_one_only_rank(change):
    truth = {"v": video("v", (0.0, 10.0, "a"), (20.0, 30.0, "a"))}
    rows = [(0.0, 10.0, 0.3, "a"), (50.0, 60.0, 0.5, "a"), (20.0, 30.0, 0.7, "a")]
    other = [(start, end, change(score), label) for start, end, score, label in rows]
    for rules in (Rules(), *KITS.values()):
        assert kit_map(truth, {"v": found(*rows)}, rules) == kit_map(truth, {"v": found(*other)}, rules)
