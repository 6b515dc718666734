"""BMN: what a proposal samples, what it is taught, what it loses, and which segments it answers with."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.errors import AnnotationError, CheckpointError, ConfigError
from uptal.localizers.bmn import BMN, BMNConfig, BoundaryBatch, candidates, labels, proposals
from uptal.localizers.bmn_weights import from_official
from uptal.localizers.layers import BoundaryMatching, map_cells, sampling_weights
from uptal.localizers.targets import (
    balanced_log_loss,
    boundary_losses,
    draw_uniform,
    regression_loss,
    regression_weights,
)

SMALL = BMNConfig(in_channels=8, num_steps=12, num_samples=4, hidden=(16, 8, 16))
LAYOUTS = ["start_end", "duration_start"]
FIELDS = ["features", "gt_map", "gt_start", "gt_end"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads wait for each other longer than these small tensors take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mask_point_by_point(num_steps, num_samples, num_points, ratio, layout):
    """The dense (T, N, T, T) mask, written down one sampled point at a time."""
    mask = np.zeros((num_steps, num_samples, num_steps, num_steps))
    for start in range(num_steps):
        for length in range(1, num_steps - start + 1):
            low, high = (start, start + length) if layout == "start_end" else (start, start + length - 1)
            margin = (high - low + 1) * ratio
            cell = (start, start + length - 1) if layout == "start_end" else (length - 1, start)
            for q in range(num_samples * num_points):
                point = low - margin + q * ((high - low + 2 * margin) / (num_samples * num_points - 1.0))
                fraction = math.fmod(point, 1.0)
                for step, weight in ((math.trunc(point), 1 - fraction), (math.ceil(point), fraction)):
                    if 0 <= step < num_steps:
                        mask[(step, q // num_points, *cell)] += weight / num_points
    return mask.astype(np.float32)


def dense(weights, cells, num_steps, num_samples):
    mask = np.zeros((num_steps, num_samples, num_steps, num_steps), np.float32)
    mask[weights.step, weights.sample, cells.row[weights.cell], cells.column[weights.cell]] = weights.weight
    return mask


def official_mask(cfg: BMNConfig) -> torch.Tensor:
    mask = mask_point_by_point(cfg.num_steps, cfg.num_samples, cfg.num_points, cfg.prop_boundary_ratio, cfg.layout)
    return torch.from_numpy(mask.reshape(cfg.num_steps, -1))


def a_batch(cfg: BMNConfig, num_videos: int = 3, dtype=torch.float32) -> BoundaryBatch:
    """Random features; one long action in every video, so that every term of the loss has positives."""
    torch.manual_seed(0)
    segments = np.array([[2.0, 9.0]])
    maps, starts, ends = zip(*[labels(segments + i / 2, 12.0, cfg.num_steps) for i in range(num_videos)], strict=True)
    features = torch.randn(num_videos, cfg.in_channels, cfg.num_steps)
    stacked = (features, *(torch.from_numpy(np.stack(part)) for part in (maps, starts, ends)))
    return BoundaryBatch(**dict(zip(FIELDS, (part.to(dtype) for part in stacked), strict=True)))


class TestSampling:
    @settings(max_examples=25, deadline=None)
    @given(
        num_steps=st.integers(1, 9),
        num_samples=st.integers(1, 6),
        num_points=st.integers(2, 4),
        ratio=st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0]),
        layout=st.sampled_from(LAYOUTS),
    )
    def test_every_point_is_shared_by_its_two_steps(self, num_steps, num_samples, num_points, ratio, layout):
        cells = map_cells(num_steps, layout)
        weights = sampling_weights(cells, num_steps, num_samples, num_points, ratio)
        expected = mask_point_by_point(num_steps, num_samples, num_points, ratio, layout)
        # one unit in the last place of 32 bits: the points of a sample are summed before, not after, their division
        np.testing.assert_allclose(dense(weights, cells, num_steps, num_samples), expected, rtol=1.2e-7, atol=1e-12)

    def test_a_point_just_before_the_video_counts_as_its_first_step(self):
        cells = map_cells(4, "start_end")
        weights = sampling_weights(cells, 4, num_samples=1, num_points=2, ratio=0.25)
        first = weights.cell == 0  # proposal [0, 1): its points are -0.5 and 1.5
        assert dict(zip(weights.step[first].tolist(), weights.weight[first].tolist(), strict=True)) == {
            0: 0.5,
            1: 0.25,
            2: 0.25,
        }

    def test_no_entry_is_stored_for_a_weight_of_zero(self):
        assert (sampling_weights(map_cells(6, "start_end"), 6, 8, 3, 0.5).weight != 0).all()

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_the_map_has_one_cell_for_every_stretch_of_steps(self, layout):
        cells = map_cells(5, layout)
        stretches = {(start, end) for start in range(5) for end in range(start + 1, 6)}
        assert set(zip(cells.start.tolist(), cells.end.tolist(), strict=True)) == stretches
        assert len(set(zip(cells.row.tolist(), cells.column.tolist(), strict=True))) == len(stretches) == 15


class TestFusion:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_fused_equals_pooling_and_then_convolving(self, layout):
        torch.manual_seed(0)
        matching = BoundaryMatching(7, 4, 3, 0.5, layout).double()
        x = torch.randn(2, 5, 7, dtype=torch.float64, requires_grad=True)
        kernel = torch.randn(6, 5, 4, dtype=torch.float64, requires_grad=True)
        mask = torch.from_numpy(mask_point_by_point(7, 4, 3, 0.5, layout)).double()
        whole = F.conv3d(torch.einsum("bct,tnij->bcnij", x, mask), kernel[..., None, None]).flatten(2)
        expected = whole[:, :, matching.flat_index].transpose(1, 2)

        found = matching(x, kernel)
        tight = {"rtol": 1e-6, "atol": 1e-6}  # the two masks differ in the last of 32 bits
        torch.testing.assert_close(found, expected, **tight)
        upstream = torch.randn_like(found)
        for mine, theirs in zip(
            torch.autograd.grad(found, (x, kernel), upstream),
            torch.autograd.grad(expected, (x, kernel), upstream),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, **tight)
        torch.testing.assert_close(matching.pool(x), torch.einsum("bct,tnij->bcnij", x, mask), **tight)

    def test_gradients_of_every_order_are_right(self):
        matching = BoundaryMatching(4, 2, 2, 0.5).double()
        x = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
        kernel = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(matching, (x, kernel))
        assert torch.autograd.gradgradcheck(matching, (x, kernel))

    def test_the_whole_network_equals_its_unfused_form(self):
        torch.manual_seed(1)
        model = BMN(SMALL).double()
        x = torch.randn(2, 8, 12, dtype=torch.float64)
        base = model.x_1d_b(x)
        pooled = model.matching.pool(model.x_1d_p(base))
        expected = model.x_2d_p(model.x_3d_p(pooled).squeeze(2))
        torch.testing.assert_close(model(x)[0], expected, rtol=1e-10, atol=1e-12)  # sums in another order, 64 bits

    def test_cells_without_a_proposal_see_no_feature(self):
        torch.manual_seed(0)
        model = BMN(SMALL)
        one, other = (model._first_map(torch.randn(1, 16, 12)) for _ in range(2))
        assert torch.equal(one[:, :, ~model.valid], other[:, :, ~model.valid])
        assert not torch.equal(one[:, :, model.valid], other[:, :, model.valid])

    def test_under_autocast_the_map_stays_close(self):
        torch.manual_seed(0)
        model = BMN(SMALL)
        x = torch.randn(2, 8, 12)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(x)[0]
            loss = model.loss(a_batch(SMALL), np.random.default_rng(0))["loss"]
        torch.testing.assert_close(rough.float(), model(x)[0], rtol=0, atol=0.01)  # bfloat16 has 8 bits, values ~ 0.5
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite()


class TestLabels:
    def test_a_segment_is_its_own_best_proposal(self):
        iou_map, start, end = labels(np.array([[3.0, 7.0]]), 10.0, 10)
        assert iou_map[3, 6] == 1.0 == iou_map.max()
        assert iou_map[3, 4] == 0.5  # [3, 5) covers half of [3, 7)
        assert start.argmax() == 2 and start[2:5].tolist() == [1.0, 1.0, 1.0]  # within 1.5 steps of 3
        assert end[6:9].tolist() == [1.0, 1.0, 1.0] and end.sum() == 3.0

    def test_nothing_lies_below_the_diagonal(self):
        iou_map, _, _ = labels(np.array([[0.0, 10.0], [2.0, 2.5]]), 10.0, 16)
        assert not np.tril(iou_map, -1).any() and iou_map[np.triu_indices(16)].all()

    def test_the_best_of_several_segments_counts(self):
        both = labels(np.array([[1.0, 4.0], [5.0, 9.0]]), 10.0, 20)
        alone = [labels(np.array([segment]), 10.0, 20) for segment in ([1.0, 4.0], [5.0, 9.0])]
        for part, (one, other) in zip(both, zip(*alone, strict=True), strict=True):
            assert np.array_equal(part, np.maximum(one, other))

    def test_the_part_beyond_the_video_is_cut_off(self):
        for one, other in zip(
            labels(np.array([[6.0, 14.0]]), 10.0, 10), labels(np.array([[6.0, 10.0]]), 10.0, 10), strict=True
        ):
            assert np.array_equal(one, other)

    def test_a_segment_without_length_marks_its_boundaries_only(self):
        iou_map, start, end = labels(np.array([[5.0, 5.0]]), 10.0, 10)
        assert not iou_map.any() and start.max() == 1.0 and np.array_equal(start, end)

    def test_a_video_without_segments_has_zero_labels(self):
        assert not any(part.any() for part in labels(np.empty((0, 2)), 10.0, 8))

    def test_the_duration_map_is_the_start_end_map_sheared(self):
        segments = np.array([[1.0, 4.0], [5.5, 9.0]])
        by_end, by_duration = (labels(segments, 10.0, 8, layout)[0] for layout in LAYOUTS)
        for start in range(8):
            assert np.array_equal(by_duration[: 8 - start, start], by_end[start, start:])

    @pytest.mark.parametrize(
        ("segment", "duration"),
        [([1.0, 2.0], 0.0), ([1.0, 2.0], math.nan), ([3.0, 2.0], 10.0), ([math.nan, 2.0], 10.0)],
    )
    def test_impossible_annotations_are_refused(self, segment, duration):
        with pytest.raises(AnnotationError):
            labels(np.array([segment]), duration, 10)


class TestLoss:
    def losses(self, batch: BoundaryBatch, safe: bool):
        torch.manual_seed(3)
        model = BMN(SMALL)
        uniform = draw_uniform(np.random.default_rng(0), batch.gt_map)
        return model, boundary_losses(*model(batch.features), batch, model.valid, uniform, safe)

    def test_the_parts_add_up(self):
        _, parts = self.losses(a_batch(SMALL), safe=True)
        assert set(parts) == {"loss", "tem", "pem_reg", "pem_cls"}
        assert parts["loss"] == parts["tem"] + 10 * parts["pem_reg"] + parts["pem_cls"]

    def test_where_the_exact_loss_is_finite_the_safe_one_equals_it(self):
        _, safe = self.losses(a_batch(SMALL), safe=True)
        _, exact = self.losses(a_batch(SMALL), safe=False)
        assert {k: v.item() for k, v in safe.items()} == {k: v.item() for k, v in exact.items()}

    def test_without_positives_the_exact_loss_is_nan_and_the_safe_one_skips_the_term(self):
        batch = a_batch(SMALL)
        short = replace(batch, gt_map=batch.gt_map * 0.6)  # nothing above 0.7, hence nothing above 0.9
        _, exact = self.losses(short, safe=False)
        assert exact["pem_reg"].isnan() and exact["pem_cls"].isnan() and exact["tem"].isfinite()
        model, safe = self.losses(short, safe=True)
        assert safe["pem_reg"] == 0 == safe["pem_cls"] and safe["loss"] == safe["tem"] > 0
        safe["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

    def test_a_batch_of_videos_without_any_action_does_no_harm(self):
        batch = a_batch(SMALL)
        empty = replace(batch, **{name: torch.zeros_like(getattr(batch, name)) for name in FIELDS[1:]})
        model, parts = self.losses(empty, safe=True)
        parts["loss"].backward()
        assert parts["loss"] == 0 and not any(p.grad.any() for p in model.parameters())
        _, exact = self.losses(empty, safe=False)
        assert exact["loss"].isnan()

    def test_users_get_the_safe_loss(self):
        assert SMALL.safe is True

    @given(num_positive=st.integers(1, 19))
    @settings(max_examples=19, deadline=None)
    def test_positives_and_negatives_weigh_the_same_whatever_their_number(self, num_positive):
        positive = torch.arange(20) < num_positive
        loss = balanced_log_loss(torch.full((20,), 0.5), positive, ~positive, safe=False)
        assert loss.item() == pytest.approx(math.log(2), rel=1e-5)  # 32-bit sums, and 1e-6 inside the logarithm

    def test_bands_are_thinned_to_the_number_of_high_cells(self):
        target = torch.zeros(1, 40, 40)
        target[0, :10] = 0.5  # 400 middle cells
        target[0, 10:30] = 0.1  # 800 low cells
        target[0, 30:32, :20] = 0.9  # 40 high cells
        uniform = draw_uniform(torch.Generator().manual_seed(0), target)
        weights = regression_weights(target, uniform)
        assert (weights[target > 0.7] == 1).all() and not weights[target == 0].any()
        assert torch.equal(weights[0, :10] > 0, uniform[0, 0, :10] > 1 - 40 / 400)
        assert torch.equal(weights[0, 10:30] > 0, uniform[1, 0, 10:30] > 1 - 40 / 800)

    def test_a_band_as_large_as_the_high_one_is_kept_whole(self):
        target = torch.tensor([[[0.9, 0.5], [0.0, 0.1]]])
        weights = regression_weights(target, torch.full((2, 1, 2, 2), 1e-3))
        assert weights.tolist() == [[[1.0, 1.0], [0.0, 1.0]]]

    def test_a_smaller_band_lets_every_cell_pass_as_in_the_public_code(self):
        target = torch.tensor([[[0.9, 0.8], [0.5, 0.0]]])  # more high than middle cells, no low ones
        weights = regression_weights(target, torch.full((2, 1, 2, 2), 0.5))
        assert weights.tolist() == [[[3.0, 3.0], [2.0, 2.0]]]

    def test_the_regression_loss_is_half_the_weighted_error_per_counted_cell(self):
        target = torch.tensor([[[0.9, 0.5], [0.1, 0.0]]])
        uniform = torch.full((2, 1, 2, 2), 0.5)  # one cell in every band: each counts once
        prediction = target + torch.tensor([[[0.1, 0.2], [0.0, 0.7]]])
        loss = regression_loss(prediction, target, uniform, safe=False)
        assert loss.item() == pytest.approx(0.5 * (0.1**2 + 0.2**2) / 3, rel=1e-5)  # 32 bits

    @pytest.mark.parametrize("make", [np.random.default_rng, lambda seed: torch.Generator().manual_seed(seed)])
    def test_the_generator_decides_the_loss_to_the_bit(self, make):
        batch, model = a_batch(SMALL), BMN(SMALL)
        one, same, other = (model.loss(batch, make(seed))["pem_reg"].item() for seed in (0, 0, 1))
        assert one == same != other

    def test_the_middle_band_is_drawn_before_the_low_one(self):
        generator = np.random.default_rng(5)
        first, second = generator.random((2, 3, 3)), generator.random((2, 3, 3))
        drawn = draw_uniform(np.random.default_rng(5), torch.zeros(2, 3, 3, dtype=torch.float64))
        assert np.array_equal(drawn.numpy(), np.stack((first, second)))

    def test_two_backward_passes_give_the_same_bits(self):
        torch.manual_seed(0)
        model, batch = BMN(SMALL), a_batch(SMALL)
        grads = []
        for _ in range(2):
            model.zero_grad()
            model.loss(batch, np.random.default_rng(0))["loss"].backward()
            grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        assert torch.equal(*grads)


class TestProposals:
    def maps(self, num_steps: int = 12):
        generator = np.random.default_rng(0)
        return generator.random((2, num_steps, num_steps)), generator.random(num_steps), generator.random(num_steps)

    def test_every_pair_of_steps_is_a_candidate_and_none_ends_with_the_video(self):
        found = candidates(*self.maps(12))
        assert len(found) == 12 * 11 / 2
        pairs = [(i / 12, j / 12) for i in range(12) for j in range(i + 1, 12)]
        assert [tuple(segment) for segment in found.segments] == pairs

    def test_the_score_multiplies_all_four_probabilities(self):
        confidence_map, start, end = self.maps()
        found = candidates(confidence_map, start, end)
        assert found.scores[0] == start[0] * end[1] * confidence_map[1, 0, 0] * confidence_map[0, 0, 0]

    def test_the_map_alone_may_be_the_score(self):
        confidence_map, start, end = self.maps()
        found = candidates(confidence_map, start, end, score="map")
        assert found.scores[0] == confidence_map[1, 0, 0] * confidence_map[0, 0, 0]

    def test_peaks_are_local_maxima_high_values_and_the_ends(self):
        start = np.array([0.1, 0.2, 0.1, 0.9, 0.6, 0.1])
        end = np.array([0.9, 0.1, 0.3, 0.1, 0.1, 0.1])
        found = candidates(np.ones((2, 6, 6)), start, end, rule="peaks")
        starts, ends = [0, 1, 3, 4], [2, 5]  # step 0 of `end` is high, but nothing ends there
        expected = [(i / 6, j / 6) for i in starts for j in ends if i < j]
        assert [tuple(segment) for segment in found.segments] == expected

    @pytest.mark.parametrize("rule", ["all", "peaks"])
    def test_the_axes_of_the_map_do_not_matter(self, rule):
        confidence_map, start, end = self.maps(9)
        sheared = np.zeros_like(confidence_map)
        for i in range(9):
            sheared[:, : 9 - i, i] = confidence_map[:, i, i:]
        one = candidates(confidence_map, start, end, rule)
        other = candidates(sheared, start, end, rule, "duration_start")
        assert np.array_equal(one.segments, other.segments) and np.array_equal(one.scores, other.scores)

    def test_proposals_come_in_seconds_best_first_within_the_video(self):
        cfg = replace(SMALL, num_proposals=20)
        found = proposals(*self.maps(), 60.0, cfg)
        assert len(found) == 20 and (np.diff(found.scores) <= 0).all()
        assert found.segments.min() >= 0 and 1.0 < found.segments.max() < 60.0
        assert (found.segments[:, 0] < found.segments[:, 1]).all()

    def test_the_last_candidate_is_never_returned(self):
        assert len(proposals(*self.maps(4), 10.0, SMALL)) == 4 * 3 / 2 - 1
        assert [len(proposals(*self.maps(n), 10.0, SMALL)) for n in (1, 2)] == [0, 0]

    def test_a_batch_is_predicted_video_by_video(self):
        torch.manual_seed(0)
        model, x = BMN(SMALL), torch.randn(2, 8, 12)
        both = model.predict(x, torch.tensor([30.0, 90.0]))
        alone = model.predict(x[1:], torch.tensor([90.0]))[0]
        assert len(both) == 2 and both[1].labels is None
        np.testing.assert_allclose(both[1].scores, alone.scores, rtol=1e-5)  # batched 32-bit sums
        assert not both[0].segments.max() > 30.0 < both[1].segments.max() <= 90.0

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_batch_shares_its_suppression_and_nothing_changes(self, layout):
        """To the bit, ties included."""
        torch.manual_seed(0)
        model = BMN(replace(SMALL, layout=layout, num_proposals=15))
        x = torch.randn(3, 8, 12)
        x[1] = 0  # every score of this video occurs many times
        with torch.no_grad():
            maps = [output.numpy() for output in model(x)]
        maps[0][1], maps[1][1], maps[2][1] = 0.5, 0.5, 0.5
        model.forward = lambda _: tuple(torch.from_numpy(part) for part in maps)
        found = model.predict(x, torch.tensor([30.0, 90.0, 7.0]))
        for i, second in enumerate((30.0, 90.0, 7.0)):
            alone = proposals(*(part[i] for part in maps), second, model.cfg)
            assert np.array_equal(found[i].segments, alone.segments) and np.array_equal(found[i].scores, alone.scores)

    def test_a_small_head_learns_where_an_obvious_action_is(self):
        cfg = BMNConfig(in_channels=4, num_steps=16, num_samples=6, hidden=(32, 16, 32))
        generator = np.random.default_rng(0)

        def video():
            start = generator.uniform(0.05, 0.5)
            end = start + generator.uniform(0.2, 0.4)
            inside = (np.arange(16) / 16 >= start) & (np.arange(16) / 16 < end)
            features = generator.normal(size=(4, 16)) * 0.1 + inside * np.array([[1], [-1], [0], [0]])
            return features.astype(np.float32), np.array([[start * 50, end * 50]])

        train, test = [[video() for _ in range(count)] for count in (32, 8)]
        truth = [np.stack(part) for part in zip(*(labels(segment, 50.0, 16) for _, segment in train), strict=True)]
        parts = (np.stack([features for features, _ in train]), *truth)
        batch = BoundaryBatch(**dict(zip(FIELDS, map(torch.from_numpy, parts), strict=True)))
        torch.manual_seed(0)
        model = BMN(cfg)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(80):
            optimizer.zero_grad()
            model.loss(batch, generator)["loss"].backward()
            optimizer.step()
        found = model.predict(torch.from_numpy(np.stack([f for f, _ in test])), torch.full((8,), 50.0))
        for video_found, (_, ((start, end),)) in zip(found, test, strict=True):
            low, high = video_found.segments[0]
            overlap = min(high, end) - max(low, start)
            assert overlap / (max(high, end) - min(low, start)) > 0.6  # steps are 3 s, actions 10 to 20 s


class TestCheckpoints:
    def official(self, cfg: BMNConfig = SMALL, mask: bool = True) -> dict:
        torch.manual_seed(0)
        weights = BMN(cfg).state_dict()
        return {"module.sample_mask": official_mask(cfg)} | {f"module.{k}": v for k, v in weights.items()}

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize(("num_points", "ratio"), [(3, 0.5), (1, 0.25), (4, 0.4)])
    def test_the_mask_tells_how_the_map_was_laid_out(self, layout, num_points, ratio):
        cfg = replace(SMALL, layout=layout, num_points=num_points, prop_boundary_ratio=ratio)
        stored = self.official(cfg)
        model = from_official({"epoch": 9, "state_dict": stored})
        assert model.cfg == cfg
        assert all(torch.equal(stored[f"module.{key}"], value) for key, value in model.state_dict().items())

    def test_the_mask_is_not_stored(self):
        assert not [key for key in BMN(SMALL).state_dict() if not key.startswith("x_")]

    def test_an_unknown_mask_is_refused(self):
        stored = self.official()
        stored["module.sample_mask"] = stored["module.sample_mask"].roll(1, dims=0)
        with pytest.raises(CheckpointError, match="neither that of a start x end map"):
            from_official(stored)

    def test_a_mask_of_another_size_is_refused(self):
        stored = self.official()
        stored["module.sample_mask"] = stored["module.sample_mask"][:, :-1]
        with pytest.raises(CheckpointError, match=r"ask for \(12, 576\)"):
            from_official(stored)

    def test_a_configuration_that_contradicts_the_mask_is_refused(self):
        with pytest.raises(CheckpointError, match="is not that of num_points=3"):
            from_official(self.official(), replace(SMALL, layout="duration_start"))

    def test_without_a_mask_the_configuration_must_be_given(self):
        stored = self.official()
        del stored["module.sample_mask"]
        with pytest.raises(CheckpointError, match="pass a BMNConfig"):
            from_official(stored)
        assert from_official(stored, SMALL).cfg == SMALL

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("module.x_1d_s.0.bias"), "x_1d_s.0.bias is missing"),
            (lambda w: w.update({"module.extra": torch.zeros(1)}), "extra is unknown"),
            (lambda w: w.update({"module.x_1d_s.0.bias": torch.zeros(3)}), r"shape \(3,\) instead of \(16,\)"),
            (lambda w: w.pop("module.x_3d_p.0.weight"), "no BMN checkpoint"),
        ],
    )
    def test_a_weight_that_does_not_fit_is_named(self, change, message):
        stored = self.official()
        change(stored)
        with pytest.raises(CheckpointError, match=message):
            from_official(stored)

    def test_a_copy_and_a_reloaded_model_predict_the_same(self):
        torch.manual_seed(0)
        model, x = BMN(SMALL), torch.randn(1, 8, 12)
        reloaded = BMN(SMALL)
        reloaded.load_state_dict(model.state_dict())
        for other in (copy.deepcopy(model), reloaded):
            assert all(torch.equal(a, b) for a, b in zip(model(x), other(x), strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("in_channels", 6),
        ("hidden", (6, 8, 16)),
        ("num_steps", 0),
        ("num_samples", 0),
        ("prop_boundary_ratio", -0.1),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"BMNConfig.{field}"):
        replace(SMALL, **{field: value})


@pytest.mark.parametrize("shape", [(1, 8, 11), (1, 4, 12)])
def test_features_of_another_size_are_refused(shape):
    with pytest.raises(ConfigError, match=r"takes features \(B, 8, 12\)"):
        BMN(SMALL)(torch.zeros(shape))
