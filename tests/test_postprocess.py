"""What suppression and fusion promise, against plain loops and by their own rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.errors import ConfigError
from uptal.postprocess import fuse, gaussian_soft_nms, nms, soft_nms
from uptal.types import Detections
from workshop import benchmark

LOOPS = benchmark("evaluate")
"""Its slow twins, written for the benchmark."""


def candidates(*rows: tuple[float, float, float], labels: tuple[str, ...] | None = None) -> Detections:
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Detections(table[:, :2], table[:, 2], labels)


def rows_of(found: Detections) -> np.ndarray:
    return np.column_stack([found.segments, found.scores])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    inside = max(min(a[1], b[1]) - max(a[0], b[0]), 0.0)
    return inside / (a[1] - a[0] + b[1] - b[0] - inside)


@st.composite
def _rows(draw) -> np.ndarray:
    """Distinct segments on a grid of a video's twentieths, scores of few values."""
    spans = st.tuples(st.integers(0, 19), st.integers(1, 20)).filter(lambda span: span[0] < span[1])
    drawn = draw(st.lists(st.tuples(spans, st.integers(1, 9)), max_size=40))
    return np.array([(s / 20, e / 20, score / 10) for (s, e), score in drawn]).reshape(-1, 3)


@settings(max_examples=100, deadline=None)
@given(_rows())
def test_soft_nms_equals_the_plain_loop(rows):
    result = soft_nms(Detections(rows[:, :2], rows[:, 2]))
    # 1e-15: math.exp and numpy's exp may differ in the last bit
    np.testing.assert_allclose(rows_of(result), LOOPS.loop_soft_nms(rows).reshape(-1, 3), rtol=1e-15, atol=0)


@settings(max_examples=100, deadline=None)
@given(_rows(), st.integers(10, 99).map(lambda hundredths: (hundredths + 0.37) / 100))
def test_nms_keeps_exactly_those_that_no_better_kept_one_covers(rows, threshold):
    """No tIoU of twentieths equals a threshold, where rounding would decide."""
    kept = rows_of(nms(Detections(rows[:, :2], rows[:, 2]), threshold=threshold, max_output=len(rows)))
    expected: list[np.ndarray] = []
    for row in rows[np.argsort(-rows[:, 2], kind="stable")]:
        if all(overlap(row, other) <= threshold for other in expected):
            expected.append(row)
    np.testing.assert_array_equal(kept, np.array(expected).reshape(-1, 3))


@settings(max_examples=60, deadline=None)
@given(_rows(), st.floats(0.05, 2.0))
def test_soft_nms_only_ever_lowers_scores_and_returns_them_in_order(rows, width):
    before = {}
    for start, end, score in rows:
        before[start, end] = max(score, before.get((start, end), 0.0))
    everything = Detections(rows[:, :2], rows[:, 2])
    for result in (soft_nms(everything, alpha=width), gaussian_soft_nms(everything, sigma=width)):
        assert (np.diff(result.scores) <= 0).all()
        assert all(score <= before[start, end] for start, end, score in rows_of(result))


def test_the_last_candidate_is_never_returned_unless_asked_for():
    three = candidates((0.0, 0.1, 0.9), (0.3, 0.4, 0.8), (0.6, 0.7, 0.7))
    for suppress in (soft_nms, lambda found, **more: gaussian_soft_nms(found, sigma=0.8, **more)):
        assert suppress(three).scores.tolist() == [0.9, 0.8]
        assert suppress(three, keep_last=True).scores.tolist() == [0.9, 0.8, 0.7]
        assert len(suppress(three.top(1))) == 0
        assert len(suppress(three.top(1), keep_last=True)) == 1


def test_no_more_are_returned_than_asked_for():
    many = candidates(*((i / 200, i / 200 + 0.004, 1 - i / 300) for i in range(150)))
    assert len(soft_nms(many)) == 100
    assert len(soft_nms(many, max_output=101)) == 101
    assert len(gaussian_soft_nms(many, sigma=0.5, max_output=7)) == 7
    assert len(nms(many, threshold=0.5, max_output=9)) == 9


def test_a_hundred_and_one_cut_to_a_hundred_is_the_same_as_a_hundred():
    rows = np.random.default_rng(0).random((400, 3))
    found = Detections(np.sort(rows[:, :2], axis=1), rows[:, 2])
    official = soft_nms(found, max_output=101).top(100)
    np.testing.assert_array_equal(rows_of(soft_nms(found)), rows_of(official))


def test_nothing_in_gives_nothing_out():
    for result in (
        soft_nms(candidates()),
        gaussian_soft_nms(candidates(), sigma=1.0),
        nms(candidates(), threshold=0.5),
    ):
        assert len(result) == 0


