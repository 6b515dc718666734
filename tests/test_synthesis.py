"""T blends one video's region into clips of another and touches nothing else; G takes the same clips out again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.errors import ConfigError
from uptal.pretext.synthesis import (
    PasteConfig,
    Placement,
    derangements,
    draw_blend,
    inside,
    paste_into,
    pool,
    region_rows,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def placement(seed: int, batch: int, clips=8, most=6, frames=4) -> Placement:
    rng = np.random.default_rng(seed)
    length = rng.integers(1, most + 1, batch)
    start = rng.integers(0, clips - length + 1)
    blend = rng.random((batch, most, frames), np.float32)
    return Placement(torch.from_numpy(start), torch.from_numpy(length), torch.from_numpy(blend))


def paste(action, background, place):
    """The regions' clips, which `action` (B, R, …) holds among others, on a copy of the background."""
    return paste_into(background.clone(), action[region_rows(place, int(place.length.sum()))], place)


def slowly(action, background, place):
    """Frame by frame, as Sec. 3.2.1 says it."""
    result = background.clone()
    for sample in range(len(action)):
        for clip in range(int(place.length[sample])):
            slot = int(place.start[sample]) + clip
            for frame in range(action.shape[2]):
                beta = place.blend[sample, clip, frame]
                mixed = beta * action[sample, clip, frame] + (1 - beta) * background[sample, slot, frame]
                result[sample, slot, frame] = mixed
    return result


@pytest.mark.parametrize("seed", range(8))
def test_pasted_frames_are_the_weighted_sum_to_the_last_bit(seed):
    action, background = noise(5, 6, 4, 3, 6, 6, seed=seed), noise(5, 8, 4, 3, 6, 6, seed=seed + 100)
    place = placement(seed, 5)
    assert torch.equal(paste(action, background, place), slowly(action, background, place))


def test_outside_the_region_nothing_changes():
    action, background, place = noise(9, 6, 4, 3, 6, 6), noise(9, 8, 4, 3, 6, 6, seed=1), placement(0, 9)
    outside = ~inside(place, 8)
    assert outside.any(1).all()
    assert torch.equal(paste(action, background, place)[outside], background[outside])


def test_a_blend_of_one_replaces_and_a_blend_of_zero_leaves_no_trace():
    action, background, place = noise(4, 6, 4, 3, 6, 6), noise(4, 8, 4, 3, 6, 6, seed=1), placement(2, 4)
    hard = replace(place, blend=torch.ones_like(place.blend))
    found = paste(action, background, hard)
    for sample in range(4):
        start, length = int(place.start[sample]), int(place.length[sample])
        assert torch.equal(found[sample, start : start + length], action[sample, :length])
    assert torch.equal(paste(action, background, replace(place, blend=torch.zeros_like(place.blend))), background)


def test_what_lies_beyond_the_length_is_never_looked_at():
    action, background, place = noise(4, 6, 4, 3, 6, 6), noise(4, 8, 4, 3, 6, 6, seed=1), placement(1, 4)
    spoilt, blend = action.clone(), place.blend.clone()
    for sample in range(4):
        spoilt[sample, int(place.length[sample]) :] = torch.nan
        blend[sample, int(place.length[sample]) :] = torch.nan
    found = paste(spoilt, background, replace(place, blend=blend))
    assert torch.equal(found, paste(action, background, place))


def test_pooling_is_the_mean_of_the_pasted_clips():
    features, place = noise(6, 8, 5), placement(3, 6)
    found = pool(features, inside(place, 8))
    for sample in range(6):
        start, length = int(place.start[sample]), int(place.length[sample])
        # the order of the additions differs
        torch.testing.assert_close(found[sample], features[sample, start : start + length].mean(0), atol=1e-6, rtol=0)


def test_pooling_takes_out_what_was_pasted():
    action, background, place = noise(6, 6, 1, 3, 2, 2), torch.zeros(6, 8, 1, 3, 2, 2), placement(3, 6, frames=1)
    hard = replace(place, blend=torch.ones_like(place.blend))
    found = pool(paste(action, background, hard).flatten(2), inside(hard, 8))
    for sample in range(6):
        expected = action[sample, : int(place.length[sample])].flatten(1).mean(0)
        torch.testing.assert_close(found[sample], expected, atol=1e-6, rtol=0)  # order of the additions


@pytest.mark.parametrize("batch", [3, 4, 7, 16])
def test_no_video_gets_itself_and_the_two_views_get_different_ones(batch):
    rng, here = np.random.default_rng(0), np.arange(batch)
    for _ in range(2500):
        first, second = derangements(rng, range(batch))
        assert (first != here).all() and (second != here).all() and (first != second).all()
        assert (np.sort(first) == here).all() and (np.sort(second) == here).all()


