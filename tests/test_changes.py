"""`contrast.changes`: one view of a pair as its changes from frame to frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from batches import Tiny, make_batch
from uptal.cli import main
from uptal.pretext.batch import synthesise
from uptal.pretext.changes import as_changes, draw_changes
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.pal import PAL, HeadConfig


def pal(**contrast) -> PAL:
    torch.manual_seed(0)
    return PAL(Tiny(), Tiny.width, HeadConfig(hidden=16, width=8, ft_width=8), ContrastConfig(queue=10, **contrast))


def test_what_looks_alike_is_gone_and_what_moves_is_left():
    clips = torch.rand(2, 3, 3, 4, 5, 5)
    moved = clips.mean(2).diff(dim=2)
    found = as_changes(clips, torch.tensor([True, False]))
    assert found.shape == clips.shape and torch.equal(found[1], clips[1])
    for colour in range(3):
        torch.testing.assert_close(found[0, :, colour], 4 * torch.cat([moved, moved[:, :, -1:]], 2)[0])
    brighter = clips + torch.rand(2, 1, 3, 1, 5, 5)  # the same in every frame: another scene
    both = torch.tensor([True, True])
    torch.testing.assert_close(as_changes(brighter, both), as_changes(clips, both))
    assert not as_changes(clips[:, :, :, :1].expand_as(clips), both).any()


def test_of_a_share_of_the_pairs_one_view_is_drawn_and_in_evaluation_nothing_is():
    torch.manual_seed(0)
    first, second = draw_changes(0.6, 20_000, training=True)
    assert not (first & second).any()
    assert float(first.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(second.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert draw_changes(1.0, 500, training=True).any(0).all()
    state = torch.get_rng_state()
    assert draw_changes(0.5, 4, training=False).tolist() == [[False] * 4, [True, True, False, False]]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_loss_is_that_of_the_views_as_they_are_shown_by_hand():
    batch, task = make_batch(0), pal(changes=1.0, motion=("reversed",)).eval()
    (clips, place), (other, other_place) = synthesise(batch)
    every = torch.ones(len(batch.ids), dtype=torch.bool)
    query, key = task.online(clips, place), task.momentum(as_changes(other, every), other_place)
    spoilt = task.momentum(as_changes(other.flip(3), every), other_place)
    scores = torch.stack([(query * key).sum(1), (query * spoilt).sum(1)], 1) / 0.07
    torch.testing.assert_close(task.loss(batch)["loss"], F.cross_entropy(scores, torch.zeros(5, dtype=torch.int64)))


def test_without_it_nothing_is_drawn_or_different():
    before, after, other = (
        pal(negatives="batch", **contrast).train().loss(make_batch(0))["loss"]
        for contrast in ({}, {"changes": 0.0}, {"changes": 1.0})
    )
    assert torch.equal(before, after) and not torch.equal(before, other)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--contrast.changes", "1.5"], "a share from 0 to 1, found 1.5"),
        (["--contrast.changes", "0.5", "--data.timeline.frames", "1"], "data.timeline.frames is 1"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, option, said):
    code = main(["pretrain", "demo", "--videos", str(tmp_path), "--run", str(tmp_path / "run"), *option])
    assert code != 0 and said in " ".join(capsys.readouterr().err.split())
