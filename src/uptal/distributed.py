"""One process or many: rank, gathering and agreement over torch.distributed; no-ops when there is one process."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """Who this process is among those that train together."""

    rank: int
    size: int
    local_rank: int


def world() -> World:
    """This process's place; joins the group that torchrun announces in the environment, once."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(0, 1, 0)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


def gather(values: Tensor) -> Tensor:
    """Concatenates a tensor of equal shape from every process along the first axis, in rank order; no gradient."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def any_process(flag: bool, device: torch.device) -> bool:
    """True on every process as soon as it is true on one (to stop all at the same step)."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return flag
    value = torch.tensor(int(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def average(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over all processes, in one transfer."""
    if not tensors or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    torch._foreach_copy_(tensors, [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)])


class _SumOverProcesses(torch.autograd.Function):
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

    Same state_dict keys as `nn.BatchNorm3d`.
    """

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(input)
        axes = (0, 2, 3, 4)
        count = input.numel() / input.shape[1]
        sums = torch.cat([input.sum(axes), input.square().sum(axes), input.new_full((1,), count)])
        sums = _SumOverProcesses.apply(sums)
        channels = self.num_features
        total = sums[-1]
        mean = sums[:channels] / total
        variance = sums[channels:-1] / total - mean.square()
        self._follow(mean.detach(), variance.detach() * total / (total - 1))
        scale = torch.rsqrt(variance + self.eps)
        weight = scale if self.weight is None else scale * self.weight
        bias = -mean * weight if self.bias is None else self.bias - mean * weight
        return input * weight[:, None, None, None] + bias[:, None, None, None]

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Batch statistics over all processes "across all layers" (Sec. 4.1.1): torch's on CUDA, ours on the CPU."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm3d:
            child.__class__ = ProcessBatchNorm3d
    return module
