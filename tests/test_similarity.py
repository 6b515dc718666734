"""Edits move an action and its ground truth together; scores tell features that follow from features that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uptal.similarity import (
    auroc,
    average,
    clip_map,
    clips_inside,
    down_sample_and_move_backward,
    edit_video,
    equivariance,
    held_out_auroc,
    iou,
    move,
    self_similarity,
    separation,
    up_sample_and_move_forward,
    warp_error,
)
from uptal.types import Timebase

EVERY_FRAME = Timebase(fps=25.0, stride=1.0, window=1.0)
EDITS = (down_sample_and_move_backward, up_sample_and_move_forward, move)


@st.composite
def annotated_videos(draw):
    num_frames = draw(st.integers(1, 60))
    start = draw(st.integers(0, num_frames - 1))
    return (
        num_frames,
        (start, draw(st.integers(start + 1, num_frames))),
        np.random.default_rng(draw(st.integers(0, 99))),
    )


# --- Edits


def test_the_edit_of_the_docstring():
    edit = edit_video(22, (6, 14), speed=2.0, position=3)
    assert edit.frames.tolist() == [0, 1, 2, 6, 8, 10, 12, 3, 4, 5, 14, 15, 16, 17, 18, 19, 20, 21]
    assert edit.pieces.tolist() == [0] * 3 + [1] * 4 + [2] * 3 + [3] * 8
    assert edit.action == (3, 7)


def test_half_speed_shows_every_frame_of_the_action_twice():
    edit = edit_video(6, (1, 3), speed=0.5, position=4)
    assert edit.frames.tolist() == [0, 3, 4, 5, 1, 1, 2, 2]
    assert edit.pieces.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]


@given(annotated_videos(), st.sampled_from(EDITS))
def test_only_the_action_changes_its_place_and_pace(video, edit_of):
    num_frames, (start, end), rng = video
    edit = edit_of(num_frames, (start, end), rng)
    new_start, new_end = edit.action
    background = np.delete(edit.frames, np.arange(new_start, new_end))
    assert background.tolist() == [*range(start), *range(end, num_frames)]
    assert set(edit.frames[new_start:new_end]) <= set(range(start, end))
    assert edit.pieces[0] == 0
    assert set(np.diff(edit.pieces)) <= {0, 1}


@given(annotated_videos())
def test_down_sampling_halves_the_action_and_moves_it_backward(video):
    num_frames, (start, end), rng = video
    new_start, new_end = down_sample_and_move_backward(num_frames, (start, end), rng).action
    assert new_end - new_start == (end - start + 1) // 2
    assert new_start < start or start == new_start == 0


@given(annotated_videos())
def test_up_sampling_doubles_the_action_and_moves_it_forward(video):
    num_frames, (start, end), rng = video
    edit = up_sample_and_move_forward(num_frames, (start, end), rng)
    assert edit.action[1] - edit.action[0] == 2 * (end - start)
    assert edit.action[0] > start or end == num_frames


@given(annotated_videos())
def test_a_move_keeps_all_frames_and_changes_the_place(video):
    num_frames, action, rng = video
    edit = move(num_frames, action, rng)
    assert sorted(edit.frames) == list(range(num_frames))
    assert edit.action != action or action == (0, num_frames)


def test_the_same_seed_gives_the_same_edit():
    first, second = (move(50, (10, 20), np.random.default_rng(3)) for _ in range(2))
    assert first.frames.tolist() == second.frames.tolist()


@pytest.mark.parametrize(
    ("action", "speed", "position"),
    [((3, 3), 1.0, 0), ((-1, 2), 1.0, 0), ((2, 11), 1.0, 0), ((2, 4), 0.0, 0), ((2, 4), -1.0, 0), ((2, 4), 1.0, 9)],
)
def test_an_impossible_edit_is_refused(action, speed, position):
    with pytest.raises(ValueError, match=r"must be"):
        edit_video(10, action, speed=speed, position=position)


# --- Clips


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 20))
def test_an_action_put_back_where_it_was_maps_every_clip_to_itself(stride, window, position):
    grid = Timebase(fps=1.0, stride=float(stride), window=float(window))
    num_clips = (40 - window) // stride + 1
    edit = edit_video(40, (position, position + 7), speed=1.0, position=position)
    assert clip_map(edit, grid, num_clips, num_clips).tolist() == list(range(num_clips))


@given(annotated_videos(), st.sampled_from(EDITS))
def test_clips_of_one_frame_map_to_the_frame_they_show(video, edit_of):
    num_frames, action, rng = video
    edit = edit_of(num_frames, action, rng)
    assert clip_map(edit, EVERY_FRAME, len(edit.frames), num_frames).tolist() == edit.frames.tolist()


def test_clips_across_a_cut_or_the_end_have_no_counterpart():
    grid = Timebase(fps=25.0, stride=2.0, window=4.0)
    edit = edit_video(24, (8, 16), speed=0.5, position=12)  # 0-7, 16-19 | 16 frames of action | 20-23
    across, beyond = (3, 5, 13), 15
    tau = clip_map(edit, grid, 16, 11)
    assert tau.tolist() == [0, 1, 2, -1, 8, -1, 4, 4, 5, 5, 6, 6, 7, -1, 10, -1]
    assert np.flatnonzero(tau < 0).tolist() == [*across, beyond]


def test_a_clip_is_action_if_its_middle_is():
    grid = Timebase(fps=25.0, stride=4.0, window=8.0)
    assert clips_inside((8, 16), grid, 5).tolist() == [False, True, True, False, False]  # middles 4, 8, 12, 16, 20


# --- Similarity and scores


def test_self_similarity_is_the_cosine_of_each_pair():
    features = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [0.0, 0.0]])
    half = np.sqrt(0.5)
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(self_similarity(features), expected, atol=1e-15)  # one rounding of float64


def test_centring_shows_differences_that_a_common_part_hides():
    features = np.array([[100.0, 1.0], [100.0, -1.0]])
    assert self_similarity(features).min() > 0.999
    np.testing.assert_allclose(self_similarity(features, centre=True), [[1, -1], [-1, 1]])


def test_auroc_counts_ordered_pairs_and_halves_ties():
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    assert auroc(scores, np.array([True, False, True, False])) == 1.0
    assert auroc(scores, np.array([False, True, False, True])) == 0.0
    assert auroc(scores, np.array([False, True, True, False])) == (0.0 + 0.5 + 0.0 + 1.0) / 4
    assert np.isnan(auroc(scores, np.ones(4, bool)))


def test_iou_of_clip_sets():
    found, true = np.array([True, True, False, False]), np.array([False, True, True, False])
    assert iou(found, true) == 1 / 3
    assert np.isnan(iou(np.zeros(2, bool), np.zeros(2, bool)))


def test_separation_is_high_where_the_border_shows_and_zero_for_a_constant_feature():
    inside = np.array([False, False, True, True, True])
    assert separation(np.eye(2)[inside.astype(int)], inside) == 1.0
    assert separation(np.ones((5, 2)), inside) == 0.0
    assert separation(np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]), inside) == 2.0
    assert np.isnan(separation(np.ones((5, 2)), np.arange(5) == 2))


def test_warp_error_is_zero_for_features_that_follow_and_one_for_features_that_do_not():
    original = np.eye(6)
    tau = np.array([4, 5, -1, 0, 1])
    followed = original[tau]
    assert warp_error(original, followed, tau) == 0.0
    ignorant = np.broadcast_to(original.sum(axis=0), (5, 6))
    assert warp_error(original, ignorant, tau) == pytest.approx(1.0)
    assert np.isnan(warp_error(original, followed, np.full(5, -1)))
    assert np.isnan(warp_error(np.ones((6, 6)), np.ones((5, 6)), tau))


def scored(frame_features: np.ndarray, edit, action: tuple[int, int], follow: bool):
    """Scores with a feature a frame; where it does not follow, the edited video shows the original's features."""
    edited = frame_features[edit.frames if follow else np.arange(len(edit.frames)) % len(frame_features)]
    tau = clip_map(edit, EVERY_FRAME, len(edited), len(frame_features))
    inside = clips_inside(action, EVERY_FRAME, len(frame_features))
    return equivariance(frame_features, inside, edited, clips_inside(edit.action, EVERY_FRAME, len(edited)), tau)