@given(batch=st.integers(6, 24), seed=st.integers(0, 999), data=st.data())
@settings(max_examples=150, deadline=None)
def test_videos_of_one_group_never_meet(batch, seed, data):
    groups = data.draw(st.lists(st.integers(0, batch), min_size=batch, max_size=batch))
    group, here = np.array(groups), np.arange(batch)
    fullest = np.bincount(group).max()
    if fullest > batch // 3:  # enough room for two maps, whoever comes first
        return
    for first, second in (derangements(np.random.default_rng(seed), groups), derangements(None, groups)):
        assert (group[first] != group).all() and (group[second] != group).all() and (first != second).all()
        assert (np.sort(first) == here).all() and (np.sort(second) == here).all()


def test_groups_that_leave_no_shift_are_mended():
    groups = [0, 1, 0, 2, 0, 3]  # every shift would let two of group 0 meet
    first, second = derangements(np.random.default_rng(0), groups, same=True)
    assert (np.array(groups)[first] != np.array(groups)).all() and (first == second).all()


def test_one_map_may_serve_both_views():
    for seed in range(20):
        first, second = derangements(np.random.default_rng(seed), range(5), same=True)
        assert (first == second).all() and (first != np.arange(5)).all()


def test_validation_shifts_are_fixed():
    first, second = derangements(None, range(6))
    assert first.tolist() == [1, 2, 3, 4, 5, 0] and second.tolist() == [2, 3, 4, 5, 0, 1]


def test_too_few_videos_or_groups_are_refused():
    with pytest.raises(ConfigError, match="3 or more videos"):
        derangements(None, range(2))
    assert derangements(None, range(2), same=True)[0].tolist() == [1, 0]
    with pytest.raises(ConfigError, match="cannot be paired"):
        derangements(None, [0, 0, 0, 1])


def test_every_ordered_triple_of_distinct_videos_is_as_likely():
    """The law of (v_i, v_pi(i), v_rho(i)) when a batch of 4 is drawn from 5 videos: uniform over 5 x 4 x 3 triples."""
    rng = np.random.default_rng(0)
    counts = np.zeros((5, 5, 5), np.int64)
    for _ in range(6000):
        batch = rng.permutation(5)[:4]
        first, second = derangements(rng, batch.tolist())
        counts[batch, batch[first], batch[second]] += 1
    a, b, c = np.ogrid[:5, :5, :5]
    distinct = (a != b) & (b != c) & (a != c)
    assert counts[~distinct].sum() == 0
    # the four triples of one draw hang together, so a chi-square (59 degrees of freedom) looks at one
    counts[:] = 0
    for _ in range(6000):
        batch = rng.permutation(5)[:4]
        first, second = derangements(rng, batch.tolist())
        counts[batch[0], batch[first[0]], batch[second[0]]] += 1
    found = counts[distinct]
    assert len(found) == 60 and ((found - 100) ** 2 / 100).sum() < 98.3  # 99.9 %


def test_one_blend_ratio_serves_a_region_a_clip_or_a_frame():
    rng = np.random.default_rng(0)
    sizes = {}
    for scope in ("region", "clip", "frame"):
        blend = draw_blend(rng, PasteConfig(beta_scope=scope), 4, 6, 8)
        assert blend.shape == (6, 8) and (blend[4:] == 0).all()
        sizes[scope] = len(np.unique(blend[:4]))
        per_clip = len(np.unique(blend[0]))
        assert per_clip == (8 if scope == "frame" else 1)
    assert sizes == {"region": 1, "clip": 4, "frame": 32}


def test_blend_ratios_fill_their_range():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_blend(rng, PasteConfig(), 2, 6, 8)[0, 0] for _ in range(2000)])
    assert 0.6 <= drawn.min() < 0.61 and 0.99 < drawn.max() <= 1.0
    assert abs(drawn.mean() - 0.8) < 4 * 0.1155 / 2000**0.5  # four standard errors
    assert (draw_blend(rng, PasteConfig(beta=(1.0, 1.0)), 2, 2, 8) == 1).all()


def test_an_edge_ramps_up_and_down_at_the_ends_of_the_region():
    blend = draw_blend(np.random.default_rng(0), PasteConfig(beta=(1.0, 1.0), edge=3), 2, 3, 8)
    np.testing.assert_allclose(blend[0, :4], [0.25, 0.5, 0.75, 1], rtol=1e-6)
    np.testing.assert_array_equal(blend[:2].ravel(), blend[:2].ravel()[::-1])
    assert (blend[2] == 0).all()


@pytest.mark.parametrize("changes", [{"beta": (0.5, 0.4)}, {"beta": (0.0, 1.1)}, {"edge": -1}])
def test_impossible_blends_are_refused(changes):
    with pytest.raises(ConfigError):
        PasteConfig(**changes)
