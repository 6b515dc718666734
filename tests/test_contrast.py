"""The queue is a ring, InfoNCE is the loss of Eq. 7, and the momentum encoder follows without a gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uptal.errors import ConfigError
from uptal.pretext.contrast import ContrastConfig, Queue, info_nce, momentum_update

CFG = ContrastConfig(queue=12)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def queue_of(keys: torch.Tensor, names: torch.Tensor, length: int = 12) -> Queue:
    queue = Queue(length, keys.shape[1])
    queue.push(keys, names)
    return queue


def numbered(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(first, last)
    return numbers[:, None].float(), numbers


def test_a_queue_keeps_the_order_and_overwrites_the_oldest():
    queue = Queue(5, 1)
    queue.push(*numbered(0, 3))
    assert queue.ids.tolist() == [0, 1, 2, -1, -1] and int(queue.filled) == 3
    queue.push(*numbered(3, 6))
    assert queue.ids.tolist() == [5, 1, 2, 3, 4] and int(queue.filled) == 5
    assert queue.keys[:, 0].tolist() == [5, 1, 2, 3, 4]


@given(length=st.integers(1, 9), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_a_queue_holds_the_last_k_keys_whatever_the_batches(length, sizes):
    """K need not be divisible by a batch, and a batch may be larger than K."""
    queue, pushed = Queue(length, 1), 0
    for size in sizes:
        queue.push(*numbered(pushed, pushed + size))
        pushed += size
        kept = list(range(max(0, pushed - length), pushed))
        assert int(queue.filled) == len(kept)
        assert sorted(queue.ids[queue.ids >= 0].tolist()) == kept
        assert queue.keys[queue.ids >= 0, 0].long().tolist() == queue.ids[queue.ids >= 0].tolist()
        newest = int(queue.pointer) - 1
        assert int(queue.ids[newest]) == pushed - 1


def test_a_queue_is_part_of_the_state():
    queue = queue_of(unit(7, 4), torch.arange(7))
    other = Queue(12, 4)
    other.load_state_dict(queue.state_dict())
    other.push(unit(7, 4, seed=1), torch.arange(7, 14))
    queue.push(unit(7, 4, seed=1), torch.arange(7, 14))
    assert all(torch.equal(a, b) for a, b in zip(queue.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_loss_is_equation_7():
    query, key, negatives = unit(3, 8), unit(3, 8, seed=1), unit(12, 8, seed=2)
    found = info_nce(query, key, ids(100, 101, 102), queue_of(negatives, torch.arange(12)), CFG)
    expected = []
    for q, k in zip(query, key, strict=True):
        positive = math.exp(float(q @ k) / 0.07)
        expected.append(-math.log(positive / (positive + sum(math.exp(float(q @ n) / 0.07) for n in negatives))))
    assert float(found.loss) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert float(found.num_negatives) == 12


def test_accuracy_counts_positives_that_beat_every_negative():
    query = torch.eye(4)[:2]
    key = torch.eye(4)[[0, 2]]
    found = info_nce(query, key, ids(8, 9), queue_of(torch.eye(4)[[1, 3]], ids(0, 1)), CFG)
    assert float(found.accuracy) == 0.5  # the first is right, the second lies beside its positive and on a negative


def test_entries_that_were_never_filled_do_not_count():
    query, key, negatives = unit(3, 8), unit(3, 8, seed=1), unit(5, 8, seed=2)
    partly = info_nce(query, key, ids(7, 8, 9), queue_of(negatives, torch.arange(5), length=50), CFG)
    full = info_nce(query, key, ids(7, 8, 9), queue_of(negatives, torch.arange(5), length=5), CFG)
    assert float(partly.loss) == pytest.approx(float(full.loss), rel=1e-6) and float(partly.num_negatives) == 5


def test_an_empty_queue_gives_no_loss_no_gradient_and_no_praise():
    query = unit(3, 8).requires_grad_()
    found = info_nce(query, unit(3, 8, seed=1), ids(0, 1, 2), Queue(12, 8), CFG)
    found.loss.backward()
    assert float(found.loss.detach()) == 0 and float(found.accuracy) == 0 and float(found.num_negatives) == 0
    assert query.grad is not None and not query.grad.any()


def test_a_querys_own_video_is_no_negative_unless_asked_for():
    query, key, negatives = unit(2, 8), unit(2, 8, seed=1), unit(6, 8, seed=2)
    queue = queue_of(negatives, ids(0, 1, 2, 0, 4, 5))
    masked = info_nce(query, key, ids(0, 9), queue, CFG)
    assert float(masked.num_negatives) == 5  # four for video 0, six for video 9
    queue.keys[[0, 3]] = unit(2, 8, seed=3)
    other = info_nce(query[:1], key[:1], ids(0), queue, CFG)
    assert float(other.loss) == pytest.approx(
        float(info_nce(query[:1], key[:1], ids(0), queue_of(negatives[[1, 2, 4, 5]], ids(1, 2, 4, 5)), CFG).loss),
        rel=1e-6,
    )
    assert float(info_nce(query, key, ids(0, 9), queue, replace(CFG, mask_same_video=False)).num_negatives) == 6


def test_negatives_may_come_from_the_batch_or_from_both():
    query, key, negatives = unit(3, 8), unit(3, 8, seed=1), unit(12, 8, seed=2)
    queue = queue_of(negatives, torch.arange(12))
    names = ids(20, 21, 22)
    batch = info_nce(query, key, names, queue, replace(CFG, negatives="batch"))
    expected = F.cross_entropy(query @ key.T / 0.07, torch.arange(3))
    assert float(batch.loss) == pytest.approx(float(expected), rel=1e-5) and float(batch.num_negatives) == 2
    both = info_nce(query, key, names, queue, replace(CFG, negatives="both"))
    scores = torch.cat([query @ key.T, query @ negatives.T], 1) / 0.07
    assert float(both.loss) == pytest.approx(float(F.cross_entropy(scores, torch.arange(3))), rel=1e-5)
    assert float(both.num_negatives) == 14


def test_scores_are_float32_under_autocast():
    query, key, negatives = unit(3, 64), unit(3, 64, seed=1), unit(12, 64, seed=2)
    queue = queue_of(negatives, torch.arange(12))
    plain = info_nce(query, key, ids(20, 21, 22), queue, CFG)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = info_nce(query, key, ids(20, 21, 22), queue, CFG)
    assert torch.equal(plain.loss, mixed.loss)


def test_the_momentum_encoder_moves_by_a_share_and_keeps_its_own_buffers():
    online, target = (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(2))
    before, goal = target[0].weight.clone(), online[0].weight.clone()
    online(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    momentum_update(online, target.requires_grad_(False), 0.9)
    torch.testing.assert_close(target[0].weight, 0.9 * before + 0.1 * goal, atol=1e-7, rtol=0)  # rounding
    assert not target[1].running_mean.any() and online[1].running_mean.any()


@pytest.mark.parametrize(
    "changes", [{"queue": 0}, {"tau": 0.0}, {"momentum": 1.1}, {"split_bn": 0}, {"split_bn": 2, "shuffle_bn": True}]
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError):
        ContrastConfig(**changes)
