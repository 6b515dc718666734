"""ActionFormer: what a point learns, what a step sees, and that nothing sees what is not there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from uptal.errors import AnnotationError, ConfigError
from uptal.features import Features
from uptal.localizers.actionformer import ActionFormer, ActionFormerConfig
from uptal.localizers.actionformer_layers import Head, in_a_row, local_attention, positions, without_gaps
from uptal.localizers.actionformer_targets import (
    PointBatch,
    collate,
    crop,
    distance_iou_loss,
    focal_loss,
    label_points,
    point_losses,
    pyramid_points,
)
from uptal.localizers.samples import CutConfig, Sample, cut_video
from uptal.types import Detections, Segment, Timebase, Video

LABELS = ("jump", "run")
CFG = ActionFormerConfig(in_channels=6, width=8, num_heads=2, num_levels=3, window=5, num_steps=64)
CPU = torch.device("cpu")


def a_sample(count: int, *segments: tuple[float, float, str], seed: int = 0) -> Sample:
    """So many steps of one second each."""
    values = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    read = Features(f"v{seed}", values, Timebase(fps=1.0, stride=1.0, window=1.0), float(count))
    video = Video(id=read.id, duration=read.duration, subset="", segments=tuple(Segment(*s) for s in segments))
    (sample,) = cut_video(read, video, 1, CutConfig(mode="whole"))
    return sample


def network(cfg: ActionFormerConfig = CFG) -> ActionFormer:
    """With its blocks at work: they begin as next to nothing."""
    torch.manual_seed(0)
    model = ActionFormer(cfg, LABELS)
    for block in model.blocks:
        torch.nn.init.constant_(block.scale1, 0.7)
        torch.nn.init.constant_(block.scale2, 0.7)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)  # norms with a bias make something of nothing
    return model.eval()


class TestMask:
    @pytest.mark.parametrize("count", [1, 2, 7, 16, 37])
    @pytest.mark.parametrize(
        "cfg", [CFG, replace(CFG, window=0), replace(CFG, position=True, last_window=3, num_stem=0)]
    )
    def test_padding_changes_nothing(self, cfg, count):
        model, video = network(cfg), a_sample(count).values[None]
        mask = torch.ones(1, count, dtype=torch.bool)
        alone = model(video, mask)
        for extra in (1, 3, 30):
            rubbish = F.pad(video, (0, extra), value=1e3)
            padded = model(rubbish, F.pad(mask, (0, extra)))
            exists = padded[2][0]
            assert int(exists.sum()) == alone[2].shape[1]
            for mine, theirs in zip(alone[:2], padded[:2], strict=True):
                torch.testing.assert_close(theirs[:, exists], mine, rtol=1e-4, atol=1e-5)  # other kernels, float32

    def test_detections_do_not_depend_on_the_company(self):
        model, samples = network(), [a_sample(count, seed=count) for count in (3, 40, 11)]
        for sample, found in zip(samples, model.localize(samples), strict=True):
            (alone,) = model.localize([sample])
            assert found.labels == alone.labels
            np.testing.assert_allclose(found.segments, alone.segments, atol=1e-4)

    @pytest.mark.parametrize(("steps", "window"), [(1, 1), (5, 3), (29, 5), (40, 9), (50, 1), (9, 0), (23, 5)])
    def test_local_attention_is_attention_with_a_band(self, steps, window):
        torch.manual_seed(0)
        query, key, value = (torch.randn(2, 3, steps, 4) for _ in range(3))
        mask = torch.arange(steps) < torch.tensor([[steps], [max(1, steps - 3)]])
        apart = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
        allowed = mask[:, None, None] & (apart <= (window // 2 if window else steps))
        scores = (query @ key.mT / 2).masked_fill(~allowed, -torch.inf)
        found = local_attention(query, key, value, mask, window).transpose(1, 2)
        torch.testing.assert_close(found[mask], (scores.softmax(-1) @ value).transpose(1, 2)[mask])

    def test_levels_in_a_row_are_levels_alone(self):
        torch.manual_seed(0)
        head, lengths = Head(4, 3), (9, 5, 3, 1)
        levels = [torch.randn(2, length, 4) for length in lengths]
        masks = [torch.ones(2, length, dtype=torch.bool) for length in lengths]
        together = without_gaps(head(in_a_row(levels), in_a_row(masks)), lengths)
        alone = torch.cat([head(level, mask) for level, mask in zip(levels, masks, strict=True)], 1)
        torch.testing.assert_close(together, alone)

    def test_memory_does_not_grow_with_the_square_of_the_length(self):
        """Doubling the length doubles the largest tensor of attention, within a block."""
        from torch.utils._python_dispatch import TorchDispatchMode

        class Largest(TorchDispatchMode):
            most = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor):
                    self.most = max(self.most, out.untyped_storage().nbytes())
                return out

        sizes = []
        for steps in (512, 1024):
            x, mask = torch.zeros(1, 1, steps, 8), torch.ones(1, steps, dtype=torch.bool)
            with Largest() as largest:
                local_attention(x, x, x, mask, 9)
            sizes.append(largest.most)
        assert sizes[1] < 2.1 * sizes[0]


class TestPoints:
    def test_levels_are_in_charge_of_doubling_distances(self):
        assert CFG.levels == ((1, 0.0, 4.0), (2, 4.0, 8.0), (4, 8.0, float("inf")))
        points = pyramid_points(5, CFG.levels, CPU)
        assert points.place.tolist() == [0, 1, 2, 3, 4, 0, 2, 4, 0, 4]

    @pytest.mark.parametrize(("length", "level"), [(3.0, 1), (7.0, 1), (10.0, 2), (40.0, 4)])
    def test_longer_actions_are_learnt_by_higher_levels(self, length, level):
        points = pyramid_points(64, CFG.levels, CPU)
        middle = 32.0
        segment = torch.tensor([[[middle - length / 2, middle + length / 2]]])
        classes, distances = label_points(points, segment, torch.tensor([[1]]), 2, 1.5)
        positive = classes[0].sum(1) > 0
        assert level in points.stride[positive].tolist()
        farther = distances[0].amax(1)[positive] * points.stride[positive]
        assert (farther >= points.least[positive]).all() and (farther <= points.most[positive]).all()
        assert classes[0, positive].tolist() == [[0.0, 1.0]] * int(positive.sum())
        # the target leads back to the segment, half a step later on the sample's own scale
        again = points.segments(distances)[0, positive] - 0.5
        torch.testing.assert_close(again, segment[0].expand(len(again), 2))
        assert ((points.place[positive] - middle).abs() < 1.5 * points.stride[positive]).all()

    def test_of_two_actions_the_shorter_is_learnt_and_twins_share_a_point(self):
        points = pyramid_points(8, ((1, 0.0, float("inf")),), CPU)
        nested = torch.tensor([[[0.0, 7.0], [3.0, 5.0]]])
        classes, _ = label_points(points, nested, torch.tensor([[0, 1]]), 2, 10.0)
        assert classes[0].argmax(1)[[1, 4, 6]].tolist() == [0, 1, 0]
        twins = torch.tensor([[[2.0, 6.0], [2.0, 6.0]]])
        classes, _ = label_points(points, twins, torch.tensor([[0, 1]]), 2, 1.5)
        assert classes[0, 4].tolist() == [1.0, 1.0] and not classes[0, 0].any()

    def test_nothing_is_learnt_from_an_action_of_no_length(self):
        points = pyramid_points(8, CFG.levels, CPU)
        for segments in (torch.zeros(1, 1, 2), torch.full((1, 1, 2), 4.0), torch.zeros(1, 0, 2)):
            classes, distances = label_points(
                points, segments, torch.zeros(segments.shape[:2], dtype=torch.int64), 2, 1.5
            )
            assert not classes.any() and distances.isfinite().all()

    def test_seconds_come_back(self):
        """A network that answers with its targets finds the annotated seconds."""
        model, sample = network(), a_sample(32, (3.2, 9.7, "run"), (15.0, 29.5, "jump"))
        batch = model.collate([sample])
        points = model.points(32)
        classes, distances = label_points(points, batch.segments, batch.labels, 2, 1.5)
        segments = sample.seconds(points.segments(distances)[0].double().numpy())
        for label, expected in ((1, (3.2, 9.7)), (0, (15.0, 29.5))):
            mine = segments[classes[0, :, label].numpy() > 0]
            assert len(mine)
            np.testing.assert_allclose(mine, [expected] * len(mine), atol=1e-5)  # targets are float32


class TestLosses:
    def test_focal_loss_by_hand(self):
        chance = 0.2
        logit = torch.tensor([np.log(chance / (1 - chance))] * 2, dtype=torch.float64)
        found = focal_loss(logit, torch.tensor([1.0, 0.0], dtype=torch.float64))
        assert found.tolist() == pytest.approx([0.25 * 0.8**2 * -np.log(0.2), 0.75 * 0.2**2 * -np.log(0.8)])

    @pytest.mark.parametrize(
        ("offsets", "expected"),
        [((2.0, 3.0), 0.0), ((1.0, 4.0), 1 - 4 / 6 + (1 / 6) ** 2), ((0.0, 0.0), 1 + (0.5 / 5) ** 2)],
    )
    def test_distance_iou_by_hand(self, offsets, expected):
        found = distance_iou_loss(torch.tensor([offsets]), torch.tensor([[2.0, 3.0]]))
        assert float(found) == pytest.approx(expected, abs=1e-6)

    def test_the_normaliser_follows_the_positives_in_training_alone(self):
        model, sample = network(), a_sample(32, (3.0, 9.0, "run"))
        batch = model.collate([sample])
        model.loss(batch, np.random.default_rng(0))
        assert float(model.loss_norm) == CFG.loss_norm
        losses = []
        model.train()
        for _ in range(4):
            before = float(model.loss_norm)
            losses.append(float(model.loss(batch, np.random.default_rng(0))["loss"].detach()) * float(model.loss_norm))
            assert 1 <= float(model.loss_norm) < before
        assert losses[1:] == pytest.approx(losses[:1] * 3, rel=1e-5)  # the same sum, divided by less and less

    def test_smoothing_moves_targets_towards_all_classes_and_background(self):
        logits = torch.full((1, 1, 2), 50.0)  # sure of both classes: without smoothing only the wrong one costs
        rest = (torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), torch.tensor([[[1.0, 0.0]]]))
        hard, soft = (
            float(point_losses(logits, *rest, torch.zeros(1, 1, 2), smoothing)[0]) for smoothing in (0.0, 0.3)
        )
        assert hard == pytest.approx(0.75 * 50)
        targets = (0.7 + 0.1, 0.1)
        weights = [(0.25 * t + 0.75 * (1 - t)) * (1 - t) ** 2 for t in targets]
        assert soft == pytest.approx(sum(w * 50 * (1 - t) for w, t in zip(weights, targets, strict=True)), rel=1e-5)

    def test_a_class_that_the_network_does_not_know(self):
        with pytest.raises(AnnotationError, match=r"v0 has an instance of 'swim', .* 2 classes \(jump, run\)"):
            network().collate([a_sample(8, (1.0, 5.0, "swim"))])
        assert collate([a_sample(8, (1.0, 5.0, "swim"))], None).labels.tolist() == [[0]]


class TestCrop:
    def batch(self) -> PointBatch:
        samples = [a_sample(40, (3.0, 9.0, "run"), (30.0, 38.0, "jump")), a_sample(10, (2.0, 5.0, "run"), seed=1)]
        return network().collate(samples)

    def test_what_is_left_is_where_it_was(self):
        whole = self.batch()
        for seed in range(20):
            part = crop(whole, 24, 0.5, np.random.default_rng(seed))
            lengths = part.mask.sum(1).tolist()
            assert lengths[0] == 24 and 5 <= lengths[1] <= 10
            for row, length in enumerate(lengths):
                starts = [i for i in range(41 - length) if torch.equal(
                    whole.features[row, :, i : i + length], part.features[row, :, :length])]  # fmt: skip
                assert len(starts) == 1 and not part.features[row, :, length:].any()
                for before, after in zip(whole.segments[row], part.segments[row], strict=True):
                    moved = (before - starts[0]).clamp(-0.5, length - 0.5)
                    enough = moved.diff() >= 0.5 * before.diff()
                    torch.testing.assert_close(after, moved * enough)

    def test_evaluation_sees_the_whole_video(self):
        model = network(replace(CFG, num_steps=8, crop=0.1))
        sample = a_sample(40, (30.0, 38.0, "jump"))
        losses = {
            float(model.loss(model.collate([sample]), np.random.default_rng(s))["loss"].detach()) for s in range(3)
        }
        assert len(losses) == 1


class TestDetections:
    def test_a_class_agnostic_network_names_nothing(self):
        model = network(replace(CFG, class_agnostic=True))
        (found,) = model.localize([a_sample(32)])
        assert found.labels is None and len(found) and model.labels == ("action",)

    def test_a_proposal_is_there_once_and_as_likely_as_its_likeliest_class(self):
        model, sample = network(replace(CFG, voting=1.0)), a_sample(32)
        (named,), (found,) = model.localize([sample]), model.propose([sample])
        assert len({tuple(each) for each in named.segments.tolist()}) < len(named)  # a stretch once for every class
        assert found.labels is None and len({tuple(each) for each in found.segments.tolist()}) == len(found) > 20
        assert np.array_equal(found.segments[0], named.segments[0]) and found.scores[0] == named.scores[0]
        (agnostic,) = network(replace(CFG, class_agnostic=True)).propose([sample])
        assert agnostic.labels is None

    def test_scores_fall_and_segments_lie_in_the_video(self):
        model = network(replace(CFG, num_detections=15))
        (found,) = model.localize([a_sample(32)])
        assert len(found) == 15 and (np.diff(found.scores) <= 0).all() and (found.scores >= CFG.min_score).all()
        assert found.segments.min() >= 0 and found.segments.max() <= 32
        assert set(found.labels or ()) <= set(LABELS)

    def test_windows_are_merged_within_their_class(self):
        model, samples = network(), [a_sample(16)] * 2
        twice = model.merge(
            samples, [Detections(np.array([[1.0, 5.0]]), np.array([0.9]), (label,)) for label in LABELS]
        )
        assert twice.labels == LABELS and twice.scores.tolist() == [0.9, 0.9]
        once = model.merge(samples, [Detections(np.array([[1.0, 5.0]]), np.array([0.9]), ("run",))] * 2)
        assert once.scores[1] < 0.2 * once.scores[0]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"window": 4}, "window must be odd"),
        ({"width": 9}, "width 9 must be even"),
        ({"num_heads": 3}, "into 3 heads"),
        ({"crop": 0.0}, "crop is a share above 0"),
        ({"drop_path": 1.0}, "drop_path must be below 1"),
        ({"num_levels": 0}, "num_levels must be at least 1"),
        ({"voting": 1.5}, "voting is a share"),
    ],
)
def test_settings_that_make_no_sense(wrong, text):
    with pytest.raises(ConfigError, match=text):
        replace(CFG, **wrong)


def test_features_of_another_width():
    with pytest.raises(ConfigError, match=r"takes features \(B, 6, T\), found \(1, 5, 9\)"):
        network()(torch.zeros(1, 5, 9), torch.ones(1, 9, dtype=torch.bool))


def test_positions_differ_and_are_bounded():
    made = positions(torch.zeros(1, 50, 8))
    assert len({tuple(row) for row in made.tolist()}) == 50 and float(made.abs().max()) <= 8**-0.5