@pytest.mark.parametrize("edit_of", EDITS)
def test_features_of_the_content_alone_are_equivariant(edit_of):
    action = (20, 32)
    features = np.zeros((60, 2))
    features[:, 0], features[20:32, 0], features[20:32, 1] = 1.0, 0.0, 1.0
    found = scored(features, edit_of(60, action, np.random.default_rng(0)), action, follow=True)
    assert (found.static_iou, found.edited_iou, found.kept_iou) == (1.0, 1.0, 1.0)
    assert (found.static_auroc, found.edited_auroc, found.kept_auroc) == (1.0, 1.0, 1.0)
    assert found.warp_error == pytest.approx(0.0, abs=1e-12)
    assert found.separation == pytest.approx(2.0)  # centred, the two kinds of clips are opposite
    assert found.chance_iou < 0.5


def test_features_of_the_position_alone_are_not():
    action = (20, 32)
    features = np.zeros((60, 2))
    features[:, 0], features[20:32, 0], features[20:32, 1] = 1.0, 0.0, 1.0
    edit = edit_video(60, action, speed=1.0, position=40)
    found = scored(features, edit, action, follow=False)
    assert (found.static_iou, found.edited_iou) == (1.0, 0.0)
    assert found.warp_error > 0.9
    assert found.separation < scored(features, edit, action, follow=True).separation


def test_noise_scores_chance():
    rng = np.random.default_rng(5)
    inside, tau = np.arange(60) < 20, np.arange(60)
    noise = rng.standard_normal((40, 2, 60, 8))
    mean = average([equivariance(original, inside, edited, inside, tau) for original, edited in noise])
    # tolerances: four or five standard errors (0.013, 0.006, 0.004) of the mean over 40 videos
    assert mean.edited_auroc == pytest.approx(0.5, abs=0.05)
    assert mean.warp_error == pytest.approx(1.0, abs=0.03)
    assert mean.separation == pytest.approx(0.0, abs=0.02)


def test_held_out_prototypes_find_what_videos_share_and_not_what_they_do_not():
    rng = np.random.default_rng(0)
    inside = np.arange(20) < 8
    shared = [(np.eye(3)[inside.astype(int)] + 0.01 * rng.standard_normal((20, 3)), inside) for _ in range(4)]
    assert held_out_auroc(shared) == 1.0
    opposite = [
        (sign * (features - features.mean(axis=0)), i) for sign, (features, i) in zip((1, -1), shared, strict=False)
    ]
    assert held_out_auroc(opposite) == 0.0


def test_an_average_leaves_out_what_does_not_exist():
    action = (20, 32)
    features = np.random.default_rng(0).standard_normal((60, 4))
    whole = scored(features, edit_video(60, action, speed=1.0, position=0), action, follow=True)
    empty = equivariance(features, np.zeros(60, bool), features, np.zeros(60, bool), np.full(60, -1))
    assert np.isnan(empty.static_auroc) and np.isnan(empty.warp_error) and np.isnan(empty.separation)
    assert average([whole, empty]).static_auroc == whole.static_auroc
