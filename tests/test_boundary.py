"""The auxiliary task: which clips begin a region, end it, are in it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from batches import Tiny, make_batch
from uptal.clips import RegionConfig, TimelineConfig
from uptal.errors import ConfigError
from uptal.pretext.boundary import boundary_labels, boundary_loss
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.pal import PAL, HeadConfig
from uptal.pretext.synthesis import Placement
from uptal.recipes.pretrain import moco, paper

HEAD = HeadConfig(hidden=16, width=8, ft_width=8)


def pal(boundary: float, **contrast) -> PAL:
    torch.manual_seed(0)
    cfg = ContrastConfig(queue=10, momentum=0.9, negatives="both", **contrast)
    return PAL(Tiny(), Tiny.width, replace(HEAD, boundary=boundary), cfg)


def place(start: list[int], length: list[int]) -> Placement:
    return Placement(torch.tensor(start), torch.tensor(length), torch.ones(len(start), 6, 4))


def test_labels_by_hand():
    labels = boundary_labels(place([2, 0, 5, 0], [3, 2, 3, 8]), 8).tolist()
    assert labels[0] == [[0, 0.5, 1, 0.5, 0, 0, 0, 0], [0, 0, 0, 0.5, 1, 0.5, 0, 0], [0, 0, 1, 1, 1, 0, 0, 0]]
    assert labels[1] == [[0] * 8, [0.5, 1, 0.5, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]  # begins with the video
    assert labels[2] == [[0, 0, 0, 0, 0.5, 1, 0.5, 0], [0] * 8, [0, 0, 0, 0, 0, 1, 1, 1]]  # ends with it
    assert labels[3] == [[0] * 8, [0] * 8, [1] * 8]  # all of it


def test_yes_and_no_weigh_the_same():
    """Scores that say nothing cost ln 2, and no constant is cheaper, however rare a start is."""
    where = place([2, 1, 4], [2, 2, 2])
    for constant in (-3.0, -0.5, 0.0, 0.5, 3.0):
        loss = float(boundary_loss(torch.full((3, 3, 8), constant), where))
        assert loss == pytest.approx(math.log(2)) if constant == 0 else loss > math.log(2) + 0.01
    right = boundary_labels(where, 8)
    assert float(boundary_loss((right - 0.5) * 40, where)) < 0.45  # what is left is the uncertainty of the soft labels
    assert float(boundary_loss(-(right - 0.5) * 40, where)) > 10


def test_regions_that_cover_everything_give_a_finite_loss():
    scores = torch.zeros(2, 3, 4, requires_grad=True)
    loss = boundary_loss(scores, place([0, 0], [4, 4]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2) / 2)  # of each question only the one answer that occurs
    assert scores.grad is not None and torch.isfinite(scores.grad).all()
    assert (scores.grad[:, :2] > 0).all() and (scores.grad[:, 2] < 0).all()


def test_samples_that_do_not_count_add_nothing():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 3, 8, generator=generator, requires_grad=True)
    where = place([2, 0, 4], [3, 2, 2])
    loss = boundary_loss(scores, where, torch.tensor([True, False, True]))
    loss.backward()
    assert scores.grad is not None and not scores.grad[1].any() and scores.grad[[0, 2]].abs().sum(2).all()
    alone = boundary_loss(scores.detach()[[0, 2]], place([2, 4], [3, 2]))
    torch.testing.assert_close(loss.detach(), alone)
    assert float(boundary_loss(scores.detach(), where, torch.zeros(3, dtype=torch.bool))) == 0


def test_training_finds_the_region_and_teaches_the_encoder():
    batch, task = make_batch(3, 6), pal(1.0)
    optimiser = torch.optim.Adam(task.online.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        values = task.loss(batch)
        losses.append(float(values["boundary"].detach()))
        optimiser.zero_grad()
        values["boundary"].backward()
        for name, parameter in task.online.named_parameters():
            touched = parameter.grad is not None and bool(parameter.grad.any())
            assert touched == name.startswith(("backbone", "boundary")), name
        optimiser.step()
        task._fresh.clear()
    assert losses[0] > 0.6 and losses[-1] < losses[0] - 0.15
    assert all(parameter.grad is None for parameter in task.momentum.parameters())


def test_the_weight_is_the_terms_share_and_it_is_dropped_with_the_heads():
    batch = make_batch(0)
    plain, weighted = pal(0.0), pal(0.25)
    kept = weighted.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in plain.state_dict().items())
    one, two = plain.loss(batch), weighted.loss(batch)
    torch.testing.assert_close(two["loss"], one["loss"] + 0.25 * two["boundary"])
    assert "boundary" not in one
    assert weighted.encoder().state_dict().keys() == plain.encoder().state_dict().keys()


def test_both_directions_ask_for_the_boundaries_of_their_query():
    batch = make_batch(0)
    both, forth = pal(1.0, symmetric=True).eval().loss(batch), pal(1.0).eval().loss(batch)
    assert float(both["boundary"].detach()) != float(forth["boundary"].detach())
    assert torch.isfinite(both["loss"])


def test_looped_videos_may_be_left_out():
    batch = replace(make_batch(0), looped=torch.ones(5, dtype=torch.bool))
    assert float(pal(1.0, skip_looped=True).loss(batch)["loss"].detach()) == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"head\.boundary"):
        HeadConfig(boundary=-1.0)
    head = replace(paper().head, boundary=1.0)
    with pytest.raises(ConfigError, match=r"head\.boundary"):
        replace(moco(), head=head)
    timeline = TimelineConfig(clips=4, region=RegionConfig(min_clips=4, max_clips=4))
    with pytest.raises(ConfigError, match=r"head\.boundary"):
        replace(paper(), head=head, data=replace(paper().data, timeline=timeline))
    assert replace(paper(), head=head).head.boundary == 1.0
