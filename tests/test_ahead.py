"""Pictures made ahead of their step are those that the step would have made, and PyTorch's threads come back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from memory import loader as make_loader
from uptal.pretext.ahead import Ahead
from uptal.pretext.batch import synthesise

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Sets PyTorch's number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("position", [0, 4])
def test_the_same_batches_come_with_their_pictures(threads, position):
    threads(2)
    loader = make_loader()
    expected = [(batch, synthesise(batch)) for batch in loader.batches(1, position)]
    with Ahead(loader, CPU) as ahead:
        found = list(ahead.batches(1, position))
    assert [batch.position for batch in found] == [batch.position for batch, _ in expected] and len(found) > 1
    for batch, (plain, views) in zip(found, expected, strict=True):
        assert batch.names == plain.names and batch.views is not None and plain.views is None
        for (clips, place), (others, other) in zip(synthesise(batch), views, strict=True):
            assert torch.equal(clips, others) and torch.equal(place.start, other.start)
        assert synthesise(batch) is batch.views and torch.equal(
            synthesise(replace(batch, views=None))[0][0], views[0][0]
        )


@pytest.mark.parametrize(("total", "training"), [(2, 1), (4, 3), (9, 6)])
def test_threads_are_divided_and_come_back(threads, total, training):
    threads(total)
    with pytest.raises(KeyError), Ahead(make_loader(), CPU) as ahead:
        next(ahead.batches(0))
        assert torch.get_num_threads() == training
        raise KeyError
    assert torch.get_num_threads() == total


def test_one_thread_makes_nothing_ahead(threads):
    threads(1)
    with Ahead(make_loader(), CPU) as ahead:
        assert all(batch.views is None for batch in ahead.batches(0)) and not ahead.at_once
        assert torch.get_num_threads() == 1
