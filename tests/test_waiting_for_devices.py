"""A step asks a GPU for nothing on the way: while the host waits for an answer it prepares no further work."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from memory import loader
from uptal.distributed import World
from uptal.learner import Learner
from uptal.pretext.ahead import Ahead
from uptal.pretext.batch import Batch, synthesise
from uptal.pretext.pal import PAL
from uptal.recipes.running import new_task
from workshop import tiny

ALONE = World(0, 1, 0)
NOWHERE = torch.device("meta")
"""A device whose tensors have shapes and no numbers, so that to read one is an error."""


def pal(device: torch.device) -> PAL:
    task = new_task(tiny(), torch.device("cpu"), ALONE)
    assert isinstance(task, PAL)
    return task.to(device)


def batches(resize) -> list[Batch]:
    return [replace(batch, resize=resize) for batch in loader().batches(0)]


@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_nothing_is_read_from_the_batch_to_the_gradients(resize, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *kind, **options: nullcontext())  # does not know that device
    task, batch = pal(NOWHERE), batches(resize)[0].to(NOWHERE)
    values = task.loss(batch)
    values["loss"].backward()
    assert all(parameter.grad is not None for parameter in task.online.parameters())
    task.after_step()
    with pytest.raises(RuntimeError, match="meta"):  # so a reading on the way would have shown
        values["loss"].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_a_gpu_is_waited_for_once_a_step(resize, monkeypatch):
    """PyTorch itself raises at whatever waits but for the one place where loss and norm are looked at."""
    device = torch.device("cuda")
    learner, look = Learner(pal(device), tiny().optim, device), Learner._look

    def looked(*values):
        torch.cuda.set_sync_debug_mode("default")
        try:
            return look(*values)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(Learner, "_look", looked)
    with Ahead(loader(), device) as ahead:
        for number, batch in enumerate(ahead.batches(0), 1):
            learner.step([replace(batch, resize=resize)], 1e-3, number)
            torch.cuda.set_sync_debug_mode("error")  # from the second step on: the first sets things up
    torch.cuda.set_sync_debug_mode("default")
    assert number > 1


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_batches_for_a_gpu_are_pinned(kind, monkeypatch):
    pinned: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone())
    given = batches("exact")
    with Ahead(loader(), torch.device(kind)) as ahead:
        for batch, plain in zip(ahead.batches(0), given, strict=True):
            assert torch.equal(synthesise(batch)[0][0], synthesise(plain)[0][0])
            assert (batch.frames.shape in pinned and len(pinned) >= 10) == (kind == "cuda")
            pinned.clear()
