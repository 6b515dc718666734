"""Activation checkpointing: an encoder's blocks keep their input and compute the rest again in the backward pass.

PyTorch does the work; what is left to do here is that batch norm must not count a batch twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(encoder: nn.Module) -> None:
    """Has every block of the encoder (a child, or a part of a sequence) computed twice instead of remembered."""
    for block in _blocks(encoder):
        contexts = partial(_contexts, block)
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)  # type: ignore[method-assign]


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Children; of a sequence of compound modules, those: layers that work in place must stay with what is before."""
    for child in module.children():
        if isinstance(child, nn.Sequential) and all(any(part.children()) for part in child):
            yield from child
        else:
            yield child


def _contexts(block: nn.Module):
    return nullcontext(), _again(block)


@contextmanager
def _again(block: nn.Module) -> Iterator[None]:
    """The second pass: running statistics stay as the first has left them."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = torch.zeros_like(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
