"""G-TAD: what a sub-graph samples, what it is taught, what it loses, and which segments it answers with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from uptal.errors import AnnotationError, CheckpointError, ConfigError
from uptal.features import Features
from uptal.localizers.align import SGAlign, align1d, anchors, at_steps, neighbours
from uptal.localizers.gtad import GTAD, GTADConfig, candidates, proposals, thumos14
from uptal.localizers.gtad_published import thumos14_detections
from uptal.localizers.gtad_targets import LOSS_WEIGHTS, labels
from uptal.localizers.gtad_weights import from_official
from uptal.localizers.samples import CutConfig, cut_video
from uptal.localizers.targets import BoundaryBatch, boundary_losses, draw_uniform
from uptal.types import Detections, Segment, Timebase, Video

SMALL = GTADConfig(
    in_channels=8, num_steps=12, max_duration=12, inner=6, context=2, hidden=(16, 8, 16), groups=4, num_proposals=20
)
WINDOWS = replace(SMALL, form="thumos14", max_duration=7, context=6, kernel_2d=3)
FORMS = pytest.mark.parametrize("cfg", [SMALL, WINDOWS], ids=["activitynet", "thumos14"])


def align_by_hand(x: np.ndarray, start: float, end: float, resolution: int, ratio: int) -> np.ndarray:
    """The operation written down one point at a time, for one sequence (C, T)."""
    num_steps, length = x.shape[1], max(end - start, 1.0)
    width = length / resolution
    count = ratio if ratio > 0 else math.ceil(width)
    out = np.zeros((len(x), resolution))
    for bin in range(resolution):
        for point in range(count):
            place = start + bin * width + (point + 0.5) * width / count
            if place < -1 or place > num_steps:
                continue
            place = max(place, 0.0)
            low = int(place)
            if low >= num_steps - 1:
                low, high, part = num_steps - 1, num_steps - 1, 0.0
            else:
                low, high, part = low, low + 1, place - low
            out[:, bin] += ((1 - part) * x[:, low] + part * x[:, high]) / count
    return out


class TestAlign:
    @settings(max_examples=60, deadline=None)
    @given(
        start=st.floats(-12, 20),
        length=st.floats(-3, 20),
        resolution=st.sampled_from([1, 3, 4, 16]),
        ratio=st.sampled_from([0, 1, 2]),
        num_steps=st.sampled_from([1, 2, 9]),
    )
    def test_every_point_is_shared_by_its_two_steps(self, start, length, resolution, ratio, num_steps):
        x = np.random.default_rng(0).normal(size=(3, num_steps))
        rois = torch.tensor([[0.0, start, start + length]], dtype=torch.float64)
        found = align1d(torch.from_numpy(x)[None], rois, resolution, ratio)[0]
        np.testing.assert_allclose(found, align_by_hand(x, start, start + length, resolution, ratio), atol=1e-12)

    def test_position_three_is_step_three(self):
        ramp = torch.arange(10.0)[None, None]
        assert align1d(ramp, torch.tensor([[0.0, 2.5, 3.5]]), 1).item() == 3.0

    def test_points_outside_count_nothing_but_are_counted(self):
        ones = torch.ones(1, 1, 4)
        assert align1d(ones, torch.tensor([[0.0, -6.0, 2.0]]), 1, 4).item() == 0.5  # at -5, -3, -1 and 1
        assert align1d(ones, torch.tensor([[0.0, 90.0, 99.0]]), 2).tolist() == [[[0.0, 0.0]]]

    def test_gradients_are_the_transpose(self):
        x = torch.randn(2, 2, 6, dtype=torch.float64, requires_grad=True)
        rois = torch.tensor([[0, -1.5, 2.5], [1, 0, 0], [1, 3, 9.5]], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: align1d(x, rois, 3), (x,))

    def test_no_stretch_gives_nothing(self):
        assert align1d(torch.ones(1, 2, 4), torch.zeros(0, 3), 5).shape == (0, 2, 5)


class TestFusion:
    def unfused(self, cfg: GTADConfig, x: torch.Tensor, around: torch.Tensor | None, kernel: torch.Tensor):
        """All anchors of the map, one stretch each, aligned and then convolved."""
        low, high, of_cell = anchors(cfg.num_steps, cfg.max_duration)
        cells = of_cell.flatten()
        rois = torch.stack((torch.zeros_like(low), low, high), dim=1)[cells].to(x.dtype)
        maps = []
        for i in range(len(x)):
            parts = [align1d(x[i : i + 1], rois, cfg.inner, cfg.inner_ratio)]
            if around is not None:
                parts.append(align1d(around[i : i + 1], rois, cfg.context, cfg.context_ratio))
            maps.append(torch.cat(parts, dim=2).flatten(1).T)
        pooled = torch.stack(maps)  # (B, C * R, D * T)
        return F.conv1d(pooled, kernel.flatten(1)[..., None]).unflatten(2, of_cell.shape)

    @pytest.mark.parametrize(
        "cfg", [SMALL, WINDOWS, replace(SMALL, style=0), replace(WINDOWS, inner_ratio=1, context_ratio=2)]
    )
    def test_fused_equals_pooling_and_then_convolving(self, cfg):
        torch.manual_seed(0)
        align = SGAlign(
            cfg.num_steps, cfg.max_duration, cfg.inner, cfg.used_context, cfg.inner_ratio, cfg.context_ratio
        )
        x = torch.randn(2, 5, cfg.num_steps, dtype=torch.float64, requires_grad=True)
        around = torch.randn_like(x) if cfg.style else None
        kernel = torch.randn(4, 5, cfg.inner + cfg.used_context, dtype=torch.float64, requires_grad=True)
        found, expected = align.spread(align(x, around, kernel)), self.unfused(cfg, x, around, kernel)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)  # 64 bits, sums in another order
        upstream = torch.randn_like(found)
        for mine, theirs in zip(
            torch.autograd.grad(found, (x, kernel), upstream),
            torch.autograd.grad(expected, (x, kernel), upstream),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-9)
        single = align.spread(align(x.float(), None if around is None else around.float(), kernel.float()))
        assert (single - expected).abs().max() <= 1e-5 * expected.abs().max()

    def test_cells_beyond_the_last_step_are_not_zero_but_see_the_first_steps(self):
        align, x = SGAlign(6, 6, 4, 0), torch.randn(1, 1, 6)
        pooled = align.spread(align(x, None, torch.eye(4)[:, None]))[0]
        expected = align1d(x, torch.zeros(1, 3), 4)[0, 0]
        for duration in range(1, 6):
            for start in range(6 - duration, 6):
                torch.testing.assert_close(pooled[:, duration, start], expected)

    def test_anchors_and_their_weights_are_not_in_the_checkpoint(self):
        assert not [name for name in GTAD(SMALL).state_dict() if "goi" in name or "valid" in name]

    def test_neighbours_are_the_closest_with_oneself_first(self):
        x = torch.tensor([[[0.0, 10.0, 1.0, 11.0, 5.1]]])
        assert neighbours(x, 2)[0].tolist() == [[0, 2], [1, 3], [2, 0], [3, 1], [4, 2]]
        assert at_steps(x, neighbours(x, 2))[0, 0, 1].tolist() == [10.0, 11.0]

    def test_what_follows_the_maximum_over_pairs_equals_the_plain_form(self):
        torch.manual_seed(0)
        block = GTAD(SMALL).double().backbone2[0]
        x = torch.randn(2, 16, 12, dtype=torch.float64)
        index = neighbours(x, 3)
        pairs = torch.cat((at_steps(x, index), x[..., None].expand(-1, -1, -1, 3)), dim=1)
        expected = F.relu(block.tconvs(x) + x + block.sconvs(pairs).max(-1).values)
        torch.testing.assert_close(block(x, index), expected, rtol=1e-12, atol=1e-12)

    @FORMS
    def test_under_autocast_the_map_stays_close(self, cfg):
        torch.manual_seed(0)
        model, batch = GTAD(cfg), a_batch(cfg)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(batch.features)[0]
            loss = model.loss(batch, np.random.default_rng(0))["loss"]
        torch.testing.assert_close(rough.float(), model(batch.features)[0], rtol=0, atol=0.02)  # 8 bits, values ~ 0.5
        loss.backward()
        assert loss.dtype == torch.float32 and loss.isfinite()


def a_batch(cfg: GTADConfig, num_videos: int = 3) -> BoundaryBatch:
    """Random features; an action in every video, so that every term of the loss has positives."""
    torch.manual_seed(0)
    made = [
        labels(np.array([[2.0, 7.0]]) + i, 12.0, cfg.num_steps, cfg.max_duration, cfg.form) for i in range(num_videos)
    ]
    maps, starts, ends = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
    features = torch.randn(num_videos, cfg.in_channels, cfg.num_steps)
    return BoundaryBatch(features=features, gt_map=maps, gt_start=starts, gt_end=ends)


class TestLabels:
    @FORMS
    def test_a_segment_is_its_own_best_proposal(self, cfg):
        best, _, _ = labels(np.array([[3.0, 7.0]]), 12.0, 12, cfg.max_duration, cfg.form)
        assert best.shape == (cfg.max_duration, 12) and best[3, 3] == 1.0 == best.max()
        assert best[1, 3] == 0.5  # [3, 5) covers half of [3, 7)

    def test_whole_videos_compare_boundaries_with_two_steps(self):
        _, start, _ = labels(np.array([[5.0, 9.0]]), 12.0, 12, 12, "activitynet")
        # step i is [i - 0.5, i + 1.5], the boundary's region [3.5, 6.5]
        assert start[2:8].tolist() == pytest.approx([0, 0.5, 1.0, 1.0, 0.5, 0])

    def test_windows_compare_boundaries_with_the_step_itself(self):
        _, start, _ = labels(np.array([[5.0, 9.0]]), 12.0, 12, 7, "thumos14")
        assert start[2:8].tolist() == pytest.approx([0, 0.5, 1.0, 1.0, 0.5, 0])
        _, start, end = labels(np.array([[-4.0, 30.0]]), 12.0, 12, 7, "thumos14")
        assert not start.any() and not end.any()  # an instance that began before the window marks nothing in it

    @FORMS
    def test_a_segment_without_length_overlaps_nothing(self, cfg):
        best, start, end = labels(np.array([[5.0, 5.0]]), 12.0, 12, cfg.max_duration, cfg.form)
        assert not best.any() and start.max() == 1.0 and np.array_equal(start, end)

    @FORMS
    def test_a_video_without_segments_has_zero_labels(self, cfg):
        assert not any(part.any() for part in labels(np.empty((0, 2)), 12.0, 12, cfg.max_duration, cfg.form))

    @FORMS
    @pytest.mark.parametrize(("segment", "duration"), [([1.0, 2.0], 0.0), ([3.0, 2.0], 12.0), ([math.nan, 2.0], 12.0)])
    def test_impossible_annotations_are_refused(self, cfg, segment, duration):
        with pytest.raises(AnnotationError):
            labels(np.array([segment]), duration, 12, cfg.max_duration, cfg.form)


class TestLoss:
    def losses(self, cfg: GTADConfig, batch: BoundaryBatch, safe: bool):
        torch.manual_seed(3)
        model = GTAD(cfg)
        uniform = draw_uniform(np.random.default_rng(0), batch.gt_map)
        weights = LOSS_WEIGHTS[cfg.form]
        return model, boundary_losses(*model(batch.features), batch, model.valid, uniform, safe, weights)

    def test_the_factor_ten_is_on_another_term_in_each_form(self):
        _, whole = self.losses(SMALL, a_batch(SMALL), safe=True)
        assert whole["loss"] == whole["tem"] + 10 * whole["pem_reg"] + whole["pem_cls"]
        _, window = self.losses(WINDOWS, a_batch(WINDOWS), safe=True)
        assert window["loss"] == window["tem"] + window["pem_reg"] + 10 * window["pem_cls"]

    @FORMS
    def test_where_the_exact_loss_is_finite_the_safe_one_equals_it(self, cfg):
        _, safe = self.losses(cfg, a_batch(cfg), safe=True)
        _, exact = self.losses(cfg, a_batch(cfg), safe=False)
        assert {k: v.item() for k, v in safe.items()} == {k: v.item() for k, v in exact.items()}

    @FORMS
    def test_a_batch_of_videos_without_any_action_is_no_obstacle(self, cfg):
        batch = a_batch(cfg)
        empty = replace(batch, **{k: torch.zeros_like(v) for k, v in vars(batch).items() if k != "features"})
        model, parts = self.losses(cfg, empty, safe=True)
        parts["loss"].backward()
        assert all(part.isfinite() for part in parts.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        _, exact = self.losses(cfg, empty, safe=False)
        assert exact["loss"].isnan()
        assert exact["pem_cls"].isnan() == (cfg.form == "activitynet")  # the guard of THUMOS'14

    @FORMS
    def test_cells_beyond_the_last_step_do_not_count(self, cfg):
        batch = a_batch(cfg)
        _, one = self.losses(cfg, batch, safe=True)
        model = GTAD(cfg)
        _, other = self.losses(cfg, replace(batch, gt_map=batch.gt_map.where(model.valid, 0.95)), safe=True)
        assert one["loss"] == other["loss"]

    def test_users_get_the_safe_loss(self):
        assert SMALL.safe is True

    @FORMS
    def test_the_company_of_other_videos_changes_nothing(self, cfg):
        """Anchors hold for any number of videos."""
        torch.manual_seed(0)
        model, x = GTAD(cfg), torch.randn(9, 8, 12)
        together = model(x)[0]
        for i in range(9):
            torch.testing.assert_close(together[i : i + 1], model(x[i : i + 1])[0], rtol=1e-4, atol=1e-6)  # 32 bits
        shuffled = model(x.flip(0))[0].flip(0)
        torch.testing.assert_close(together, shuffled, rtol=1e-4, atol=1e-6)


class TestProposals:
    def maps(self, cfg: GTADConfig):
        rng = np.random.default_rng(0)
        return rng.random((2, cfg.max_duration, cfg.num_steps)), rng.random(cfg.num_steps), rng.random(cfg.num_steps)

    def test_windows_offer_every_pair_and_none_ends_with_the_window(self):
        found = candidates(*self.maps(WINDOWS), "thumos14")
        pairs = [(s, s + k + 1) for s in range(12) for k in range(7) if s + k + 1 < 12]
        assert [tuple(row) for row in found.segments] == pairs

    def test_whole_videos_offer_pairs_of_peaks(self):
        start, end = np.array([0.1, 0.2, 0.1, 0.9, 0.6, 0.1]), np.array([0.9, 0.1, 0.3, 0.1, 0.1, 0.1])
        found = candidates(np.ones((2, 6, 6)), start, end, "activitynet")
        assert [tuple(row) for row in found.segments] == [(0, 2), (0, 5), (1, 2), (1, 5), (3, 5), (4, 5)]

    def test_boundary_probabilities_do_not_scale_scores(self):
        confidence_map, start, end = self.maps(WINDOWS)
        found = candidates(confidence_map, start * 0.1, end * 0.1, "thumos14")
        assert found.scores[0] == confidence_map[0, 0, 0] * confidence_map[1, 0, 0]

    def test_the_longest_are_left_out_where_the_rule_says_so(self):
        found = proposals(*self.maps(WINDOWS), replace(WINDOWS, longest=4))
        assert len(found) and np.diff(found.segments).max() == 3

    def test_published_detections_are_rounded_and_interleaved(self):
        window = Detections(np.array([[-3.0, 30.0], [300.0, 333.0], [600.0, 601.0]]), np.array([0.5, 0.4, 0.3]))
        scores = {"a": 0.2, "b": 0.7, "c": 0.7}
        found = thumos14_detections([window], 30.0, 310.0, scores, replace(WINDOWS, num_proposals=200))
        assert found.labels == ("c", "b", "c", "b")  # of equal scores the later; the last proposal is never returned
        assert found.segments.tolist() == [[0.0, 1.0]] * 2 + [[10.0, 10.3]] * 2
        assert found.scores.tolist() == [0.35, 0.35, 0.28, 0.28]


def clock(count: int = 23) -> Features:
    base = Timebase(fps=10.0, stride=4.0, window=4.0)
    rng = torch.Generator().manual_seed(0)
    return Features("clock", torch.randn(count, 8, generator=rng), base, count * 0.4)


class TestSamples:
    @FORMS
    @pytest.mark.parametrize("count", [1, 2, 7, 12, 40])
    def test_videos_of_any_length_give_sound_proposals(self, cfg, count):
        torch.manual_seed(0)
        model, read = GTAD(cfg).eval(), clock(count)
        cut = CutConfig(mode="windows" if cfg.form == "thumos14" else "resample")
        samples = cut_video(read, None, cfg.num_steps, cut)
        found = model.merge(samples, model.localize(samples))
        assert found.labels is None and (np.diff(found.scores) <= 0).all()
        assert (found.segments[:, 0] < found.segments[:, 1]).all()
        assert len(found) == 0 or (found.segments.min() >= 0 and found.segments.max() <= read.duration)

    @FORMS
    def test_labels_are_those_of_the_window(self, cfg):
        video = Video(id="clock", duration=9.2, subset="", segments=(Segment(2.0, 3.2, "x"), Segment(8.0, 8.0, "x")))
        samples = cut_video(clock(), video, cfg.num_steps, CutConfig(mode="windows"))
        batch = GTAD(cfg).collate(samples)
        for sample, best in zip(samples, batch.gt_map, strict=True):
            place = round((2.0 - sample.start) / sample.step)
            if place >= 0:
                assert best[2, place] == pytest.approx(1.0)


class TestLearning:
    @FORMS
    def test_four_videos_are_learnt_by_heart(self, cfg):
        """At the official layer structure with reduced widths: the first proposal of each video is its action."""
        rng = np.random.default_rng(0)
        spans = [(1, 4), (3, 8), (6, 10), (5, 7)]
        features = rng.normal(size=(4, 8, 12)) * 0.1
        for i, (start, end) in enumerate(spans):
            features[i, :4, start:end] += 1
        made = [labels(np.array([span], np.float64), 12.0, 12, cfg.max_duration, cfg.form) for span in spans]
        maps, starts, ends = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        x = torch.from_numpy(features).float()
        batch = BoundaryBatch(features=x, gt_map=maps, gt_start=starts, gt_end=ends)
        torch.manual_seed(0)
        model = GTAD(replace(cfg, hidden=(16, 16, 32)))
        optimizer = torch.optim.Adam(model.parameters(), 8e-3 if cfg.form == "activitynet" else 4e-3)
        for _ in range(100 if cfg.form == "activitynet" else 200):
            optimizer.zero_grad()
            model.loss(batch, rng)["loss"].backward()
            optimizer.step()
        with torch.no_grad():
            outputs = [output.numpy() for output in model(x)]
        for span, *video in zip(spans, *outputs, strict=True):
            assert tuple(proposals(*video, model.cfg).segments[0]) == span


class TestCheckpoints:
    def official(self, cfg: GTADConfig) -> dict:
        torch.manual_seed(0)
        return {f"module.{key}": value for key, value in GTAD(cfg).state_dict().items()}

    @pytest.mark.parametrize(
        "cfg",
        [
            GTADConfig(in_channels=8, hidden=(16, 8, 16), groups=4),
            GTADConfig(in_channels=8, hidden=(16, 8, 16), groups=4, style=0),
            replace(thumos14(8), hidden=(16, 8, 16)),
            replace(thumos14(8), hidden=(16, 8, 16), style=0),
        ],
    )
    def test_the_weights_tell_the_form(self, cfg):
        stored = self.official(cfg)
        model = from_official({"epoch": 9, "state_dict": stored})
        assert model.cfg == cfg
        assert all(torch.equal(stored[f"module.{key}"], value) for key, value in model.state_dict().items())

    def test_another_form_is_refused(self):
        with pytest.raises(CheckpointError, match=r"neither the ActivityNet nor the THUMOS'14 form .* 8 samples"):
            from_official(self.official(SMALL))
        assert from_official(self.official(SMALL), SMALL).cfg == SMALL

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("module.regu_s.1.bias"), "regu_s.1.bias is missing"),
            (lambda w: w.update({"module.extra": torch.zeros(1)}), "extra is unknown"),
            (lambda w: w.update({"module.regu_s.1.bias": torch.zeros(3)}), r"shape \(3,\) instead of \(1,\)"),
            (lambda w: w.update({"module.regu_s.1.bias": "text"}), "'module.regu_s.1.bias' is no tensor"),
        ],
    )
    def test_a_weight_that_does_not_fit_is_named(self, change, message):
        stored = self.official(SMALL)
        change(stored)
        with pytest.raises(CheckpointError, match=message):
            from_official(stored, SMALL)

    def test_something_else_is_no_checkpoint(self):
        with pytest.raises(CheckpointError, match="no G-TAD checkpoint"):
            from_official({"weight": torch.zeros(1)})


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_channels": 6},
        {"hidden": (6, 8, 16)},
        {"max_duration": 13},
        {"num_steps": 2, "max_duration": 2},
        {"kernel_2d": 2},
        {"style": 3},
        {"context": 0},
        {"inner_ratio": -1},
        {"soft_nms_sigma": 0.0},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="GTADConfig"):
        replace(SMALL, **wrong)


@pytest.mark.parametrize("shape", [(1, 8, 11), (1, 4, 12)])
def test_features_of_another_size_are_refused(shape):
    with pytest.raises(ConfigError, match=r"takes features \(B, 8, 12\)"):
        GTAD(SMALL)(torch.zeros(shape))
