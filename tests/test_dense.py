"""The loss between single clips: which clips show the same, and what it rewards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from batches import SINGLE, Tiny, make_batch
from uptal.errors import ConfigError
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.dense import common, dense_nce, region_clips
from uptal.pretext.pal import PAL, HeadConfig
from uptal.pretext.synthesis import PasteConfig, Placement

HEAD = HeadConfig(hidden=16, width=8, ft_width=8)


def pal(dense: float) -> PAL:
    torch.manual_seed(0)
    return PAL(Tiny(), Tiny.width, HEAD, ContrastConfig(queue=10, momentum=0.9, negatives="both", dense=dense))


def spans(*clips: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(clips)


def test_clips_have_in_common_the_share_of_the_shorter_one():
    one = spans((0, 7), (0, 7), (0, 7), (10, 10), (0, 28))
    two = spans((0, 7), (4, 11), (8, 15), (10, 10), (14, 21))
    assert common(one, two).tolist() == [1.0, 0.5, 0.0, 1.0, 1.0]


def test_the_regions_clips_come_out_in_their_order_wherever_they_were_pasted():
    features = torch.arange(8.0)[None, :, None].expand(2, 8, 3)
    place = Placement(torch.tensor([0, 5]), torch.tensor([2, 3]), torch.ones(2, 6, 4))
    found = region_clips(features, place, 6)[..., 0]
    assert found[0, :2].tolist() == [0, 1]
    assert found[1, :3].tolist() == [5, 6, 7]


def test_the_loss_is_infonce_over_the_clips_of_all_keys_by_hand():
    """Two videos of two clips; the second clip of the first video's query has half a clip in common with each key."""
    unit = F.normalize(torch.randn(2, 2, 2, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    query, key = unit[:, 0], unit[:, 1]
    first = torch.stack([spans((0, 7), (20, 27)), spans((0, 7), (8, 15))])
    second = torch.stack([spans((0, 7), (8, 15)), spans((2, 9), (6, 13))])
    tau = 0.5
    scores = torch.einsum("brd,msd->brms", query, key) / tau
    a, b = scores[0, 0], scores[1]
    expected = [
        a.logsumexp((0, 1)) - a[0, 0],  # (0, 0): the key's first clip is the same, all others are negatives
        torch.cat([b[0, 0], b[0, 1, :1]]).logsumexp(0) - b[0, 1, 0],  # (1, 0): 2 of 8 frames in common are left out
        b[1].logsumexp((0, 1)).neg() * 0 + torch.cat([b[1, 0], b[1, 1, 1:]]).logsumexp(0) - b[1, 1, 1],
    ]
    found = dense_nce(query, key, torch.stack([first, second], 1), torch.full((2, 2), 2), torch.tensor([4, 9]), tau)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def test_clips_beyond_a_regions_length_are_neither_asked_nor_answers():
    generator = torch.Generator().manual_seed(1)
    query, key = F.normalize(torch.randn(2, 3, 4, 6, generator=generator), dim=-1)
    where = torch.tensor([[0, 7], [8, 15], [16, 23], [24, 31]]).expand(3, 2, 4, 2)
    length, ids = torch.tensor([[2, 3], [4, 1], [1, 4]]), torch.arange(3)
    before = dense_nce(query, key, where, length, ids, 0.1)
    for sample in range(3):
        query[sample, length[sample, 0] :] = 7.0
        key[sample, length[sample, 1] :] = -7.0
    assert torch.equal(dense_nce(query, key, where, length, ids, 0.1), before)


def test_regions_without_a_common_moment_give_nothing():
    unit = F.normalize(torch.randn(1, 2, 4), dim=-1).requires_grad_()
    apart = torch.tensor([[[[0, 7], [8, 15]], [[40, 47], [48, 55]]]])
    loss = dense_nce(unit, unit.detach(), apart, torch.full((1, 2), 2), torch.zeros(1, dtype=torch.int64), 0.1)
    loss.backward()
    assert loss == 0
    assert unit.grad is not None
    assert not unit.grad.any()


@pytest.mark.parametrize("paste", [PasteConfig(), PasteConfig(source="none")], ids=["paste", "none"])
def test_training_on_one_batch_finds_the_moments(paste):
    batch = make_batch(3, paste=paste)
    task = pal(1.0)
    optimiser = torch.optim.Adam(task.online.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        losses.append(float(task.loss(batch)["dense"].detach()))
        optimiser.zero_grad()
        task.loss(batch)["loss"].backward()
        optimiser.step()
        task._fresh.clear()
    assert losses[-1] < losses[0] - 0.5


def test_without_weight_nothing_is_different():
    """Weights, the region's loss and the gradients of everything but the new head are those of before."""
    batch, plain, dense = make_batch(0), pal(0.0), pal(1.0)
    with_head = dense.state_dict()
    assert all(torch.equal(value, with_head[name]) for name, value in plain.state_dict().items())
    one, two = plain.loss(batch), dense.loss(batch)
    assert torch.equal(one["loss"], two["loss"] - two["dense"]) or torch.allclose(
        one["loss"], two["loss"] - two["dense"], atol=1e-6
    )
    assert "dense" not in one


def test_what_does_not_go_together_is_refused():
    for changes in ({"dense": -1.0}, {"dense": 1.0, "split_bn": 2}, {"dense": 1.0, "symmetric": True}):
        with pytest.raises(ConfigError, match=r"contrast\.dense"):
            replace(ContrastConfig(), **changes)


def test_single_clips_have_a_single_moment():
    task, batch = pal(1.0), make_batch(0, timeline=SINGLE, paste=PasteConfig(source="none"))
    assert torch.isfinite(task.loss(batch)["loss"])
