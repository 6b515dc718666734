"""A convolution and its batch norm as one operation, for networks that learn nothing any more.

Letters: N clips, C and c channels before and after, T frames, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Pointwise(nn.Module):
    """A 1x1x1 convolution as a product of matrices.

    It keeps the memory layout `channels_last_3d`, which PyTorch's own loses on a CPU, and every layer behind with it.
    """

    def __init__(self, weight: Float[Tensor, "c C"], bias: Float[Tensor, " c"]):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N c T H W"]:
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


@torch.no_grad()
def folded(conv: nn.Conv3d, norm: nn.BatchNorm3d) -> nn.Module:
    """One layer for `norm(conv(x))` in evaluation: the norm's scale and shift go into weights and bias.

    Args:
        conv: Without bias, groups and dilation.
        norm: With running statistics.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight, bias = conv.weight * scale[:, None, None, None, None], norm.bias - norm.running_mean * scale
    if set(conv.kernel_size) == set(conv.stride) == {1}:
        return Pointwise(weight.flatten(1), bias)
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    whole = nn.Conv3d(conv.in_channels, conv.out_channels, kernel, stride, padding, device=weight.device)  # pyright: ignore[reportArgumentType]
    whole.weight, whole.bias = nn.Parameter(weight), nn.Parameter(bias)
    return whole