def test_seconds_and_fractions_of_the_video_give_the_same_scores():
    rows = np.random.default_rng(1).random((200, 3))
    spans = np.sort(rows[:, :2], axis=1)
    fractions, seconds = (
        Detections(spans, rows[:, 2]),
        Detections(spans * 64.0, rows[:, 2]),
    )  # 64 scales without rounding
    np.testing.assert_array_equal(soft_nms(fractions).scores, soft_nms(seconds, duration=64.0).scores)


def test_a_longer_candidate_tolerates_more_overlap():
    short = soft_nms(candidates((0.0, 0.10, 0.9), (0.0, 0.06, 0.8), (0.9, 1.0, 0.1)))
    long = soft_nms(candidates((0.0, 1.00, 0.9), (0.0, 0.60, 0.8), (0.9, 1.0, 0.1)))
    assert short.scores[1] == pytest.approx(0.8 * math.exp(-(0.6**2) / 0.4), rel=1e-12)  # 0.6 > 0.5 + 0.4 * 0.1
    assert long.scores[1] == 0.8  # 0.6 < 0.5 + 0.4 * 1.0


def test_candidates_that_only_touch_do_not_suppress_one_another():
    result = gaussian_soft_nms(candidates((0.0, 1.0, 0.9), (1.0, 2.0, 0.8)), sigma=0.1, keep_last=True)
    assert result.scores.tolist() == [0.9, 0.8]


def test_a_tiny_sigma_is_hard_suppression_and_ends_at_score_zero():
    result = gaussian_soft_nms(
        candidates((0.0, 1.0, 0.9), (0.1, 1.0, 0.8), (2.0, 3.0, 0.3)), sigma=1e-5, keep_last=True
    )
    assert result.scores.tolist() == [0.9, 0.3]


def test_segments_as_long_as_the_limit_are_out_from_the_start():
    rows = ((0.0, 300.0, 0.9), (0.0, 299.0, 0.5), (400.0, 410.0, 0.4))
    assert gaussian_soft_nms(candidates(*rows), sigma=0.46, longest=300.0).segments.tolist() == [
        [0.0, 299.0],
        [400.0, 410.0],
    ]


def test_different_labels_do_not_suppress_one_another():
    twins = candidates((0.0, 1.0, 0.9), (0.0, 1.0, 0.8), (0.0, 1.0, 0.7), labels=("jump", "run", "jump"))
    assert nms(twins, threshold=0.5).labels == ("jump", "run")
    soft = gaussian_soft_nms(twins, sigma=0.5, keep_last=True)
    assert soft.labels == ("jump", "run", "jump")
    assert soft.scores.tolist() == [0.9, 0.8, 0.7 * math.exp(-1 / 0.5)]


def test_what_goes_in_is_not_changed():
    given_rows = np.random.default_rng(2).random((50, 3))
    found = Detections(np.sort(given_rows[:, :2], axis=1), given_rows[:, 2].copy())
    before = rows_of(found).copy()
    (
        soft_nms(found),
        gaussian_soft_nms(found, sigma=0.5, longest=0.5),
        nms(found, threshold=0.3),
        fuse(found, {"a": 0.5}),
    )
    np.testing.assert_array_equal(rows_of(found), before)


def test_fusion_writes_every_proposal_once_for_each_of_the_best_classes():
    proposals = candidates((0.0, 1.0, 0.5), (2.0, 3.0, 0.25))
    result = fuse(proposals, {"run": 0.25, "jump": 0.5, "swim": 0.125}, top_k=2)
    assert result.labels == ("jump", "jump", "run", "run")
    assert result.scores.tolist() == [0.25, 0.125, 0.125, 0.0625]
    assert result.segments.tolist() == [[0.0, 1.0], [2.0, 3.0]] * 2


def test_fusion_takes_what_classes_there_are_and_the_first_of_equal_ones():
    proposals = candidates((0.0, 1.0, 0.5))
    assert fuse(proposals, {"a": 0.5}, top_k=5).labels == ("a",)
    assert fuse(proposals, {"b": 0.5, "a": 0.5}).labels == ("b",)
    assert len(fuse(candidates(), {"a": 0.5})) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda c: nms(c, threshold=1.5),
        lambda c: soft_nms(c, duration=0.0),
        lambda c: soft_nms(c, alpha=0.0),
        lambda c: gaussian_soft_nms(c, sigma=-1.0),
        lambda c: fuse(c, {}),
        lambda c: fuse(c, {"a": 1.0}, top_k=0),
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="found"):
        wrong(candidates((0.0, 1.0, 0.5)))
