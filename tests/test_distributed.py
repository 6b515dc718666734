"""Two processes that share a batch do what one process does with all of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from batches import Tiny, half_of, make_batch, with_lenders_in_halves
from uptal.distributed import World, any_process, average, gather, synchronise_batch_norm, world
from uptal.pretext.batch import synthesise
from uptal.pretext.contrast import ContrastConfig
from uptal.pretext.pal import PAL, HeadConfig

STEPS = 3
HEAD = HeadConfig(hidden=16, width=8, ft_width=8, ft_last_relu=False)
KINDS = {
    "queue": (HEAD, ContrastConfig(queue=10, momentum=0.9)),
    "both": (HEAD, ContrastConfig(queue=10, momentum=0.9, negatives="both")),
    "hard": (
        replace(HEAD, boundary=0.5),
        ContrastConfig(queue=10, momentum=0.9, background=True, own_outside=True, motion=("still", "reversed")),
    ),
}
"""What is trained on one process and on two."""


def test_alone_nothing_is_sent():
    values = torch.arange(3.0)
    average([values])
    assert world() == World(0, 1, 0) and gather(values) is values and values.tolist() == [0, 1, 2]
    assert any_process(True) and not any_process(False)
    norm = nn.BatchNorm3d(2)
    assert type(synchronise_batch_norm(norm)) is nn.BatchNorm3d


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("group")
    torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_tensors_are_gathered_in_the_order_of_the_ranks(results):
    assert [found["gathered"] for found in results] == [[0, 1, 10, 11]] * 2


def test_averages_keep_shapes_and_agree(results):
    assert [found["averaged"] for found in results] == [[[5.0], [5.0, 6.0]]] * 2


def test_one_process_that_stops_stops_all(results):
    assert [found["stops"] for found in results] == [[True, False]] * 2


def test_every_process_knows_its_place(results):
    assert [found["world"] for found in results] == [(0, 2), (1, 2)]


def test_batch_norm_over_processes_is_batch_norm_over_the_whole_batch(results):
    norm, clips = wide_norm()
    out = norm(clips.requires_grad_())
    (out * weights_like(out)).sum().backward()
    for rank, found in enumerate(results):
        part = slice(3 * rank, 3 * rank + 3)
        # float32 sums of 216 values in another order; the mean is a thousand times the deviation
        torch.testing.assert_close(found["out"], out.detach()[part], atol=2e-3, rtol=0)
        torch.testing.assert_close(found["clips"], clips.grad[part], atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(found["mean"], norm.running_mean, atol=1e-4, rtol=1e-6)
        torch.testing.assert_close(found["variance"], norm.running_var, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(results[0]["weight"] + results[1]["weight"], norm.weight.grad, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one(results, kind):
    """Fixed samples, lenders within the halves, statistics and keys over both; 1e-5 is for sums in another order."""
    losses, state = train(kind, [make(step) for step in range(STEPS)])
    for step in range(STEPS):
        shared = (results[0][kind]["losses"][step] + results[1][kind]["losses"][step]) / 2
        assert shared == pytest.approx(losses[step], abs=1e-5)
    for found in results:
        other = found[kind]["state"]
        assert torch.equal(other["queue.ids"], state["queue.ids"])
        for name, value in state.items():
            torch.testing.assert_close(other[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_processes_stay_equal_to_the_last_bit(results):
    for name, value in results[0]["queue"]["state"].items():
        assert torch.equal(value, results[1]["queue"]["state"][name]), name


def test_shuffled_keys_come_back_to_their_samples_from_the_other_process(results):
    """MoCo's shuffling: one order for all, a half of it normalised on each process."""
    task, (clips, place) = shuffling(), synthesise(make(0))[1]
    torch.manual_seed(5)
    order = torch.randperm(6)
    expected = torch.empty(6, task.online.width)
    with torch.no_grad():
        for half in order.chunk(2):
            expected[half] = task.momentum(clips[half], place.reordered(half))
    assert set(order[:3].tolist()) not in ({0, 1, 2}, {3, 4, 5})
    found = torch.cat([result["shuffled"] for result in results])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)  # rounding


def shuffling() -> PAL:
    torch.manual_seed(0)
    return PAL(Tiny(), Tiny.width, HEAD, ContrastConfig(queue=10, shuffle_bn=True))


def make(step: int):
    return with_lenders_in_halves(make_batch(step, 6), np.random.default_rng(step))


def train(kind: str, batches) -> tuple[list[float], dict]:
    torch.manual_seed(0)
    task = PAL(Tiny(), Tiny.width, *KINDS[kind])
    synchronise_batch_norm(task)
    optimiser = torch.optim.SGD(task.online.parameters(), 0.05)
    losses = []
    for batch in batches:
        optimiser.zero_grad()
        loss = task.loss(batch)["loss"]
        loss.backward()
        average([p.grad for p in task.online.parameters()])
        optimiser.step()
        task.after_step()
        losses.append(float(loss.detach()))
    return losses, task.state_dict()


def wide_norm() -> tuple[nn.BatchNorm3d, torch.Tensor]:
    """Values whose mean is large beside their deviation, which a sum of squares in float32 would not survive."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm3d(2)
    nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    return norm, torch.randn(6, 2, 4, 3, 3, generator=generator) + torch.tensor([1000.0, -1000.0])[:, None, None, None]


def weights_like(out: torch.Tensor) -> torch.Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(1))


def work(rank: int, folder: str) -> None:
    """What each process does; its findings are compared by the tests."""
    torch.set_num_threads(1)
    os.environ.update(LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict = {"world": (world().rank, world().size)}
    found["gathered"] = gather(torch.tensor([0, 1]) + 10 * rank).tolist()
    tensors = [torch.tensor([10.0 * rank]), torch.tensor([10.0 * rank, 12.0 * rank])]
    average(tensors)
    found["averaged"] = [tensor.tolist() for tensor in tensors]
    found["stops"] = [any_process(rank == 1), any_process(False)]
    norm, clips = wide_norm()
    weights = weights_like(clips)[3 * rank : 3 * rank + 3]
    synchronise_batch_norm(norm)
    part = clips[3 * rank : 3 * rank + 3].clone().requires_grad_()
    out = norm(part)
    (out * weights).sum().backward()
    found |= {"out": out.detach(), "clips": part.grad, "mean": norm.running_mean, "variance": norm.running_var}
    found["weight"] = norm.weight.grad
    for kind in KINDS:
        losses, state = train(kind, [half_of(make(step), rank) for step in range(STEPS)])
        found[kind] = {"losses": losses, "state": state}
    task, (clips, place) = shuffling(), synthesise(half_of(make(0), rank))[1]
    torch.manual_seed(5 + rank)  # the order is the first process's
    found["shuffled"] = task.key(clips, place)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
