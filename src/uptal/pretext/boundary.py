"""An auxiliary task: where in the synthetic video the region begins, where it ends, and which clips are in it.

Not in the paper. The pooled loss tells regions apart and asks no clip whether an action begins there, which is what a
localizer wants to know; where a region was pasted is known, so the labels are free. The head is small, sits on the clip
encoder and is dropped with the others.

Letters: B samples, J clips of a synthetic video, E encoder width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from uptal.device import full_precision
from uptal.distributed import gather
from uptal.pretext.synthesis import Placement, inside

BESIDE = 0.5
"""Label of the clips next to a start or an end."""


def boundary_head(width: int, hidden: int) -> nn.Sequential:
    """Two convolutions over clips, from features to three scores a clip."""
    return nn.Sequential(nn.Conv1d(width, hidden, 3, padding=1), nn.ReLU(), nn.Conv1d(hidden, 3, 3, padding=1))


def boundary_labels(place: Placement, num_clips: int) -> Float[Tensor, "B 3 J"]:
    """Start, end, inside. A region that begins with the first clip has no start, one that ends with the last no end:
    nothing changes there."""
    slot = torch.arange(num_clips, device=place.start.device)
    last = place.start + place.length - 1
    start = _bump(slot, place.start) * (place.start > 0)[:, None]
    end = _bump(slot, last) * (last < num_clips - 1)[:, None]
    return torch.stack([start, end, inside(place, num_clips).float()], 1)


def boundary_loss(
    scores: Float[Tensor, "B 3 J"], place: Placement, counted: Bool[Tensor, " B"] | None = None
) -> Float[Tensor, ""]:
    """Binary cross-entropy in float32, in which "yes" and "no" weigh the same for each of the three questions.

    The balance is that of all processes, so that their losses average to that of the whole step; where all answers of
    a question are the same, only they count. Samples that are not `counted` add nothing.
    """
    with full_precision(scores.device):
        scores, yes = scores.float(), boundary_labels(place, scores.shape[2])
        there = torch.ones_like(yes) if counted is None else counted[:, None, None].expand_as(yes).float()
        yes, no = yes * there, (1 - yes) * there
        for_yes = (yes * F.softplus(-scores)).sum((0, 2)) / _share(yes)
        for_no = (no * F.softplus(scores)).sum((0, 2)) / _share(no)
        return ((for_yes + for_no) / 2).mean()


def _share(weight: Float[Tensor, "B 3 J"]) -> Float[Tensor, " 3"]:
    """What the samples of a process weigh on average; never 0."""
    return gather(weight.sum((0, 2))[None]).mean(0).clamp(min=1e-6)


def _bump(slot: Tensor, place: Tensor) -> Float[Tensor, "B J"]:
    distance = (slot - place[:, None]).abs()
    return (distance == 0).float() + BESIDE * (distance == 1).float()
