"""The input-level transformation T and the feature-level equi-transformation G (Sec. 3.2.1 and 3.2.3).

T: a pseudo action region of one video is blended into a run of clips of another. It happens in the batch, on the
device: backgrounds are other videos of the same batch, reached by two derangements that never meet, so a loader opens
one video a sample and each sample still sees a uniform triple of distinct videos (`docs/paper.md`).
G: the features of the pasted clips are cut out again and averaged.

Letters: B samples, J clips of a synthetic video, R most clips of a region, T frames of a clip, C H W picture, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uptal.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PasteConfig:
    """How a region gets onto another video (Sec. 3.2.1, Tables 3 and 5)."""

    source: Literal["none", "same", "diff", "own", "frozen"] = "diff"
    """Which video the two views are pasted onto: none (the region stays in its own video), the same, different ones.
    Not in the paper: another time of its own video (`own`), or a frame of it held still (`frozen`)."""
    beta: tuple[float, float] = (0.6, 1.0)
    """Range of the blend ratio (Sec. 3.2.1); (1, 1) is the hard paste of Table 5."""
    beta_scope: Literal["region", "clip", "frame"] = "region"
    """What shares one blend ratio. The paper does not say."""
    edge: int = 0
    """Frames over which the blend ramps up and down at the region's ends; 0 is none. The paper does not say."""
    ramp: float = 0.0
    """Epochs over which pasting begins: in epoch e (from 0) a region is pasted with probability (e + 1/2) / ramp, at
    most 1, and otherwise stays where it is in its own video. 0, as in the paper: all are pasted from the start."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta[0] <= self.beta[1] <= 1:
            raise ConfigError(f"paste.beta is a range within [0, 1], found {self.beta}.")
        if self.edge < 0:
            raise ConfigError(f"paste.edge counts frames and cannot be negative, found {self.edge}.")
        if self.ramp < 0:
            raise ConfigError(f"paste.ramp counts epochs and cannot be negative, found {self.ramp}.")

    def probability(self, epoch: int) -> float:
        """Share of the regions that are pasted in an epoch.

        >>> [PasteConfig(ramp=2.0).probability(epoch) for epoch in range(3)]
        [0.25, 0.75, 1.0]
        """
        return min(1.0, (epoch + 0.5) / self.ramp) if self.ramp else 1.0


@dataclass(frozen=True)
class Placement:
    """What T did to a batch: all that G needs to undo it."""

    start: Int[Tensor, " B"]
    """First slot of the region, counted from 0."""
    length: Int[Tensor, " B"]
    """Number of slots."""
    blend: Float[Tensor, "B R T"]
    """Share of the action in every frame of the region; entries beyond `length` are not looked at."""
    alone: bool = False
    """Whether there are no clips but the region's: those beyond it only fill the tensor."""
    total: int | None = None
    """Number of clips of all regions, so that the device need not be asked; None where nobody has counted."""

    def reordered(self, order: Int[Tensor, " N"]) -> Placement:
        """The placements of the samples in another order, or those of some of them."""
        total = self.total if len(order) == len(self.length) else None
        return Placement(self.start[order], self.length[order], self.blend[order], self.alone, total)


def draw_blend(
    rng: np.random.Generator, cfg: PasteConfig, length: int, most: int, frames: int
) -> Float[np.ndarray, "R T"]:
    """Blend ratios of one region: one draw a region, clip or frame, with ramps at the ends if asked for."""
    shape = {"region": (1, 1), "clip": (length, 1), "frame": (length, frames)}[cfg.beta_scope]
    blend = np.zeros((most, frames), np.float32)
    blend[:length] = rng.uniform(*cfg.beta, shape)
    if cfg.edge:
        distance = np.arange(length * frames) + 1
        ramp = np.minimum(1.0, np.minimum(distance, distance[::-1]) / (cfg.edge + 1))
        blend[:length] *= ramp.reshape(length, frames)
    return blend


