"""Which frames make a clip and which clips a region: rules T1 to T9 as statements about index tables."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.clips import (
    BackgroundConfig,
    RegionConfig,
    TimelineConfig,
    clip_span,
    contiguous_starts,
    draw_timeline,
    extraction_frames,
    fitting_stride,
    uniform_starts,
)
from uptal.errors import ConfigError

PAPER = TimelineConfig()
LONG = 300
"""Frames of a video in which everything fits: 8 segments hold a clip, and 6 clips at stride 4 need 192."""


@cache
def timelines(count, num_frames=LONG, cfg=PAPER, paste=True, **options):
    return [draw_timeline(np.random.default_rng(i), num_frames, cfg, paste=paste, **options) for i in range(count)]


def with_region(**changes) -> TimelineConfig:
    return TimelineConfig(region=RegionConfig(**changes))


def with_background(**changes) -> TimelineConfig:
    return TimelineConfig(background=BackgroundConfig(**changes))


def own_region(timeline, view):
    return timeline.region[view, : timeline.length[view]]


def test_regions_have_two_to_six_clips_and_every_length_is_as_likely():
    lengths = np.concatenate([timeline.length for timeline in timelines(1500)])
    counts = np.bincount(lengths, minlength=7)
    assert counts[:2].sum() == 0 and len(counts) == 7
    assert chi_square(counts[2:]) < 18.5  # 99.9 % of chi-square with 4 degrees of freedom


def test_strides_from_one_to_four_are_equally_likely():
    strides = np.concatenate([timeline.stride for timeline in timelines(1500)])
    counts = np.bincount(strides, minlength=5)
    assert counts[0] == 0 and len(counts) == 5
    assert chi_square(counts[1:]) < 16.3  # 99.9 % of chi-square with 3 degrees of freedom


def test_log_uniform_strides_weigh_stride_k_by_one_over_k():
    drawn = timelines(1000, cfg=with_region(stride_law="log_uniform"))
    counts = np.bincount(np.concatenate([timeline.stride for timeline in drawn]), minlength=5)[1:]
    weights = np.array([1, 1 / 2, 1 / 3, 1 / 4])
    assert chi_square(counts, weights / weights.sum()) < 16.3


def test_pasted_regions_lie_within_the_eight_slots_and_reach_all_of_them():
    places = {(s, n) for t in timelines(1500) for s, n in zip(t.start.tolist(), t.length.tolist(), strict=True)}
    assert places == {(s, n) for n in range(2, 7) for s in range(8 - n + 1)}


def test_the_two_views_are_drawn_independently():
    drawn = timelines(1500)
    first, second = (np.array([timeline.length[view] for timeline in drawn]) for view in (0, 1))
    table = np.histogram2d(first, second, bins=5)[0]
    expected = table.sum(0) * table.sum(1, keepdims=True) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 39.3  # 99.9 % of chi-square with 16 degrees of freedom


def test_equal_gives_both_views_the_same_number_of_clips():
    assert all(len(set(t.length.tolist())) == 1 for t in timelines(50, cfg=with_region(equal=True)))


def test_a_region_spans_its_slots_at_its_stride_of_source_video():
    for timeline in timelines(300):
        for view in (0, 1):
            region, stride = own_region(timeline, view), timeline.stride[view]
            span = region.max() - region.min() + 1
            assert span == ((timeline.length[view] - 1) * 8 + 7) * stride + 1
            assert (np.diff(region.ravel()) == stride).all()  # clips lie back to back: one even run of frames


def test_a_region_may_begin_anywhere_it_fits():
    cfg = with_region(min_clips=2, max_clips=2, min_stride=1, max_stride=1)
    begins = {int(own_region(t, v).min()) for t in timelines(400, 32, cfg) for v in (0, 1)}
    assert begins == set(range(32 - 16 + 1))


def test_one_stride_serves_a_region_unless_clips_draw_their_own():
    own = [
        np.unique(np.diff(own_region(t, 0), axis=1)).size for t in timelines(50, cfg=with_region(stride_scope="clip"))
    ]
    assert max(own) > 1
    assert all(np.unique(np.diff(own_region(t, 0), axis=1)).size == 1 for t in timelines(50))


@given(num_frames=st.integers(1, 400), seed=st.integers(0, 99), paste=st.booleans(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_index_lies_in_the_video_whatever_its_length_and_the_settings(num_frames, seed, paste, data):
    layout = data.draw(st.sampled_from(["segments", "contiguous", "segments_shared_jitter"]))
    stride = data.draw(st.sampled_from([1, 3, "random_per_video", "same_as_region"]))
    region = data.draw(st.sampled_from(["contiguous", "segments"]))
    scope = data.draw(st.sampled_from(["region", "clip"]))
    cfg = TimelineConfig(
        background=BackgroundConfig(layout=layout, stride=stride, share=data.draw(st.booleans())),
        region=RegionConfig(layout=region, stride_scope=scope, min_clips=data.draw(st.integers(1, 6))),
    )
    timeline = draw_timeline(np.random.default_rng(seed), num_frames, cfg, paste=paste)
    for indices in (timeline.clips, timeline.region):
        assert indices.min() >= 0 and indices.max() < num_frames
    assert timeline.clips.shape == (2, 8, 8) and timeline.region.shape == (2, 6, 8)
    assert (timeline.start >= 0).all() and (timeline.start + timeline.length <= 8).all()


@given(num_frames=st.integers(29, 400), clips=st.integers(1, 6), stride=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_clips_of_a_region_overlap_evenly_rather_than_leave_a_short_video(num_frames, clips, stride, seed):
    starts = contiguous_starts(np.random.default_rng(seed), num_frames, 8, np.full(clips, stride))
    pitches = np.diff(starts)
    assert starts.min() >= 0 and starts.max() + clip_span(8, stride) <= num_frames
    room = num_frames - clip_span(8, stride)
    assert (pitches == min(8 * stride, room // max(1, clips - 1))).all()


def test_in_a_video_of_twenty_frames_strides_are_lowered_until_a_clip_fits():
    drawn = timelines(200, 20)
    assert {int(k) for t in drawn for k in t.stride} == {1, 2}  # a clip spans 8 or 15 frames; 22 do not fit
    assert max(t.region.max() for t in drawn) < 20
    assert all((np.diff(own_region(t, v), axis=1) > 0).all() for t in drawn for v in (0, 1))


def test_a_video_shorter_than_a_clip_is_played_in_a_loop():
    timeline = draw_timeline(np.random.default_rng(0), 5, PAPER, paste=True)
    assert own_region(timeline, 0)[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_a_video_without_frames_is_refused():
    with pytest.raises(ConfigError, match="without frames"):
        draw_timeline(np.random.default_rng(0), 0, PAPER, paste=True)


def test_the_background_has_one_clip_in_each_eighth_of_the_video_at_stride_one():
    for timeline in timelines(100, 320):
        assert (timeline.clips[:, :, 0] // 40 == np.arange(8)).all()
        assert (timeline.clips[:, :, -1] // 40 == np.arange(8)).all()
        assert (np.diff(timeline.clips, axis=2) == 1).all()


def test_shared_jitter_moves_all_background_clips_alike():
    for timeline in timelines(20, 320, with_background(layout="segments_shared_jitter")):
        assert (np.diff(timeline.clips[:, :, 0], axis=1) == 40).all()


def test_a_contiguous_background_is_one_run_of_frames():
    for timeline in timelines(20, cfg=with_background(layout="contiguous")):
        assert (np.diff(timeline.clips.reshape(2, -1), axis=1) == 1).all()


def test_background_strides_follow_their_setting():
    assert all((np.diff(t.clips, axis=2) == 3).all() for t in timelines(20, cfg=with_background(stride=3)))
    drawn = timelines(100, cfg=with_background(stride="random_per_video"))
    assert {int(t.clips[0, 0, 1] - t.clips[0, 0, 0]) for t in drawn} == {1, 2, 3, 4}
    for timeline in timelines(20, cfg=with_background(stride="same_as_region")):
        assert (np.diff(timeline.clips, axis=2) == timeline.stride[:, None, None]).all()


def test_both_views_may_share_one_background():
    assert all((t.clips[0] == t.clips[1]).all() for t in timelines(10, cfg=with_background(share=True)))
    assert any((t.clips[0] != t.clips[1]).any() for t in timelines(10))


def test_validation_clips_sit_in_the_middle_and_their_regions_still_vary():
    drawn = timelines(10, 320, centred=True)
    assert all((t.clips[:, :, 0] == np.arange(8) * 40 + 16).all() for t in drawn)
    assert len({t.region.tobytes() for t in drawn}) == 10


def test_without_paste_the_region_is_the_videos_own_clips_in_place_and_only_they_change_stride():
    for timeline in timelines(200, paste=False):
        for view in (0, 1):
            own, start, length = timeline.clips[view], timeline.start[view], timeline.length[view]
            steps = np.diff(own, axis=1)
            region = np.zeros(8, bool)
            region[start : start + length] = True
            assert (steps[region] == timeline.stride[view]).all() and (steps[~region] == 1).all()
            assert (own[region] == own_region(timeline, view)).all()


def test_without_paste_and_scale_the_clips_are_those_of_a_plain_video():
    cfg = with_region(min_stride=1, max_stride=1)
    assert all((np.diff(t.clips, axis=2) == 1).all() for t in timelines(50, cfg=cfg, paste=False))


def test_resampling_turns_a_larger_stride_into_fewer_clips_of_the_same_stretch():
    cfg = with_region(scale_mode="resample_clips", min_clips=4, max_clips=4)
    for timeline in timelines(100, cfg=cfg):
        assert (timeline.length == 4 // timeline.stride).all()
        if timeline.stride[0] in (1, 2, 4):
            region = own_region(timeline, 0)
            assert region.max() - region.min() + timeline.stride[0] == 32  # 4 clips x 8 frames


def test_resampling_never_asks_for_a_stride_that_leaves_no_clip():
    drawn = timelines(200, cfg=with_region(scale_mode="resample_clips"))
    assert min(t.length.min() for t in drawn) == 1
    spans = [own_region(t, 0).max() - own_region(t, 0).min() + 1 for t in drawn]
    assert max(spans) <= 48  # 6 clips x 8 frames at stride 1


def test_min_overlap_makes_the_views_share_that_part_of_the_source():
    for timeline in timelines(200, cfg=with_region(min_overlap=0.5)):
        low, high = zip(
            *[(own_region(timeline, v).min(), own_region(timeline, v).max() + 1) for v in (0, 1)], strict=True
        )
        shared = min(high) - max(low)
        assert shared >= 0.5 * min(high[0] - low[0], high[1] - low[1])


def test_without_min_overlap_the_views_may_lie_apart():
    drawn = timelines(100)
    assert any(own_region(t, 0).max() < own_region(t, 1).min() for t in drawn)


def test_equal_draws_give_equal_timelines():
    first, second = (draw_timeline(np.random.default_rng(7), LONG, PAPER, paste=True) for _ in range(2))
    assert all((getattr(first, name) == getattr(second, name)).all() for name in vars(first))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimelineConfig(clips=4),
        lambda: TimelineConfig(views=3),
        lambda: with_region(min_clips=0),
        lambda: with_region(min_stride=3, max_stride=2),
        lambda: with_region(min_overlap=1.5),
        lambda: with_region(min_overlap=0.5, layout="segments"),
        lambda: with_region(scale_mode="resample_clips", stride_scope="clip"),
        lambda: with_background(stride=0),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@given(num_frames=st.integers(1, 500), frames=st.integers(1, 16), stride=st.integers(1, 8))
def test_the_fitting_stride_is_the_largest_whose_clip_fits(num_frames, frames, stride):
    fitting = fitting_stride(num_frames, frames, stride)
    fits = [k for k in range(1, stride + 1) if clip_span(frames, k) <= num_frames]
    assert fitting == max(fits, default=1)


def test_uniform_starts_are_spread_over_their_part():
    starts = np.array([uniform_starts(np.random.default_rng(i), 160, 8, 8) for i in range(500)])
    assert ((starts - np.arange(8) * 20).min(0) == 0).all()
    assert ((starts - np.arange(8) * 20).max(0) == 11).all()  # the last start before a slack of 12


@given(num_frames=st.integers(1, 300), stride=st.integers(1, 4), interval=st.integers(1, 32))
def test_extraction_covers_a_video_with_one_clip_every_interval(num_frames, stride, interval):
    indices = extraction_frames(num_frames, 8, stride, interval)
    assert indices.min() >= 0 and indices.max() < num_frames
    assert len(indices) >= 1 and (np.diff(indices[:, 0]) <= interval).all()
    uncovered = num_frames - (indices[-1, 0] + 8 * stride)
    assert uncovered <= interval / 2


def test_a_stack_of_one_clip_is_a_baseline_of_single_clips():
    cfg = replace(PAPER, clips=1, region=RegionConfig(min_clips=1, max_clips=1, max_stride=1))
    drawn = timelines(100, 40, cfg, paste=False)
    assert all(t.clips.shape == (2, 1, 8) and (t.clips == t.region).all() for t in drawn)
    assert {int(t.clips[0, 0, 0]) for t in drawn} <= set(range(33))


def chi_square(counts, probabilities=None):
    expected = counts.sum() * (np.full(len(counts), 1 / len(counts)) if probabilities is None else probabilities)
    return ((counts - expected) ** 2 / expected).sum()
