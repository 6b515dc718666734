"""Batch norm over parts of a batch on one device, so that a query cannot be told by its batch's statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SplitBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose training statistics are taken over each of `splits` equal parts of the batch.

    Same state_dict keys as `nn.BatchNorm3d`; evaluation is unchanged. Running statistics follow the mean of the parts.
    """

    splits: int = 1

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        if not self.training or self.splits == 1:
            return super().forward(input)
        if len(input) % self.splits:
            raise ValueError(f"A batch of {len(input)} clips cannot be split into {self.splits} equal parts.")
        parts = [super(SplitBatchNorm3d, self).forward(part) for part in input.chunk(self.splits)]
        return torch.cat(parts)


def split_batch_norm(module: nn.Module, splits: int) -> nn.Module:
    """Turns every `BatchNorm3d` of the module into a split one, in place; returns the module."""
    if splits > 1:
        for child in module.modules():
            if type(child) is nn.BatchNorm3d:
                child.__class__ = SplitBatchNorm3d
                child.splits = splits  # type: ignore[assignment]
    return module
