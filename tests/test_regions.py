"""Several regions a video: what they share, whom they meet, and what a query is told from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from batches import Tiny
from memory import TIMELINE, equal, films, loader, numbers, videos
from uptal.errors import ConfigError
from uptal.evidence.methods import CLIPS, method, methods
from uptal.pretext.batch import synthesise
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.pal import PAL, HeadConfig
from uptal.pretext.synthesis import PasteConfig
from uptal.recipes.pretrain import paper

THREE = replace(TIMELINE, regions=3)
HEAD = HeadConfig(hidden=16, width=8, ft_width=8)


def pal(**contrast) -> PAL:
    torch.manual_seed(0)
    return PAL(Tiny(), Tiny.width, HEAD, ContrastConfig(queue=50, momentum=0.9, **contrast))


def test_the_first_region_is_that_of_one_region_a_video():
    one, three = (next(loader(timeline).batches(2)) for timeline in (TIMELINE, THREE))
    assert three.names == one.names and three.position == one.position == 4
    assert torch.equal(three.frames[three.clips[:4]], one.frames[one.clips])
    assert torch.equal(three.frames[three.region[:4]], one.frames[one.region])
    for name in ("start", "length", "span", "blend", "ids", "looped"):
        assert torch.equal(getattr(three, name)[:4], getattr(one, name)), name
    assert one.lender is not None and three.lender is not None
    assert torch.equal(three.lender[:, :4], one.lender)


def test_regions_have_draws_of_their_own_from_one_pass_over_the_video():
    source = films()
    batches = list(loader(THREE, source=source).batches(0))
    assert source.reads == 12 and len(batches) == 3
    for batch in batches:
        assert batch.ids.tolist() == 3 * batch.ids[:4].tolist()
        assert torch.equal(videos(batch.frames[batch.region]), batch.ids[:, None, None, None].expand_as(batch.region))
        for table in (batch.region, batch.clips, batch.augment.box, batch.augment.colour):
            first, second, third = table.split(4)
            assert (first != second).any() and (second != third).any() and (first != third).any()
        used = torch.cat([batch.clips.flatten(), batch.region.flatten()]).unique()
        assert torch.equal(used, torch.arange(len(batch.frames)))  # each distinct frame once


def test_no_region_is_pasted_onto_its_own_video_nor_twice_onto_one():
    source = loader(THREE, batch=3)
    seen = set()
    for epoch in range(12):
        for batch in source.batches(epoch):
            assert batch.lender is not None
            behind = batch.ids[batch.lender]
            assert (behind != batch.ids).all() and (behind[0] != behind[1]).all()
            assert torch.equal(batch.lender // 3, torch.arange(9).expand(2, -1) // 3)  # clips of the same turn
            assert batch.lender.sort(1).values.tolist() == [list(range(9))] * 2  # everybody lends as often
            seen |= {tuple((batch.lender[0, turn * 3 : turn * 3 + 3] - turn * 3).tolist()) for turn in range(3)}
    assert len(seen) == 2  # both derangements of three come up


def test_groups_are_kept_apart_in_every_turn():
    source = loader(THREE, batch=6, data={"group_pattern": r"v\d(\d)"})
    for batch in [one for epoch in range(10) for one in source.batches(epoch)]:
        assert batch.lender is not None
        assert (batch.ids[batch.lender] % 10 != batch.ids % 10).all()


def test_an_epoch_goes_on_from_any_position():
    whole = list(loader(THREE).batches(1))
    assert equal(list(loader(THREE).batches(1, position=4)), whole[1:])
    assert equal(list(loader(THREE).batches(1)), whole)
    assert not equal(list(loader(THREE, seed=1).batches(1)), whole)


def test_labels_go_with_every_region():
    labels = {f"v{number:02d}": number % 5 for number in range(12)}
    single = replace(THREE, views=1)
    batch = next(loader(single, PasteConfig(source="none"), labels=labels).batches(0))
    assert batch.labels is not None
    assert torch.equal(batch.labels, batch.ids % 5)


def test_keys_of_the_same_video_are_no_negatives():
    batch = next(loader(THREE).batches(0))
    for _ in range(2):
        task = pal(negatives="both")
        assert float(task.loss(batch)["negatives"]) == 9  # three other videos, three regions each
        task.after_step()
        assert int(task.queue.filled) == 12
        assert float(task.loss(batch)["negatives"]) == 9 + 9  # and the same once more from the queue


def test_all_regions_of_a_video_may_be_positives():
    batch = next(loader(THREE).batches(0))
    task = pal(negatives="batch", positives="all").eval()
    found = task.loss(batch)["loss"]
    (clips, place), (other, other_place) = synthesise(batch)
    query, key = task.online(clips, place), task.momentum(other, other_place)
    scores, expected = query @ key.T / 0.07, []
    for one in range(12):
        negatives = scores[one][batch.ids != batch.ids[one]]
        for positive in scores[one][batch.ids == batch.ids[one]]:
            expected.append(torch.cat([positive[None], negatives]).logsumexp(0) - positive)
    assert len(expected) == 12 * 3
    torch.testing.assert_close(found, torch.stack(expected).mean())
    alone = pal(negatives="batch").eval().loss(batch)["loss"]
    own = [F.cross_entropy(torch.cat([scores[i, i][None], scores[i][batch.ids != batch.ids[i]]]), torch.tensor(0))
           for i in range(12)]  # fmt: skip
    torch.testing.assert_close(alone, torch.stack(own).mean())
    assert abs(float((alone - found).detach())) > 1e-3


@pytest.mark.parametrize("source", ["diff", "same", "none", "own", "frozen"])
def test_every_way_of_pasting_takes_several_regions(source):
    batch = next(loader(THREE, PasteConfig(source=source)).batches(0))
    task = pal(negatives="both", dense=1.0)
    values = task.loss(batch)
    values["loss"].backward()
    assert all(torch.isfinite(value).all() for value in values.values())
    for name, parameter in task.online.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_equal_clips_are_fewer_videos():
    known = methods(32)
    one, two = known["pal"], method("pal", known, {"data.timeline.regions": 2})
    assert two.config is not None
    assert two.steps_for(8000) * 2 == one.steps_for(8000) == 250
    assert two.clips_of(4000) == one.clips_of(8000) == 8000 * CLIPS
    assert two.pairs_of(4000) == one.pairs_of(8000) == 8000 and known["moco"].pairs_of(8000) == 8000


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="regions of at least 1"):
        replace(TIMELINE, regions=0)
    with pytest.raises(ConfigError, match=r"data\.timeline\.regions is 1"):
        replace(paper(), contrast=ContrastConfig(positives="all"))
    with pytest.raises(ConfigError, match="mask_same_video"):
        ContrastConfig(positives="all", mask_same_video=False)


def test_frames_of_a_region_are_back_to_back():
    batch = next(loader(THREE).batches(0))
    for region, length in zip(batch.region.flatten(0, 1), batch.length.flatten(), strict=True):
        steps = numbers(batch.frames[region[: int(length)]]).flatten().diff()
        assert steps.unique().numel() == 1 and 1 <= int(steps[0]) <= 4
