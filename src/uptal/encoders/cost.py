"""What an encoder costs, counted without computing anything; measured times are in benchmarks/."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from uptal.clipspec import ClipSpec


def count_parameters(module: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(encoder: Any, clip: ClipSpec | None = None) -> int:
    """Multiply-adds of one clip (default: the encoder's own size), the unit of the FLOPs column of Table 1.

    Convolutions and matrix products are counted; norms, activations and pools are not.
    """
    seen: ClipSpec = encoder.native if clip is None else clip
    shadow = copy.deepcopy(encoder).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(1, 3, seen.frames, seen.size, seen.size, device="meta"))
    return counter.get_total_flops() // 2
