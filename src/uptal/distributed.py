"""One process or many: rank, gathering and agreement over torch.distributed; no-ops when there is one process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uptal.errors import UptalError

PATIENCE = 1800.0
"""Seconds that a process waits for the others, the first of which may be looking at transfer or writing features; where
one has died the connection breaks at once, and torchrun ends the rest."""


class ProcessError(UptalError):
    """Another process of the run has ended, or does not answer."""


@dataclass(frozen=True)
class World:
    """Who this process is among those that train together."""

    rank: int
    size: int
    local_rank: int


def announced() -> World:
    """This process's place as torchrun announces it in the environment; joins nothing."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    return World(*(int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True)))


def world(patience: float = PATIENCE) -> World:
    """This process's place; joins the group that torchrun announces in the environment, once, and takes its GPU.

    Args:
        patience: Seconds after which whoever waits for another process gives up.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return World(0, 1, 0)
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        # every kind of tensor gets its own transport: gloo for CPU, NCCL for CUDA
        dist.init_process_group(timeout=timedelta(seconds=patience))
    return World(dist.get_rank(), dist.get_world_size(), local_rank)


def leave() -> None:
    """Leaves the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def company() -> Iterator[None]:
    """Within the block it is told in words when another process dies, which comes up at whatever is sent next.

    Raises:
        ProcessError: Instead of what PyTorch raises.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        if not lost or not dist.is_initialized():
            raise
        raise ProcessError(
            f"Another process of the run has ended or does not answer (this is number {dist.get_rank()} of "
            f"{dist.get_world_size()}; {' '.join(str(error).split())[:200]}). Look for its own message above or in its "
            "log; the same command goes on from the newest checkpoint."
        ) from error


def gather(values: Tensor) -> Tensor:
    """Concatenates a tensor of equal shape from every process along the first axis, in rank order; no gradient."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def differing(value: str) -> list[int]:
    """The processes whose text is another than that of the first one; the same answer on all of them."""
    mine = torch.tensor(list(hashlib.sha256(value.encode()).digest()), dtype=torch.uint8)
    found = gather(mine[None])
    return [rank for rank, one in enumerate(found) if not torch.equal(one, found[0])]


def same_on_all(values: Tensor) -> Tensor:
    """The tensor of the first process, on every process."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast(values, 0)
    return values


def any_process(flag: bool) -> bool:
    """True on every process as soon as it is true on one (to stop all at the same step). No device is waited for."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    value = torch.tensor(int(flag))  # on the CPU, where gloo carries it past whatever the GPUs still have to do
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def average(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over all processes, in one transfer."""
    if not tensors or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


class _SumOverProcesses(torch.autograd.Function):
    """A sum over processes whose gradient is summed over them, too: every process's loss depends on every addend."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class ProcessBatchNorm3d(nn.BatchNorm3d):
    """Batch norm over the batches of all processes, also on CPU tensors, which torch's SyncBatchNorm refuses.

    Same state_dict keys as `nn.BatchNorm3d`. Mean and variance are two transfers: with the sum of squares one would do,
    but it loses the digits of a small variance beside a large mean.
    """

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        axes = (0, 2, 3, 4)
        values = input.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = _SumOverProcesses.apply(torch.cat([values.sum(axes), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        values = values - mean[:, None, None, None]
        variance = _SumOverProcesses.apply(values.square().sum(axes)) / total
        self._follow(mean.detach(), variance.detach() * total / (total - 1))
        values = values * torch.rsqrt(variance + self.eps)[:, None, None, None]
        if self.affine:
            values = values * self.weight[:, None, None, None] + self.bias[:, None, None, None]
        return values.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Batch statistics over all processes "across all layers" (Sec. 4.1.1): torch's on CUDA, ours on the CPU.

    The module must be on its device. Do not combine this with norms that split the batch (`contrast.split_bn`).
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if next(module.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm3d:
            child.__class__ = ProcessBatchNorm3d
    return module
