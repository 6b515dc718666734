"""What an encoder costs, counted without computing anything; measured times are in benchmarks/."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uptal.clipspec import ClipSpec


def count_parameters(module: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(encoder: Any, clip: ClipSpec | None = None) -> int:
    """Multiply-adds of one clip (default: the encoder's own size), the unit of the FLOPs column of Table 1.

    Convolutions and matrix products are counted; norms, activations and pools are not.
    """
    with FlopCounterMode(display=False) as counter:
        _pass(copy.deepcopy(encoder).to("meta"), clip)
    return counter.get_total_flops() // 2


def count_norm_outputs(encoder: Any, clip: ClipSpec | None = None) -> int:
    """Numbers that the batch norms give for one clip; some counters add two operations for each."""
    total = 0

    def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    shadow = copy.deepcopy(encoder).to("meta")
    for module in shadow.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.register_forward_hook(add)
    _pass(shadow, clip)
    return total


def _pass(shadow: Any, clip: ClipSpec | None) -> None:
    """Sends a clip without contents through an encoder without contents."""
    seen: ClipSpec = shadow.native if clip is None else clip
    with torch.no_grad():
        shadow.eval()(torch.empty(1, 3, seen.frames, seen.size, seen.size, device="meta"))
