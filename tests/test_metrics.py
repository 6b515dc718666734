"""What the detection and proposal scores promise, against plain loops and against values known beforehand."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.errors import AnnotationError, ConfigError
from uptal.metrics import STRICT_TIOUS, detection_map, only_present, overlap, proposal_recall
from uptal.types import Detections, Segment, Video
from workshop import benchmark

LOOPS = benchmark("evaluate")
"""Its slow twins, written for the benchmark."""


def video(id: str, *segments: tuple[float, float, str | None], subset: str = "validation") -> Video:
    return Video(id=id, duration=100.0, subset=subset, segments=tuple(Segment(*each) for each in segments))


def found(*rows: tuple[float, float, float], label: str | None = "jump") -> Detections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Detections(table[:, :2], table[:, 2], None if label is None else (label,) * len(table))


def perfect(truth: dict[str, Video], shift: float = 0.0) -> dict[str, Detections]:
    """Each instance as a prediction, moved by a share of its length; no two scores are equal."""
    scores = iter(np.linspace(1, 0.5, sum(len(each.segments) for each in truth.values())))
    return {
        id: Detections(
            np.array([(s.start + shift * s.duration, s.end + shift * s.duration) for s in each.segments]).reshape(
                -1, 2
            ),
            np.array([next(scores) for _ in each.segments]),
            tuple(s.label or "" for s in each.segments),
        )
        for id, each in truth.items()
    }


# A grid of few values, so that equal scores, equal overlaps, empty segments and duplicates are common.
_span = st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted)
_label = st.sampled_from(["a", "b", "c"])
_instances = st.lists(st.tuples(_span, _label), max_size=4)
_predictions = st.lists(st.tuples(_span, _label, st.integers(0, 5)), max_size=8)
_videos = st.lists(st.tuples(_instances, st.none() | _predictions), min_size=1, max_size=5)


def _corpus(drawn) -> tuple[dict[str, Video], dict[str, Detections]]:
    truth, predictions = {}, {}
    for index, (instances, rows) in enumerate(drawn):
        id = f"v{index}"
        truth[id] = video(id, *((float(s), float(e), label) for (s, e), label in instances))
        if rows is not None:
            table = np.array([(s, e, score) for (s, e), _, score in rows], dtype=np.float64).reshape(-1, 3)
            predictions[id] = Detections(table[:, :2], table[:, 2], tuple(label for _, label, _ in rows))
    anchor = video("anchor", (0.0, 5.0, "a"), (3.0, 7.0, "b"), (2.0, 2.0, "c"))  # so that each class has an instance
    return {**truth, "anchor": anchor}, predictions


@settings(max_examples=80, deadline=None)
@given(_videos)
def test_detection_scores_equal_the_plain_loop_whatever_ties_and_degenerate_segments(drawn):
    truth, predictions = _corpus(drawn)
    tious = (0.1, 1 / 3, 0.5, 1.0)
    # 1e-12: the sums run in another order
    expected = LOOPS.loop_detection_ap(truth, predictions, tious)
    np.testing.assert_allclose(detection_map(truth, predictions, tious=tious).ap, expected, rtol=0, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(_videos, st.integers(1, 12))
def test_recall_equals_the_plain_loop_to_the_last_bit(drawn, most):
    truth, predictions = _corpus(drawn)
    result = proposal_recall(truth, predictions, max_proposals=most)
    np.testing.assert_array_equal(result.recall, LOOPS.loop_recall(truth, predictions, most))
    assert math.isclose(result.proposals_per_video[-1], most, rel_tol=1e-12)


def test_fifty_generated_sets_agree_with_the_plain_loops():
    for seed in range(50):
        truth, predictions = LOOPS.corpus(np.random.default_rng(seed), 4, 12, 2)
        result = detection_map(truth, predictions)
        np.testing.assert_allclose(result.ap, LOOPS.loop_detection_ap(truth, predictions), rtol=0, atol=1e-12)
        np.testing.assert_array_equal(proposal_recall(truth, predictions).recall, LOOPS.loop_recall(truth, predictions))


def test_pairs_are_the_same_however_many_are_held_at_once(monkeypatch):
    truth, predictions = LOOPS.corpus(np.random.default_rng(1), 20, 30, 2)
    whole = detection_map(truth, predictions).ap, proposal_recall(truth, predictions).recall
    monkeypatch.setattr(overlap, "PAIRS_AT_ONCE", 7)
    np.testing.assert_array_equal(detection_map(truth, predictions).ap, whole[0])
    np.testing.assert_array_equal(proposal_recall(truth, predictions).recall, whole[1])


# ---- values known beforehand


def test_the_ground_truth_itself_scores_one():
    truth, _ = LOOPS.corpus(np.random.default_rng(0), 30, 1, 5)
    assert detection_map(truth, perfect(truth)).average_map == 1.0


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.3])
def test_shifted_ground_truth_scores_one_up_to_its_overlap_and_zero_above(shift):
    truth = {f"v{i}": video(f"v{i}", (10.0, 20.0, "a"), (50.0, 58.0, "b")) for i in range(5)}
    result = detection_map(truth, perfect(truth, shift))
    expected = [1.0 if threshold <= (1 - shift) / (1 + shift) else 0.0 for threshold in STRICT_TIOUS]
    assert result.mean_ap.tolist() == expected
    recall = proposal_recall(truth, perfect(truth, shift), max_proposals=2)
    assert recall.recall[:, -1].tolist() == expected


def test_perfect_proposals_reach_99_per_cent_because_the_curve_begins_at_one_proposal():
    truth = {f"v{i}": video(f"v{i}", (10.0, 20.0, "a")) for i in range(5)}
    guesses = {id: found((10.0, 20.0, 1.0), *((60.0 + i, 61.0 + i, 0.001 * i) for i in range(99))) for id in truth}
    result = proposal_recall(truth, guesses)
    assert result.auc == pytest.approx(0.99, abs=1e-12)  # a sum of a hundred terms
    assert set(result.average_recall) == {1.0}


def test_an_overlap_equal_to_the_threshold_counts():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    assert detection_map(truth, {"v": found((0.0, 5.0, 1.0))}, tious=[0.5]).average_map == 1.0
    assert proposal_recall(truth, {"v": found((0.0, 5.0, 1.0))}, tious=[0.5], max_proposals=1).recall[0, -1] == 1.0


def test_of_two_predictions_on_one_instance_the_better_scored_counts_and_the_other_is_false():
    truth = {"v": video("v", (0.0, 10.0, "jump"), (50.0, 60.0, "jump"))}
    twice = {"v": found((0.0, 9.0, 0.9), (0.0, 10.0, 0.8), (50.0, 60.0, 0.7))}
    # one right of one, then two right of three: 1/2 * 1 + 1/2 * 2/3
    assert detection_map(truth, twice, tious=[0.5]).average_map == pytest.approx(5 / 6, abs=1e-15)


def test_a_prediction_falls_back_to_its_second_best_instance():
    truth = {"v": video("v", (0.0, 10.0, "jump"), (1.0, 11.0, "jump"))}
    both_nearest_to_the_first = {"v": found((0.0, 10.0, 0.9), (0.0, 10.2, 0.8))}
    assert detection_map(truth, both_nearest_to_the_first, tious=[0.5]).average_map == 1.0


def test_one_proposal_may_find_several_instances_but_one_detection_only_one():
    truth = {"v": video("v", (0.0, 10.0, "jump"), (0.0, 9.0, "jump"))}
    one = {"v": found((0.0, 10.0, 0.9))}
    assert proposal_recall(truth, one, tious=[0.5], max_proposals=1).recall[0, -1] == 1.0
    assert detection_map(truth, one, tious=[0.5]).average_map == 0.5


def test_an_empty_prediction_matches_an_empty_instance_in_detection_but_not_in_recall():
    truth = {"v": video("v", (0.0, 0.0, "jump"))}
    somewhere_else = {"v": found((7.0, 7.0, 1.0))}
    assert detection_map(truth, somewhere_else).average_map == 1.0  # the official 0/0
    assert proposal_recall(truth, somewhere_else, max_proposals=1).recall.max() == 0.0


def test_videos_with_more_proposals_keep_more_of_them():
    truth = {"many": video("many", (0.0, 1.0, "a")), "few": video("few", (0.0, 1.0, "a"))}
    late = [(50.0, 60.0 + i, 1.0 - i / 100) for i in range(5)]
    predictions = {"many": found(*late, (0.0, 1.0, 0.1)), "few": found((50.0, 60.0, 0.9), (0.0, 1.0, 0.1))}
    # 8 proposals in all; 3 a video on average leave three quarters: 4 of 6 and 1 of 2, and both hits come last
    assert proposal_recall(truth, predictions, max_proposals=3).recall.max() == 0.0
    assert proposal_recall(truth, predictions, max_proposals=None).recall[0, -1] == 1.0


def test_of_equal_scores_the_later_entry_has_the_first_turn():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    right, wrong = (0.0, 10.0, 0.5), (50.0, 60.0, 0.5)
    assert detection_map(truth, {"v": found(wrong, right)}).average_map == 1.0
    assert detection_map(truth, {"v": found(right, wrong)}).average_map == 0.5


def test_the_numpy_order_of_ties_is_numpys_own():
    scores = np.round(np.random.default_rng(0).random(300), 1)
    segments = np.stack([np.arange(300.0), np.arange(300.0) + 1], axis=1)
    truth = {"v": video("v", *((float(i), i + 1.0, "jump") for i in range(0, 300, 7)))}
    result = detection_map(truth, {"v": Detections(segments, scores, ("jump",) * 300)}, tious=[0.5], ties="numpy")
    hits = (np.argsort(scores)[::-1] % 7 == 0)[None]
    precision = np.cumsum(hits) / np.arange(1, 301)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    assert result.average_map == pytest.approx((best_from_here * hits).sum() / hits.sum(), abs=1e-12)


# ---- what belongs to the evaluation and what does not


def test_a_shuffled_file_gives_the_same_bits_where_no_scores_tie():
    truth, predictions = LOOPS.corpus(np.random.default_rng(3), 40, 30, 6)
    shuffle = random.Random(0)

    def shuffled(mapping: dict) -> dict:
        items = list(mapping.items())
        shuffle.shuffle(items)
        return dict(items)

    other_truth = shuffled(truth)
    other = {}
    for id, each in shuffled(predictions).items():
        order = np.random.default_rng(5).permutation(len(each))
        other[id] = Detections(each.segments[order], each.scores[order], tuple((each.labels or ())[i] for i in order))
    first, second = detection_map(truth, predictions), detection_map(other_truth, other)
    assert first.labels == second.labels
    np.testing.assert_array_equal(first.ap, second.ap)
    assert first.average_map == second.average_map
    assert proposal_recall(truth, predictions).auc == proposal_recall(other_truth, other).auc


def test_predictions_on_videos_outside_the_ground_truth_are_false_positives_unless_blocked():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    predictions = {"elsewhere": found((0.0, 10.0, 0.9)), "v": found((0.0, 10.0, 0.5))}
    assert detection_map(truth, predictions).average_map == 0.5
    assert detection_map(truth, predictions, blocked=["elsewhere"]).average_map == 1.0


def test_blocked_videos_leave_both_sides():
    truth = {"v": video("v", (0.0, 10.0, "jump")), "gone": video("gone", (0.0, 10.0, "jump"))}
    result = detection_map(truth, {"v": found((0.0, 10.0, 0.5))}, blocked={"gone"})
    assert (result.average_map, result.num_truth) == (1.0, 1)
    assert result.to_json()["videos"] == {"truth": 1, "found": 1, "missing": 0}


def test_only_the_subset_asked_for_is_evaluated():
    truth = {"a": video("a", (0.0, 10.0, "jump")), "b": video("b", (0.0, 10.0, "run"), subset="training")}
    result = detection_map(truth, {"a": found((0.0, 10.0, 0.5))}, subset="validation")
    assert (result.labels, result.average_map) == (("jump",), 1.0)


def test_missing_videos_are_counted_and_can_be_left_out():
    truth = {id: video(id, (0.0, 10.0, "jump")) for id in "abcd"}
    predictions = {"a": found((0.0, 10.0, 0.5)), "b": found(), "foreign": found()}
    result = detection_map(truth, predictions)
    assert result.to_json()["videos"] == {"truth": 4, "found": 3, "missing": 2}
    assert detection_map(only_present(truth, predictions), predictions).average_map == 0.5


def test_nothing_found_scores_zero():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    for nothing in ({}, {"v": found()}, {"v": found(label=None)}):
        assert detection_map(truth, nothing).average_map == 0.0
        assert proposal_recall(truth, nothing).auc == 0.0
        assert proposal_recall(truth, nothing, max_proposals=None).auc == 0.0


def test_an_unknown_label_stops_the_evaluation_and_is_named():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    with pytest.raises(AnnotationError, match=r"1 predictions bear 1 labels .*'jmup'.*--unknown-labels"):
        detection_map(truth, {"v": found((0.0, 10.0, 0.5), label="jmup")})


def test_an_unknown_label_counts_in_no_class_where_it_is_allowed():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    rows = Detections(np.array([[0.0, 10.0], [0.0, 10.0]]), np.array([0.9, 0.5]), ("swim", "jump"))
    result = detection_map(truth, {"v": rows}, unknown_labels="false-positive")
    assert (result.average_map, result.num_predictions, result.num_unknown_labels) == (1.0, 1, 1)


def test_single_precision_predictions_are_taken():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    rows = Detections(np.array([[0, 10]], dtype=np.float32), np.array([0.5], dtype=np.float32), ("jump",))
    assert detection_map(truth, {"v": rows}).average_map == 1.0


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (lambda t: detection_map(t, {"v": found((0.0, 1.0, 0.5), label=None)}), "no labels"),
        (lambda t: detection_map(t, {"v": found((0.0, 1.0, math.nan))}), "'v': a predicted score or time is NaN"),
        (lambda t: proposal_recall(t, {"v": found((0.0, math.nan, 0.5))}), "'v': a predicted score or time is NaN"),
        (lambda t: detection_map(t, {}, subset="test"), "subset asked for 'test', subsets found 'validation'"),
        (lambda t: detection_map({}, {}), "no instance to evaluate"),
        (lambda t: detection_map({"v": video("v", (0.0, 1.0, None))}, {}), "'v': an instance has no label"),
    ],
)
def test_files_that_cannot_be_evaluated_are_refused_with_a_reason(problem, message):
    with pytest.raises(AnnotationError, match=message):
        problem({"v": video("v", (0.0, 10.0, "jump"))})


@pytest.mark.parametrize("tious", [[], [0.0], [0.5, 1.1], [math.nan]])
def test_impossible_thresholds_are_refused(tious):
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    with pytest.raises(ConfigError, match="tIoU thresholds"):
        detection_map(truth, {}, tious=tious)


def test_impossible_numbers_of_proposals_are_refused():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    with pytest.raises(ConfigError, match="at least 1"):
        proposal_recall(truth, {}, max_proposals=0)
    with pytest.raises(ConfigError, match="off the curve"):
        proposal_recall(truth, {}, max_proposals=50).at(51.0)


# ---- the public keys


def test_detection_json_holds_the_promised_keys_as_fractions():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    report = detection_map(truth, {"v": found((0.0, 8.0, 0.5))}).to_json()
    assert list(report) == ["mAP", "average_mAP", "videos"]
    assert list(report["mAP"]) == ["0.50", "0.55", "0.60", "0.65", "0.70", "0.75", "0.80", "0.85", "0.90", "0.95"]
    assert report["mAP"]["0.80"] == 1.0 and report["mAP"]["0.85"] == 0.0
    assert report["average_mAP"] == pytest.approx(0.7)


def test_thresholds_that_two_decimals_cannot_tell_apart_keep_their_own_keys():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    assert list(detection_map(truth, {}, tious=[0.125, 0.13, 0.3]).to_json()["mAP"]) == ["0.125", "0.13", "0.30"]


def test_proposal_json_holds_the_promised_keys_as_fractions():
    truth = {"v": video("v", (0.0, 10.0, "jump"))}
    report = proposal_recall(truth, {"v": found((0.0, 10.0, 0.5))}).to_json()
    assert list(report) == ["AR", "AUC", "videos"]
    assert list(report["AR"]) == ["1", "5", "10", "100"]
    assert report["AR"]["100"] == 1.0 and 0 <= report["AUC"] <= 1


def test_recall_at_a_number_of_proposals_is_read_off_the_curve_whatever_its_length():
    truth = {"v": video("v", (0.0, 1.0, "a"))}
    rows = [(50.0, 51.0 + i, 1.0 - i / 100) for i in range(10)]
    rows[4] = (0.0, 1.0, rows[4][2])
    result = proposal_recall(truth, {"v": found(*rows)}, max_proposals=10)
    assert (result.at(4.0), result.at(5.0)) == (0.0, 1.0)
    assert result.to_json()["AR"]["5"] == 0.0  # the fifth of the hundred points, which is half a proposal


@pytest.mark.reliability
def test_a_hundred_thousand_predictions_take_less_than_ten_seconds():
    truth, predictions = LOOPS.corpus(np.random.default_rng(0), 1000, 100, 20)
    begin = time.monotonic()
    detection_map(truth, predictions)
    proposal_recall(truth, predictions)
    assert sum(map(len, predictions.values())) == 100_000
    assert time.monotonic() - begin < 10  # about 0.2 s are needed: a bound for machines, not a measurement