def inside(place: Placement, num_clips: int) -> Bool[Tensor, "B J"]:
    """Which slots belong to the region."""
    slot = torch.arange(num_clips, device=place.start.device)
    return (slot >= place.start[:, None]) & (slot < (place.start + place.length)[:, None])


def region_rows(place: Placement, total: int | None) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Sample, and place in its region, of every clip of all regions; `total` is their number, without which the device
    is waited for."""
    sample = torch.arange(len(place.length), device=place.length.device)
    sample = sample.repeat_interleave(place.length, output_size=total)
    before = place.length.cumsum(0) - place.length
    return sample, torch.arange(len(sample), device=sample.device) - before[sample]


def paste_into(
    background: Float[Tensor, "B J T C H W"], action: Float[Tensor, "N T C H W"], place: Placement
) -> Float[Tensor, "B J T C H W"]:
    """Blends the regions' clips (`region_rows`) into slots start .. start + length of `background` itself, and gives it
    back; every other slot stays as it is, to the bit."""
    sample, clip = region_rows(place, len(action))
    slot = place.start[sample] + clip
    weight = place.blend[sample, clip][..., None, None, None]
    background[sample, slot] = background[sample, slot].mul_(1 - weight).add_(weight * action)
    return background


def pool(features: Float[Tensor, "B J D"], where: Bool[Tensor, "B J"]) -> Float[Tensor, "B D"]:
    """G followed by TempAvgPool, where `where` is the region (`inside`): the mean of some clips' features (Sec. 3.2.3).

    Zeros where there are none.
    """
    weight = where.to(features.dtype)
    return (features * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)


def derangements(
    rng: np.random.Generator | None, groups: Sequence[int], same: bool = False
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Two maps pi, rho of the batch onto itself with pi(i) != i, rho(i) != i and pi(i) != rho(i) for every i.

    A batch is a random sample, so cyclic shifts give every sample a uniform pair of other videos. Shifts that would
    pair two videos of one group are passed over; where none is left, a search stays as close to a shift as it can.

    Args:
        rng: Source of randomness; None gives the first shifts that serve (validation).
        groups: Group of each sample; videos of one group never meet (give each video its own to allow all).
        same: Use one map for both views (Table 3, #3).

    Raises:
        ConfigError: When the batch is too small or consists of too few groups.
    """
    batch, group = len(groups), np.asarray(groups)
    if batch < (2 if same else 3):
        raise ConfigError(
            f"Pasting onto other videos needs {2 if same else 3} or more videos in a batch, found {batch}."
        )
    here = np.arange(batch)
    shifts = here[1:] if rng is None else rng.permutation(here[1:])
    good = [to for to in ((here + shift) % batch for shift in shifts) if not (group[to] == group).any()]
    first = good[0] if good else _searched(group, here[None], int(shifts[0]))
    if same:
        return first, first
    second = good[1] if len(good) > 1 else _searched(group, np.stack([here, first]), int(shifts[1]))
    return first, second


def _searched(group: Int[np.ndarray, " B"], taken: Int[np.ndarray, "N B"], shift: int) -> Int[np.ndarray, " B"]:
    """A map that avoids `taken` and one's own group everywhere: bipartite matching by augmenting paths.

    Every place tries the one `shift` further on first.
    """
    batch = len(group)
    here = np.arange(batch)
    free = group[:, None] != group
    free[here, taken] = False
    allowed = [[j for j in ((i + shift + here) % batch).tolist() if free[i, j]] for i in range(batch)]
    owner: dict[int, int] = {}

    def place(i: int, seen: set[int]) -> bool:
        for j in allowed[i]:
            if j not in seen:
                seen.add(j)
                if j not in owner or place(owner[j], seen):
                    owner[j] = i
                    return True
        return False

    if not all(place(i, set()) for i in range(batch)):
        raise ConfigError(
            f"A batch of {batch} videos from {len(set(group.tolist()))} groups cannot be paired so that no two videos "
            "of one group meet; use a larger batch or a finer data.group_pattern."
        )
    result = np.empty(batch, np.int64)
    for j, i in owner.items():
        result[i] = j
    return result
