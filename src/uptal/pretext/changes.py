"""One view of a pair as its changes from frame to frame. Not in the paper.

Colours, scene and the performer's looks are no help then, since only one of the views has them; what moves, and how, is
in both. Letters: B samples, J clips, C colours, T frames of a clip, H W picture.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_GAIN = 4.0
"""Brings changes, which are small, near the spread of normalised pictures."""


def draw_changes(share: float, batch: int, training: bool) -> Bool[Tensor, "2 B"]:
    """Which view of which sample is shown as its changes: of a `share` of the samples one of the two, never both.

    In evaluation nothing is drawn: of the first `share` of the samples it is the second view.
    """
    if not training:
        second = torch.arange(batch) < round(share * batch)
        return torch.stack([torch.zeros_like(second), second])
    shown, first = torch.rand(2, batch)
    chosen = shown < share
    return torch.stack([chosen & (first < 0.5), chosen & (first >= 0.5)])


def as_changes(clips: Float[Tensor, "B J C T H W"], which: Bool[Tensor, " B"]) -> Float[Tensor, "B J C T H W"]:
    """The clips of some samples as the change of brightness to the next frame, grey; the last one is shown twice."""
    brightness = clips.mean(2, keepdim=True)
    change = _GAIN * brightness.diff(dim=3)
    change = torch.cat([change, change[:, :, :, -1:]], 3)
    return torch.where(which[:, None, None, None, None, None], change, clips)
