"""A hundred rows a video, as the public BMN code made them."""

from __future__ import annotations

import numpy as np
import pytest

from uptal.errors import AnnotationError
from uptal.features import csv_mean_100


def by_hand(values: np.ndarray, num_frames: float, seconds: float, num_steps: int) -> np.ndarray:
    """The rule, one row and one sample at a time."""
    step = 16 / (num_frames / seconds)
    times = [step / 2 + k * step for k in range(len(values))]
    covered = len(values) * 16 / num_frames * seconds
    rows = []
    for i in range(num_steps):
        low = max(times[0] + 1e-4, i / num_steps * covered)
        high = min(times[-1] - 1e-4, (i + 1) / num_steps * covered)
        if high < times[0] or low > times[-1]:
            rows.append(np.zeros(values.shape[1]))
            continue
        at = [low, (low + high) / 2, high]
        rows.append(np.mean([[np.interp(t, times, column) for column in values.T] for t in at], axis=0))
    return np.array(rows)


@pytest.mark.parametrize(("snippets", "num_steps"), [(2, 10), (5, 100), (40, 100), (250, 100), (33, 7)])
def test_rows_are_means_of_three_interpolated_samples(snippets, num_steps):
    values = np.random.default_rng(snippets).normal(size=(snippets, 3))
    frames, seconds = snippets * 16 + 5, snippets * 0.61
    found = csv_mean_100(values, frames, seconds, num_steps=num_steps)
    np.testing.assert_allclose(found, by_hand(values, frames, seconds, num_steps), atol=1e-9)  # products in 64 bits


def test_a_short_video_begins_and_ends_with_zeros():
    rows = csv_mean_100(np.ones((4, 2), np.float32), 64, 2.0)
    assert rows.dtype == np.float32 and rows.shape == (100, 2)
    assert not rows[:12].any() and not rows[-12:].any() and (rows[13:-13] == pytest.approx(1.0))


def test_one_snippet_is_repeated():
    assert csv_mean_100(np.array([[3.0, 4.0]]), 20, 0.8, num_steps=3).tolist() == [[3.0, 4.0]] * 3


@pytest.mark.parametrize(("count", "frames", "seconds"), [(0, 16, 1.0), (3, 0, 1.0), (3, 16, 0.0)])
def test_nothing_is_refused(count, frames, seconds):
    with pytest.raises(AnnotationError, match="csv_mean_100 needs features"):
        csv_mean_100(np.zeros((count, 2)), frames, seconds)
