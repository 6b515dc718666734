"""Pictures made ahead of their step are those that the step would have made, and PyTorch's threads come back."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from memory import equal, films, tensors
from memory import loader as make_loader
from uptal.errors import VideoError
from uptal.pretext.ahead import Ahead
from uptal.pretext.batch import synthesise
from uptal.video import Quarantine, QuarantineError
from workshop import wait_for

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


@pytest.mark.parametrize("counted", [0, 4])
def test_one_pass_follows_the_other_without_a_gap(threads, monkeypatch, counted):
    """The first batch of what comes next is being made when the last one is handed out; as `fit` asks for them."""
    threads(2)
    options = {"data": {"val_videos": counted}}
    passes = [(0, 0), (1, 0), (2, 4), (3, 0)]
    expected = [list(make_loader(**options).batches(*one)) for one in passes]
    validation = list(make_loader(**options).validation_batches())
    loader, started = make_loader(**options), []
    restart = loader._order.restart
    monkeypatch.setattr(loader._order, "restart", lambda begin: started.append(begin) or restart(begin))
    with Ahead(loader, CPU) as ahead:
        for one, batches in zip(passes, expected, strict=True):
            found = []
            for batch in ahead.batches(*one):
                found.append(replace(batch, views=None))
                assert len(found) < len(batches) or (ahead._begun is not None and len(ahead._begun.coming) == 1)
            assert equal(found, batches)
            assert equal(list(ahead.validation_batches()), validation) and len(validation) == counted // 4
    assert started == [(0, 0), (2, 4)]  # the third was not what had been foreseen


def test_what_is_wrong_with_the_next_pass_is_said_when_it_is_asked_for(threads, monkeypatch, tmp_path):
    """Two of the validation videos cannot be read, which nobody has seen before; one would be tolerated."""
    threads(2)
    bad = {f"v{number:02}" for number in make_loader(data={"val_videos": 4}).schedule.validation[:2]}
    source = films()
    probe = source.probe

    def broken(path):
        if path.stem in bad:
            raise VideoError(path, "broken")
        return probe(path)

    monkeypatch.setattr(source, "probe", broken)
    quarantine = Quarantine(total=12, limit=0.01, folder=tmp_path)
    loader = make_loader(source=source, quarantine=quarantine, data={"val_videos": 4})
    with Ahead(loader, CPU) as ahead:
        assert len(list(ahead.batches(0))) == 2
        with pytest.raises(QuarantineError, match="2 of 12 videos"):
            list(ahead.validation_batches())


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


class TestForAGPU:
    """What a CPU can say of it: `pin_memory` and `set_device` are written down, and do nothing."""

    @pytest.fixture
    def calls(self, monkeypatch):
        """(what, argument, thread) of every call."""
        calls = []

        def note(what, argument):
            calls.append((what, argument, threading.get_ident()))
            return argument

        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: note("pin", tensor))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: note("device", device))
        return calls

    def test_batches_are_the_loaders_and_all_their_tensors_are_pinned(self, calls):
        expected = list(make_loader().batches(0))
        with Ahead(make_loader(), torch.device("cuda", 3)) as ahead:
            found = list(ahead.batches(0))
        assert len(found) > 1 and equal(found, expected) and all(batch.views is None for batch in found)
        pinned = {id(argument) for what, argument, _ in calls if what == "pin"}
        assert all(id(tensor) in pinned for batch in found for tensor in tensors(batch))

    @pytest.mark.parametrize("parts", [1, 2])
    def test_a_thread_on_the_right_gpu_pins_those_of_the_next_step_meanwhile(self, calls, parts):
        here = threading.get_ident()
        with Ahead(make_loader(parts=parts), torch.device("cuda", 3)) as ahead:
            first = next(ahead.batches(0))
            wait_for(lambda: sum(what == "pin" for what, *_ in calls) == (1 + parts) * len(tensors(first)))
        assert calls[0][:2] == ("device", torch.device("cuda", 3)) and here not in {thread for *_, thread in calls}

    def test_on_a_cpu_nothing_is_pinned(self, calls, threads):
        threads(2)
        with Ahead(make_loader(), CPU) as ahead:
            assert list(ahead.batches(0)) and not calls


@pytest.mark.parametrize("parts", [1, 4])
def test_workers_are_asked_for_a_whole_step_ahead(parts):
    loader = make_loader(batch=4, parts=parts)
    loader.videos.data = replace(loader.videos.data, workers=2)
    loader._order.parcel = loader._parcel()
    factor = loader._workers().prefetch_factor
    assert factor is not None and factor * 2 * loader._order.parcel == 4 * parts
