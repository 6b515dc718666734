"""The one conversion from pictures to encoder input; nothing else in the house permutes a clip's axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def normalise(
    pictures: Float[Tensor, "*N T C H W"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "*N C T H W"]:
    """Pictures in [0, 1] to encoder input: mean and deviation per colour, colours before time."""
    shift = torch.tensor(mean, device=pictures.device)[:, None, None]
    scale = torch.tensor(std, device=pictures.device)[:, None, None]
    return ((pictures - shift) / scale).transpose(-4, -3)
