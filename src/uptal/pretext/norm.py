"""Batch norm over parts of a batch on one device, so that a query cannot be told by its batch's statistics."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor, nn

from uptal.errors import ConfigError


def interleaved(batch: int, splits: int) -> Int[Tensor, " B"]:
    """An order in which samples that shared one of `splits` parts are spread evenly over all of them.

    Query and key need different orders: equal parts would leave equal marks on both.

    >>> interleaved(6, 2).tolist()
    [0, 3, 1, 4, 2, 5]

    Raises:
        ConfigError: The parts would not be equal.
    """
    if batch % splits:
        raise ConfigError(f"contrast.split_bn {splits} must divide the {batch} samples of a process.")
    return torch.arange(batch).view(splits, -1).T.flatten()


class SplitBatchNorm3d(nn.BatchNorm3d):
    """Batch norm whose training statistics are taken over each of `splits` equal parts of the batch.

    Same state_dict keys as `nn.BatchNorm3d`; evaluation is unchanged. Running statistics move once with every part.
    """

    splits: int = 1

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        if not self.training or self.splits == 1:
            return super().forward(input)
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
