"""Backgrounds of the region's own video, and pasting that begins by and by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from batches import Tiny, make_batch
from memory import TIMELINE, equal, films, loader, numbers, videos
from uptal.augment import AugmentConfig
from uptal.clips import BackgroundConfig, RegionConfig, TimelineConfig, draw_timeline
from uptal.distributed import World
from uptal.errors import ConfigError
from uptal.optim import OptimConfig
from uptal.pretext.batch import Batch, synthesise
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.data import VALIDATION
from uptal.pretext.pal import PAL, HeadConfig, background_key
from uptal.pretext.synthesis import PasteConfig
from uptal.pretext.within import elsewhere, frozen
from uptal.recipes.pretrain import paper
from uptal.run import RunFolder
from uptal.train import fit

OWN, FROZEN = PasteConfig(source="own"), PasteConfig(source="frozen")
HEAD = HeadConfig(hidden=16, width=8, ft_width=8)
PLAIN = AugmentConfig(size=14, area=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, blur=0.0)
"""Nothing is done to the pictures."""
NEVER = PasteConfig(ramp=1e12)
"""Hardly anything is pasted."""


def batches(paste: PasteConfig, epoch: int = 0, **options) -> list[Batch]:
    return list(loader(paste=paste, **options).batches(epoch))


# Another time of the same video


@pytest.mark.parametrize("paste", [OWN, FROZEN], ids=["own", "frozen"])
def test_backgrounds_are_of_the_regions_own_video(paste):
    for batch in batches(paste):
        assert batch.lender is not None
        assert batch.lender.tolist() == [[0, 1, 2, 3]] * 2
        for table in (batch.clips, batch.region):
            assert torch.equal(videos(batch.frames[table]), batch.ids[:, None, None, None].expand_as(table))


def test_what_is_pasted_covers_another_time():
    for batch in batches(OWN) + batches(OWN, epoch=1):
        for sample in range(4):
            for view in range(2):
                begin, length = int(batch.start[sample, view]), int(batch.length[sample, view])
                covered = numbers(batch.frames[batch.clips[sample, view, begin : begin + length]])
                pasted = numbers(batch.frames[batch.region[sample, view, :length]])
                for behind, front in zip(covered, pasted, strict=True):
                    assert behind.min() > front.max() or behind.max() < front.min()


def test_every_slot_of_another_time_is_as_likely():
    """Eight clips of a hundred frames; a region at frames 20 to 59 must not begin where it would cover itself."""
    rng = np.random.default_rng(0)
    line = draw_timeline(rng, 800, TimelineConfig(region=RegionConfig(min_clips=2, max_clips=2)), paste=True)
    clips = np.broadcast_to(np.arange(8)[:, None] * 100 + np.arange(8), (2, 8, 8))
    region = np.broadcast_to(np.array([[100], [120]]) + np.arange(8), (2, 2, 8))  # the first clip is that of slot 1
    line = replace(line, clips=clips, region=region, length=np.array([2, 2]))
    starts = np.stack([elsewhere(rng, line).start for _ in range(3000)])
    share = np.bincount(starts.ravel(), minlength=8) / starts.size
    assert share[1] == 0 and share[7] == 0  # over itself; too late for two clips
    assert abs(share[[0, 2, 3, 4, 5, 6]] - 1 / 6).max() < 0.03
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.06  # views are drawn apart


def test_a_video_too_short_for_another_time_is_used_all_the_same():
    for batch in batches(OWN, source=films(4, frames=5)):
        assert int(batch.start.min()) >= 0 and int((batch.start + batch.length).max()) <= TIMELINE.clips


def test_a_region_keeps_its_own_frames_and_only_its_place_changes():
    rng = np.random.default_rng(0)
    line = draw_timeline(rng, 200, TIMELINE, paste=True)
    moved = elsewhere(rng, line)
    assert all(getattr(moved, name) is getattr(line, name) for name in ("clips", "region", "length", "stride"))


# Held still


def test_a_frozen_background_is_one_frame_for_each_view():
    same = []
    for batch in [one for epoch in range(4) for one in batches(FROZEN, epoch)]:
        shown = numbers(batch.frames[batch.clips]).flatten(2)
        assert (shown == shown[..., :1]).all()
        same.append(shown[:, 0, 0] == shown[:, 1, 0])
    assert torch.cat(same).float().mean() < 0.2
    shared = replace(TIMELINE, background=BackgroundConfig(share=True))
    for batch in batches(FROZEN, timeline=shared):
        shown = numbers(batch.frames[batch.clips]).flatten(2)
        assert torch.equal(shown[:, 0], shown[:, 1])


def test_every_frame_is_as_likely_to_be_held():
    rng = np.random.default_rng(0)
    line = draw_timeline(rng, 10, TIMELINE, paste=True)
    held = np.stack([frozen(rng, line, 10, share=False).clips[:, 0, 0] for _ in range(3000)])
    assert abs(np.bincount(held.ravel(), minlength=10) / held.size - 0.1).max() < 0.02
    assert abs(np.corrcoef(held.T)[0, 1]) < 0.06


def test_nothing_moves_around_a_region_on_a_frozen_frame():
    for batch in batches(FROZEN):
        for pictures, place in synthesise(batch):
            still = (pictures - pictures[:, :, :, :1]).abs().amax((2, 3, 4, 5)) < 1e-6
            slot = torch.arange(TIMELINE.clips)
            inside = (slot >= place.start[:, None]) & (slot < (place.start + place.length)[:, None])
            assert torch.equal(still, ~inside)


@pytest.mark.parametrize("paste", [OWN, FROZEN], ids=["own", "frozen"])
def test_one_video_is_enough_for_a_batch(paste):
    assert len(batches(paste, batch=1)) == 12
    with pytest.raises(ConfigError, match="context"):
        batches(paste, timeline=replace(TIMELINE, context="none"))


@pytest.mark.parametrize("paste", [OWN, FROZEN, PasteConfig(ramp=3.0)], ids=["own", "frozen", "ramp"])
def test_samples_are_pure_and_an_epoch_goes_on_from_any_position(paste):
    whole = batches(paste, epoch=1)
    assert equal(whole, batches(paste, epoch=1))
    assert equal(list(loader(paste=paste).batches(1, position=4)), whole[1:])
    assert not equal(whole, batches(paste, epoch=2))


# Pasting that begins by and by


def test_the_share_of_pasted_regions_grows_and_stays():
    source = loader(paste=PasteConfig(ramp=4.0), timeline=replace(TIMELINE, regions=30)).videos
    shares = [np.mean([plan.pasted for index in range(12) for plan in source.draw(epoch, index).plans])
              for epoch in (0, 1, 3, 4, 9, VALIDATION)]  # fmt: skip
    assert np.abs(np.array(shares[:3]) - [1 / 8, 3 / 8, 7 / 8]).max() < 0.08  # 360 draws each
    assert shares[3:] == [1.0, 1.0, 1.0]


def test_without_a_ramp_everything_is_as_before():
    plain, ramped = batches(PasteConfig()), batches(PasteConfig(ramp=0.5))
    assert [PasteConfig(ramp=0.5).probability(0), PasteConfig().probability(0)] == [1.0, 1.0]
    assert not equal(plain, ramped)  # the draw itself costs a number
    assert all((batch.lender != torch.arange(4)).all() for batch in ramped if batch.lender is not None)


@pytest.mark.parametrize("scope", ["per_source", "composite"])
def test_a_region_that_is_not_pasted_is_part_of_its_video(scope):
    """The pictures are those of the video with the region's clips in their places, all by one draw."""
    timeline = replace(TIMELINE, region=RegionConfig(max_clips=3, stride_scope="clip"))
    for batch in batches(NEVER, timeline=timeline, aug=replace(PLAIN, scope=scope, area=(0.3, 1.0), jitter=0.8)):
        assert batch.lender is not None and batch.lender.tolist() == [[0, 1, 2, 3]] * 2
        clips = batch.clips.clone()
        for sample in range(4):
            for view in range(2):
                begin, length = int(batch.start[sample, view]), int(batch.length[sample, view])
                region = batch.region[sample, view, :length]
                before = numbers(batch.frames[clips[sample, view, begin : begin + length, 0]])
                assert torch.equal(numbers(batch.frames[region[:, 0]]), before)  # where it was, at its own speed
                clips[sample, view, begin : begin + length] = region
        whole = replace(batch, clips=clips, lender=None)
        for (found, _), (expected, _) in zip(synthesise(batch), synthesise(whole), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_region_that_is_not_pasted_still_lends_its_video_as_it_was():
    """Every clip at the background's stride, also where its region plays faster."""
    faster = replace(TIMELINE, region=RegionConfig(max_clips=3, min_stride=3, max_stride=4))
    for batch in batches(PasteConfig(ramp=1.0), timeline=faster):
        assert (numbers(batch.frames[batch.clips]).diff(dim=-1) == 1).all()
        assert batch.lender is not None
        home = batch.lender == torch.arange(4)
        assert torch.equal(home[0], home[1])


def test_a_region_at_home_has_no_background_to_be_told_from():
    batch = make_batch(0)
    assert batch.lender is not None
    lender = batch.lender.clone()
    lender[:, 1] = 1
    hard = background_key(replace(batch, lender=lender), torch.eye(5), 0)
    assert hard.there.tolist() == [True, False, True, True, True]
    assert torch.equal(hard.keys, torch.eye(5)[lender[0]])


def test_a_killed_run_gives_the_same_weights(tmp_path: Path):
    """Three regions, pasting that begins in the midst of it, and all further terms: once in one go, once in two."""
    timeline = replace(TIMELINE, regions=3)
    cfg = OptimConfig(batch=4, epochs=4, schedule="constant", warmup_epochs=0.0, precision="fp32", checkpoint_every=100)

    def run(name: str, *stops: int) -> dict[str, torch.Tensor]:
        for stop in stops:
            torch.manual_seed(0)
            contrast = ContrastConfig(queue=40, momentum=0.9, background=True, own_outside=True, positives="all")
            task = PAL(Tiny(), Tiny.width, replace(HEAD, boundary=0.5), contrast)
            source = loader(timeline, PasteConfig(ramp=3.0))
            fit(task, source, replace(cfg, max_steps=stop), RunFolder(tmp_path / name), device=torch.device("cpu"),
                world=World(0, 1, 0))  # fmt: skip
        return task.state_dict()

    once, twice = run("once", 8), run("twice", 4, 8)
    assert all(torch.equal(value, twice[name]) for name, value in once.items())


def test_what_makes_no_sense_is_refused():
    for paste in (OWN, FROZEN, PasteConfig(source="none")):
        with pytest.raises(ConfigError, match=r"contrast\.background"):
            replace(paper(), paste=paste, contrast=ContrastConfig(background=True))
    with pytest.raises(ConfigError, match=r"paste\.ramp"):
        replace(paper(), paste=PasteConfig(source="none", ramp=3.0))
    with pytest.raises(ConfigError, match=r"paste\.ramp"):
        PasteConfig(ramp=-1.0)
