"""Negatives that are meant for one query alone: its background's key, the clips around its region, spoilt motion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from batches import Tiny, make_batch
from uptal.clips import RegionConfig, TimelineConfig
from uptal.errors import ConfigError
from uptal.pretext.batch import synthesise
from uptal.pretext.contrast import ContrastConfig, Hard, Queue, info_nce
from uptal.pretext.pal import PAL, HeadConfig, frame_order
from uptal.pretext.synthesis import PasteConfig, Placement
from uptal.recipes.pretrain import moco, paper, with_region

HEAD = HeadConfig(hidden=16, width=8, ft_width=8)


def pal(head: HeadConfig = HEAD, **contrast) -> PAL:
    torch.manual_seed(0)
    return PAL(Tiny(), Tiny.width, head, ContrastConfig(queue=10, momentum=0.9, **contrast))


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_a_hard_negative_counts_for_its_query_only_by_hand():
    query, key, other = unit(3, 2, 6)
    cfg = ContrastConfig(queue=4, tau=0.5)
    there = torch.tensor([True, False])
    found = info_nce(query, key, torch.arange(2), Queue(4, 6), cfg, hard=[Hard(other, there)])
    own, against = (query[0] @ key[0]) / 0.5, (query[0] @ other[0]) / 0.5
    torch.testing.assert_close(found.loss, (torch.stack([own, against]).logsumexp(0) - own) / 2)  # the second's is 0
    assert float(found.num_negatives) == 0.5


def test_the_backgrounds_key_is_a_negative_by_hand():
    batch = make_batch(0)
    task = pal(background=True).eval()
    assert batch.lender is not None
    (clips, place), (other, other_place) = synthesise(batch)
    query, key = task.online(clips, place), task.momentum(other, other_place)
    scores = torch.stack([(query * key).sum(1), (query * key[batch.lender[0]]).sum(1)], 1) / 0.07
    values = task.loss(batch)
    torch.testing.assert_close(values["loss"], F.cross_entropy(scores, torch.zeros(5, dtype=torch.int64)))
    assert float(values["negatives"]) == 1 and float(pal().eval().loss(batch)["negatives"]) == 0


def test_the_other_direction_has_the_other_background():
    batch = make_batch(0)
    assert batch.lender is not None
    both, forth = pal(background=True, symmetric=True).eval().loss(batch), pal(background=True).eval().loss(batch)
    assert not torch.equal(both["loss"], forth["loss"])
    turned = replace(batch, lender=batch.lender.flip(0),
                     **{name: getattr(batch, name).flip(1) for name in ("clips", "region", "start", "length", "blend")},
                     augment=batch.augment.map(lambda value: value.flip(1)),
                     region_clips=batch.region_clips[::-1])  # fmt: skip
    back = pal(background=True).eval().loss(turned)
    torch.testing.assert_close(both["loss"], (forth["loss"] + back["loss"]) / 2)


@pytest.mark.parametrize("order", ["projection_first", "temporal_first"])
def test_what_is_around_a_region_is_pooled_as_a_region_is(order):
    """The clips around one that begins the video are a region that ends it."""
    encoder = pal(replace(HEAD, order=order)).online.eval()
    features, blend = torch.randn(2, 8, Tiny.width), torch.ones(2, 6, 8)
    front = Placement(torch.tensor([0, 0]), torch.tensor([3, 5]), blend)
    rest = Placement(torch.tensor([3, 5]), torch.tensor([5, 3]), blend)
    around = encoder.outside(features, front)
    assert around.there.tolist() == [True, True]
    torch.testing.assert_close(around.keys, encoder.region(features, rest))
    assert not torch.allclose(around.keys, encoder.region(features, front))


def test_a_region_that_covers_everything_has_nothing_around_it():
    timeline = TimelineConfig(clips=3, region=RegionConfig(min_clips=1, max_clips=3))
    batch = make_batch(1, 12, timeline)
    whole = batch.length[:, 0] == 3
    assert whole.any() and not whole.all()
    task = pal(own_outside=True)
    values = task.loss(batch)
    assert float(values["negatives"]) == pytest.approx(float((~whole).float().mean()))
    all_whole = make_batch(1, 5, replace(timeline, region=RegionConfig(min_clips=3, max_clips=3)))
    values = task.loss(all_whole)
    values["loss"].backward()
    assert not values["loss"].detach()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


@pytest.mark.parametrize("paste", [PasteConfig(), PasteConfig(source="none")], ids=["paste", "none"])
def test_training_against_them_drives_a_region_and_what_is_around_it_apart(paste):
    batch, likeness = make_batch(3, paste=paste), {}
    for wanted in (False, True):
        task = pal(replace(HEAD, ft_last_relu=False), own_outside=wanted, negatives="batch")
        optimiser = torch.optim.Adam(task.online.parameters(), lr=0.03)
        for _ in range(50):
            optimiser.zero_grad()
            task.loss(batch)["loss"].backward()
            optimiser.step()
            task._fresh.clear()
        clips, place = synthesise(batch)[0]
        with torch.no_grad():
            features = task.online.clip_features(clips, place)
            likeness[wanted] = float(
                (task.online.region(features, place) * task.online.outside(features, place).keys).sum(1).mean()
            )
    assert likeness[True] < likeness[False] - 0.1


def test_the_gradient_reaches_the_clips_around():
    """With no temporal head the region's loss knows nothing of them, unless they are negatives."""
    batch = make_batch(0)
    clips, place = synthesise(batch)[0]
    for wanted in (False, True):
        task = pal(replace(HEAD, ft_layers=0), own_outside=wanted, negatives="batch").eval()
        features = task.online.clip_features(clips, place).detach().requires_grad_()
        hard = [task.online.outside(features, place)] if wanted else []
        query = task.online.region(features, place)
        info_nce(query, unit(5, 8), batch.ids, task.queue, task.contrast, hard=hard).loss.backward()
        assert features.grad is not None
        slot = torch.arange(8)
        outside = (slot < place.start[:, None]) | (slot >= (place.start + place.length)[:, None])
        assert bool(features.grad[outside].any()) == wanted


