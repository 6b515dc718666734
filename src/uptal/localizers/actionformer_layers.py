"""Layers of ActionFormer: transformer blocks with local attention, convolutional heads, a pyramid laid in one row.

The network that they make is in `actionformer`. Every layer takes features that are zero where the mask says that
nothing is, and returns such, so that a video's output does not depend on what it is padded to.
Letters: B videos, C feature width, D width, T steps, S steps after a stride, H heads, E width of a head, O outputs,
P points of all levels, R steps of the row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution over three steps, norm, ReLU."""

    def __init__(self, inner: int, width: int):
        super().__init__()
        self.conv = nn.Conv1d(inner, width, 3, padding=1, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The layer's output."""
        return F.relu(self.norm(self.conv(x.mT).mT)) * mask[..., None]


class Head(nn.Module):
    """Convolutions that all levels share (paper)."""

    def __init__(self, width: int, num_outputs: int, bias: float = 0.0):
        """`bias` is what the outputs begin at."""
        super().__init__()
        self.layers = nn.ModuleList(ConvNorm(width, width) for _ in range(2))
        self.out = nn.Conv1d(width, num_outputs, 3, padding=1)
        nn.init.constant_(self.out.get_parameter("bias"), bias)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T O"]:
        """The outputs; they mean nothing where nothing is."""
        for layer in self.layers:
            x = layer(x, mask)
        return self.out(x.mT).mT


class Block(nn.Module):
    """Transformer block on a level; with stride 2 it makes the next one (paper)."""

    def __init__(self, width: int, num_heads: int, window: int, stride: int):
        super().__init__()
        self.stride = stride
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LocalAttention(width, num_heads, window, stride)
        self.mix = nn.Sequential(_linear(width, 4 * width), nn.GELU(), _linear(4 * width, width))
        self.scale1, self.scale2 = (nn.Parameter(torch.full((width,), 1e-4)) for _ in range(2))
        """Of the two branches: a block begins as (nearly) nothing (Touvron et al., LayerScale; public code)."""

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], keep: Float[Tensor, "2 B"] | None
    ) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        """The level's features and mask; `keep` are factors of the branches of every video."""
        attend, mix = (1.0, 1.0) if keep is None else keep[..., None, None]
        attended = self.attention(self.norm1(x) * mask[..., None], mask)
        if self.stride == 2:
            nowhere = ~mask[..., None]
            x = F.max_pool1d(x.masked_fill(nowhere, torch.finfo(x.dtype).min).mT, 3, 2, 1).mT
            mask = mask[:, ::2]
        x = (x + self.scale1 * attended * attend) * mask[..., None]
        return (x + self.scale2 * self.mix(self.norm2(x)) * mix) * mask[..., None], mask


class LocalAttention(nn.Module):
    """Multi-head attention of every step to its neighbours.

    Queries, keys and values come from a depth-wise convolution, which also has the block's stride, a norm and a linear
    layer each (paper; public code).
    """

    def __init__(self, width: int, num_heads: int, window: int, stride: int):
        super().__init__()
        self.num_heads, self.window, self.stride = num_heads, window, stride
        self.near = nn.Conv1d(width, 3 * width, 3, stride, 1, groups=width, bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.project = nn.ModuleList(_linear(width, width) for _ in range(3))
        self.out = _linear(width, width)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B S D"]:
        """Attended features at the block's stride."""
        near = self.near(x.mT).unflatten(1, (-1, 3)).permute(2, 0, 3, 1)
        layers = zip(self.project, self.norms, near, strict=True)
        query, key, value = (
            project(norm(part)).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for project, norm, part in layers
        )
        mixed = local_attention(query, key, value, mask[:, :: self.stride], self.window)
        return self.out(mixed.transpose(1, 2).flatten(2))


def local_attention(
    query: Float[Tensor, "B H T E"],
    key: Float[Tensor, "B H T E"],
    value: Float[Tensor, "B H T E"],
    mask: Bool[Tensor, "B T"],
    window: int,
) -> Float[Tensor, "B H T E"]:
    """Softmax attention of every step to the `window` steps around it (0: to all), of which `mask` says which exist.

    Steps are taken in blocks of a window's length less one, each against itself and half a window on either side, so
    memory grows with T times the window; a few windows are taken at once. Steps that do not exist get some value that
    means nothing.
    """
    steps, half = query.shape[2], window // 2
    if window == 0:
        return _attend(query, key, value, mask[:, None, None])
    if steps <= 4 * window:
        place = torch.arange(steps, device=mask.device)
        return _attend(query, key, value, mask[:, None, None] & ((place - place[:, None]).abs() <= half))
    block = max(1, 2 * half)
    count = -(-steps // block)
    after = count * block - steps
    query = F.pad(query, (0, 0, 0, after)).unflatten(2, (count, block))
    key, value = (F.pad(x, (0, 0, half, half + after)).unfold(2, block + 2 * half, block).mT for x in (key, value))
    exists = F.pad(mask, (half, half + after)).unfold(1, block + 2 * half, block)
    distance = torch.arange(block + 2 * half, device=mask.device) - torch.arange(block, device=mask.device)[:, None]
    near = (distance >= 0) & (distance <= 2 * half)
    return _attend(query, key, value, exists[:, None, :, None] & near).flatten(2, 3)[:, :, :steps]


def _attend(
    query: Float[Tensor, "*N T E"],
    key: Float[Tensor, "*N S E"],
    value: Float[Tensor, "*N S E"],
    allowed: Bool[Tensor, "..."],
) -> Float[Tensor, "*N T E"]:
    """Attention, its softmax in single precision, to nothing but what is allowed.

    What is not has the lowest score there is and not minus infinity: a row without any key would become NaN, and so it
    becomes a mean that the mask drops later.
    """
    scores = (query @ key.mT).float() / math.sqrt(query.shape[-1])
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1).to(value.dtype) @ value


def in_a_row(levels: Sequence[Tensor]) -> Tensor:
    """All levels (B, T, …) one after the other (B, R, …) with an empty step between two, so that a convolution over
    three steps does to each what it would do to it alone."""
    gap = torch.zeros_like(levels[0][:, :1])
    return torch.cat([part for level in levels for part in (level, gap)][:-1], 1)


def without_gaps(row: Float[Tensor, "B R O"], lengths: Sequence[int]) -> Float[Tensor, "B P O"]:
    """The levels of such a row without the empty steps."""
    starts = [sum(lengths[:level]) + level for level in range(len(lengths))]
    return torch.cat([row[:, start : start + length] for start, length in zip(starts, lengths, strict=True)], 1)


def positions(x: Float[Tensor, "B T D"]) -> Float[Tensor, "T D"]:
    """Sines and cosines of a step's number, at frequencies from 1 to 1/10000, scaled as the public code has them."""
    steps, width = x.shape[1:]
    rate = torch.exp(-math.log(10000) * torch.arange(0, width, 2, device=x.device) / width)
    angle = torch.arange(steps, device=x.device)[:, None] * rate
    return (torch.stack([angle.sin(), angle.cos()], -1).flatten(1) / math.sqrt(width)).to(x.dtype)


def _linear(inner: int, width: int) -> nn.Linear:
    """A linear layer whose bias begins at zero (public code)."""
    layer = nn.Linear(inner, width)
    nn.init.zeros_(layer.bias)
    return layer
