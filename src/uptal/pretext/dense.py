"""Contrast between single clips of two views of one region, by what they show of the source (not in the paper).

The pooled loss of PAL is the same wherever and however fast a region plays; it asks nothing of the clips one by one.
What was cut and at which speed is known, so it is known which clips of the two views show the same moment. Here a clip
of the query is to find those of the key, among all clips of the step. Other moments of its own video look the same but
for the motion, which is what tells them apart.

Letters: B samples, R most clips of a region, D width, M samples of all processes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uptal.device import full_precision
from uptal.distributed import gather
from uptal.pretext.synthesis import Placement

SAME = 0.5
"""Share of the shorter clip's time that two clips need in common to show the same; with less, they are left out."""


def region_clips(features: Float[Tensor, "B J D"], place: Placement, most: int) -> Float[Tensor, "B R D"]:
    """The features of the region's clips, in a row from its first on; what lies beyond its length repeats a clip."""
    slot = (place.start[:, None] + torch.arange(most, device=features.device)).clamp(max=features.shape[1] - 1)
    return features.gather(1, slot[..., None].expand(-1, -1, features.shape[2]))


def common(first: Int[Tensor, "*#A 2"], second: Int[Tensor, "*#A 2"]) -> Float[Tensor, "*A"]:
    """Share of the shorter span's frames that lie in both; spans are first and last frame.

    >>> common(torch.tensor([[0, 7]]), torch.tensor([[4, 32]])).tolist()
    [0.5]
    """
    begin, end = torch.maximum(first[..., 0], second[..., 0]), torch.minimum(first[..., 1], second[..., 1])
    shorter = torch.minimum(first[..., 1] - first[..., 0], second[..., 1] - second[..., 0]) + 1
    return (end - begin + 1).clamp(min=0) / shorter.clamp(min=1)


def dense_nce(
    query: Float[Tensor, "B R D"],
    key: Float[Tensor, "B R D"],
    spans: Int[Tensor, "B 2 R 2"],
    length: Int[Tensor, "B 2"],
    ids: Int[Tensor, " B"],
    tau: float,
) -> Float[Tensor, ""]:
    """InfoNCE of clips, with one or more positives each, over the clips that have any; 0 where none has.

    Args:
        query: Unit vectors of the query's clips.
        key: Unit vectors of the key's clips.
        spans: First and last source frame of the clips of both views.
        length: Number of clips of both views.
        ids: Video of each sample.
        tau: Temperature.
    """
    with full_precision(query.device):
        keys, key_spans, key_ids = gather(key.float()), gather(spans[:, 1].contiguous()), gather(ids)
        there = _there(gather(length[:, 1].contiguous()), key.shape[1])
        shared = common(spans[:, 0, :, None, None], key_spans) * (ids[:, None] == key_ids)[:, None, :, None]
        scores = torch.einsum("brd,msd->brms", query.float(), keys) / tau
        same = (shared >= SAME) & there
        counts = there & ~((shared > 0) & (shared < SAME))
        everything = scores.masked_fill(~counts, -torch.inf).flatten(2).logsumexp(2)
        right = scores.masked_fill(~same, -torch.inf).flatten(2).logsumexp(2)
        useful = same.flatten(2).any(2) & _there(length[:, 0], query.shape[1])
        return torch.where(useful, everything - right, 0.0).sum() / useful.sum().clamp(min=1)


def _there(length: Int[Tensor, " M"], most: int) -> Bool[Tensor, "M R"]:
    return torch.arange(most, device=length.device) < length[:, None]