def test_the_key_region_with_its_motion_spoilt_is_a_negative_by_hand():
    batch = make_batch(0)
    task = pal(motion=("still", "reversed")).eval()
    (clips, place), (other, other_place) = synthesise(batch)
    query, key = task.online(clips, place), task.momentum(other, other_place)
    still = other[:, :, :, other.shape[3] // 2, None].expand_as(other).contiguous()
    spoilt = [task.momentum(still, other_place), task.momentum(other.flip(3), other_place)]
    scores = torch.stack([(query * one).sum(1) for one in (key, *spoilt)], 1) / 0.07
    values = task.loss(batch)
    torch.testing.assert_close(values["loss"], F.cross_entropy(scores, torch.zeros(5, dtype=torch.int64)))
    assert float(values["negatives"]) == 2


def test_shuffled_frames_are_all_there_in_neither_direction():
    for _ in range(50):
        for frames in (3, 8):
            order = frame_order("shuffled", frames)
            assert sorted(order) == list(range(frames))
            assert order not in (sorted(order), sorted(order)[::-1])


def test_without_them_nothing_is_different():
    batch = make_batch(0)
    plain, hard = pal(), pal(own_outside=True, background=True)
    assert all(torch.equal(v, hard.state_dict()[name]) for name, v in plain.state_dict().items())
    assert float(plain.loss(batch)["negatives"]) == 0 and float(hard.loss(batch)["negatives"]) == 2


def test_what_makes_no_sense_is_refused():
    for negatives in ("batch", "both"):
        with pytest.raises(ConfigError, match=r"contrast\.background"):
            ContrastConfig(background=True, negatives=negatives)
    outside = ContrastConfig(own_outside=True)
    with pytest.raises(ConfigError, match=r"contrast\.own_outside"):
        replace(moco(), contrast=outside)
    with pytest.raises(ConfigError, match=r"contrast\.own_outside"):
        with_region(replace(paper(), contrast=outside), min_clips=8, max_clips=8)
    with pytest.raises(ConfigError, match=r"contrast\.motion"):
        replace(paper(), contrast=ContrastConfig(motion=("still",)),
                data=replace(paper().data, timeline=TimelineConfig(frames=2)))  # fmt: skip
    alone = replace(paper().data, timeline=TimelineConfig(context="none"))
    with pytest.raises(ConfigError, match=r"contrast\.own_outside"):
        replace(paper(), data=alone, contrast=outside, paste=PasteConfig(source="none"))
