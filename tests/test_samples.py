"""How videos become samples: nothing lost, nothing moved in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from uptal.errors import AnnotationError, ConfigError
from uptal.features import Features
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.samples import CutConfig, cut_video, holds_instance, on_video, window_starts
from uptal.types import Detections, Segment, Timebase, Video

WINDOWS = CutConfig(mode="windows")


def clock(count: int = 23, fps: float = 10.0, stride: float = 4.0, window: float = 8.0) -> Features:
    """Features that hold the second of their centre."""
    base = Timebase(fps=fps, stride=stride, window=window)
    values = torch.tensor([[base.centre(i), 1.0, 0.0, 0.0] for i in range(count)])
    return Features("clock", values, base, ((count - 1) * stride + window) / fps)


def annotated(*spans: tuple[float, float]) -> Video:
    return Video(id="clock", duration=9.6, subset="", segments=tuple(Segment(a, b, "x") for a, b in spans))


class TestWindows:
    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
    def test_every_feature_is_in_some_window(self, overlap):
        for count in range(1, 60):
            for length in (1, 2, 5, 16):
                starts = window_starts(count, length, CutConfig(mode="windows", overlap=overlap))
                seen = {i for start in starts for i in range(start, min(count, start + length))}
                assert seen == set(range(count)) and len(set(starts)) == len(starts)
                assert all(start + length <= count for start in starts) or starts == [0]

    def test_a_short_rest_gets_no_window_where_the_rule_says_so(self):
        assert window_starts(22, 10, CutConfig(mode="windows", tail=0.2)) == [0, 5, 10]
        assert window_starts(23, 10, CutConfig(mode="windows", tail=0.2)) == [0, 5, 10, 13]

    def test_steps_keep_their_second(self):
        read = clock()
        for sample in cut_video(read, None, 6, WINDOWS):
            middle = sample.start + (np.arange(sample.num_valid) + 0.5) * sample.step
            assert np.allclose(middle, sample.values[0, : sample.num_valid])
            assert sample.span == pytest.approx(6 * 0.4)

    def test_a_short_video_is_filled_with_zeros(self):
        (sample,) = cut_video(clock(3), None, 8, WINDOWS)
        assert (sample.num_valid, tuple(sample.values.shape)) == (3, (4, 8))
        assert not sample.values[:, 3:].any() and (sample.values[1, :3] == 1).all()

    def test_instances_go_to_the_windows_that_they_reach_into(self):
        samples = cut_video(clock(), annotated((1.0, 2.0), (8.0, 9.0)), 6, WINDOWS)
        for sample in samples:
            end = sample.start + sample.num_valid * sample.step
            expected = [[a, b] for a, b in ((1.0, 2.0), (8.0, 9.0)) if a < end and b > sample.start]
            assert sample.segments.tolist() == expected and len(sample.labels) == len(expected)
        assert [holds_instance(sample, 0.9) for sample in samples] == [
            any(a >= s.start and b <= s.start + s.span for a, b in s.segments) for s in samples
        ]

    def test_positions_and_seconds_are_inverse(self):
        for sample in cut_video(clock(), annotated((1.0, 2.5), (3.0, 3.5)), 6, WINDOWS):
            assert np.allclose(sample.seconds(sample.relative), sample.segments)


class TestWhole:
    def test_resampled_videos_span_the_whole_video(self):
        (sample,) = cut_video(clock(), annotated((1.0, 2.0)), 16, CutConfig())
        assert (sample.start, sample.num_valid) == (0.0, 16)
        assert sample.span == pytest.approx(clock().duration)

    def test_whole_keeps_every_feature_at_its_own_rate(self):
        read = clock()
        (sample,) = cut_video(read, None, 6, CutConfig(mode="whole"))
        assert torch.equal(sample.values, read.values.T) and sample.step == pytest.approx(0.4)


class TestBMNOnWindows:
    def test_proposals_are_on_the_videos_clock(self):
        torch.manual_seed(0)
        model = BMN(BMNConfig(in_channels=4, num_steps=8, num_samples=4, hidden=(8, 8, 8), num_proposals=15)).eval()
        samples = cut_video(clock(), annotated((1.0, 2.0)), 8, WINDOWS)
        parts = model.localize(samples)
        for sample, part in zip(samples, parts, strict=True):
            assert len(part) and part.segments.min() >= max(0, sample.start)
            assert part.segments.max() <= sample.start + sample.span
        merged = model.merge(samples, parts)
        assert len(merged) == 15 and (np.diff(merged.scores) <= 0).all()
        assert {tuple(row) for row in merged.segments.tolist()} <= {
            tuple(row) for part in parts for row in part.segments.tolist()
        }
        assert model.merge(samples[:1], parts[:1]) is parts[0]

    def test_labels_are_those_of_the_window(self):
        model = BMN(BMNConfig(in_channels=4, num_steps=8, num_samples=4, hidden=(8, 8, 8)))
        samples = cut_video(clock(), annotated((2.0, 3.2)), 8, WINDOWS)
        batch = model.collate(samples)
        assert tuple(batch.features.shape) == (len(samples), 4, 8)
        for sample, curve in zip(samples, batch.gt_start, strict=True):
            place = round(float((2.0 - sample.start) / sample.step))
            assert (curve.max() > 0.5) == bool(len(sample.segments)) or place < 0
            if 0 <= place < 8:
                assert curve[place] == 1


class TestChannels:
    def test_time_and_channels_are_interpolated_apart(self):
        """As one bilinear interpolation of the (steps, channels) picture."""
        read = clock(fps=10.0, stride=8.0, window=8.0)
        (sample,) = cut_video(read, None, 10, CutConfig(channels=7))
        picture = F.interpolate(read.values[None, None], (10, 7), mode="bilinear", align_corners=False)[0, 0]
        assert torch.allclose(sample.values.T, picture, atol=1e-5)  # float32, another order of sums
        assert sample.values.shape == (7, 10)

    def test_features_keep_their_width_unless_asked(self):
        assert cut_video(clock(), None, 10, CutConfig())[0].values.shape == (4, 10)
        with pytest.raises(ConfigError, match=r"cut\.channels counts"):
            CutConfig(channels=0)


class TestRefusals:
    def test_features_that_are_not_numbers(self):
        read = clock()
        read.values[4, 1] = float("nan")
        with pytest.raises(AnnotationError, match=r"clock are not finite numbers in 1 of 23 clips, .* 2.00 s"):
            cut_video(read, None, 6, WINDOWS)

    def test_no_features(self):
        empty = Features("none", torch.zeros(0, 4), clock().timebase, 1.0)
        with pytest.raises(AnnotationError, match="none has no features"):
            cut_video(empty, None, 6, CutConfig())

    @pytest.mark.parametrize("wrong", [{"overlap": 1.0}, {"tail": -0.1}, {"coverage": 2.0}])
    def test_settings_out_of_range(self, wrong):
        with pytest.raises(ConfigError, match=rf"cut\.{next(iter(wrong))}"):
            CutConfig(**wrong)

    def test_one_snippet_is_enough(self):
        for cfg in (CutConfig(), WINDOWS, CutConfig(mode="whole")):
            (sample,) = cut_video(clock(1), annotated((0.1, 0.5)), 4, cfg)
            assert sample.values.isfinite().all() and sample.num_valid in (1, 4)


def test_detections_are_clipped_to_the_video():
    sample = cut_video(clock(), None, 6, WINDOWS)[-1]
    found = on_video(sample, Detections(np.array([[0.0, 99.0]]), np.array([0.5]), ("x",)))
    assert found.segments.tolist() == [[sample.start, sample.duration]] and found.labels == ("x",)
