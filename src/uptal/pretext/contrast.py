"""Momentum contrast: the queue of negatives, InfoNCE, and the momentum encoder (Sec. 3.2.4, after MoCo).

Knows nothing of videos: it sees unit vectors and ids. Letters: B samples, K queue length, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uptal.device import full_precision
from uptal.distributed import gather, world
from uptal.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Numbers of the contrastive objective."""

    queue: int = 16384
    """K, keys kept as negatives (Sec. 4.1.1)."""
    tau: float = 0.07
    """Temperature (Sec. 4.1.1)."""
    momentum: float = 0.999
    """m of the key encoder. The paper does not say; CoCLR's value."""
    negatives: Literal["queue", "batch", "both"] = "queue"
    """Where negatives come from: the queue, the other keys of the step (of all processes), or both. The paper: a memory
    queue (Sec. 4.1.1)."""
    symmetric: bool = False
    """Also use view 2 as query and view 1 as key and average. The paper's Eq. 7 has one direction."""
    mask_same_video: bool = True
    """Leave out queue entries of the query's own video. The paper does not say; it matters for small sets."""
    split_bn: int = 1
    """Batch-norm groups on one device: statistics over batch / g samples, other ones for keys than for queries, against
    leaks between the two. The paper synchronises (Sec. 4.1.1), which is what several processes do."""
    key_batch: int | None = None
    """Samples whose keys are encoded at once, for less memory: keys need no gradient, so another size than that of the
    queries' batch may suit the device. Batch norm of the key encoder then knows a part at a time. None: all at once."""
    shuffle_bn: bool = False
    """On several processes: each normalises by its own statistics, and keys are shuffled over processes, so that a key
    is not normalised with the company of its query (MoCo). The paper synchronises instead."""
    unfilled: Literal["mask", "warm_up", "random"] = "mask"
    """The queue before its first K keys: places that do not count yet, K keys made before the first step without
    learning, or random unit vectors (MoCo). The paper does not say."""
    dense: float = 0.0
    """Weight of a second loss, between single clips: a query clip is to find the key clips that show the same time of
    the source, whatever their speed, among all clips of all keys of the step, those of its own video at other times
    included. 0 leaves it out, as the paper does (its loss knows regions only)."""
    background: bool = False
    """Also tell the query from the key of the video that it was pasted onto, where negatives come from the queue; with
    `negatives` batch or both that key is among them. Not in the paper, which hopes that backgrounds are ignored."""
    own_outside: bool = False
    """Also tell the query from the clips around it: those of its own synthetic video outside the region, pooled as the
    region is. Where there are none, nothing is added. Not in the paper."""
    motion: tuple[Literal["still", "reversed", "shuffled"], ...] = ()
    """Also tell the query from its own key region with the motion spoilt: every clip one frame held still, its frames
    backwards, or in a random order; each of them is one more negative, of the momentum encoder. Scene and performer
    are then the same in the key and in these negatives, and only what moves is left to tell. Not in the paper."""
    changes: float = 0.0
    """Share of the pairs of which one view, drawn anew each step, is shown as its changes from frame to frame, in grey.
    What looks alike in both views is then no help, and what moves alike is. Not in the paper."""
    positives: Literal["own", "all"] = "own"
    """With several regions a video (`data.timeline.regions`): a query is to find the key of its own region, or those of
    the other regions of its video as well (the mean of as many losses)."""
    skip_looped: bool = False
    """Count no loss for videos shorter than a clip, which are played in a loop; they still lend backgrounds and keys.
    The paper does not say; Kinetics has none."""

    @property
    def local_statistics(self) -> bool:
        """Whether batch norm is left to each process instead of synchronised."""
        return self.split_bn > 1 or self.shuffle_bn

    def __post_init__(self) -> None:
        if self.key_batch is not None and (self.key_batch < 2 or self.local_statistics or self.dense):
            raise ConfigError("contrast.key_batch is at least 2, and goes without split_bn, shuffle_bn and dense.")
        if self.dense < 0 or (self.dense and (self.local_statistics or self.symmetric)):
            raise ConfigError(
                "contrast.dense is a weight of 0 or more, and goes without split_bn, shuffle_bn, symmetric."
            )
        if not 0 <= self.changes <= 1:
            raise ConfigError(f"contrast.changes is a share from 0 to 1, found {self.changes}.")
        if self.background and self.negatives != "queue":
            raise ConfigError(
                "contrast.background adds the background's key to the queue's; with contrast.negatives "
                f"{self.negatives} it is a negative anyway. Use contrast.negatives queue, or leave it out."
            )
        if self.positives == "all" and not self.mask_same_video:
            raise ConfigError(
                "contrast.positives all makes keys of the query's video positives, and contrast.mask_same_video false "
                "makes them negatives; choose one."
            )
        if self.split_bn > 1 and self.shuffle_bn:
            raise ConfigError("contrast.shuffle_bn is for several processes, split_bn for one; choose one of them.")
        if self.queue < 1 or self.tau <= 0 or not 0 <= self.momentum <= 1 or self.split_bn < 1:
            raise ConfigError(
                "contrast needs queue >= 1, tau > 0, momentum in [0, 1] and split_bn >= 1, found "
                f"queue {self.queue}, tau {self.tau}, momentum {self.momentum}, split_bn {self.split_bn}."
            )


class Queue(nn.Module):
    """A ring of the last K keys with the ids of their videos; part of the state, so a resumed run keeps them."""

    keys: Tensor
    ids: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, length: int, width: int, random: bool = False):
        """An empty queue, or one full of random unit vectors of no video."""
        super().__init__()
        keys = F.normalize(torch.randn(length, width), dim=1) if random else torch.zeros(length, width)
        self.register_buffer("keys", keys)
        self.register_buffer("ids", torch.full((length,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.tensor(length if random else 0))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "B D"], ids: Int[Tensor, " B"]) -> None:
        """Overwrites the oldest entries, wrapping at the end; of more than K keys the last K stay."""
        length = len(self.keys)
        skipped = max(0, len(keys) - length)
        place = (self.pointer + skipped + torch.arange(len(keys) - skipped, device=keys.device)) % length
        self.keys[place] = keys[skipped:].to(self.keys.dtype)
        self.ids[place] = ids[skipped:]
        self.pointer.copy_((self.pointer + len(keys)) % length)
        self.filled.copy_((self.filled + len(keys)).clamp(max=length))


@dataclass(frozen=True)
class Hard:
    """One more negative for each query, meant for it alone."""

    keys: Float[Tensor, "B D"]
    there: Bool[Tensor, " B"]
    """Whether the query has it."""


@dataclass(frozen=True)
class Contrast:
    """Outcome of one comparison."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    """Share of queries whose positive key beats every negative; a query without negatives does not count as right."""
    num_negatives: Float[Tensor, ""]
    """Mean number of negatives that counted; log(1 + this) is the loss of a guess."""


def info_nce(
    query: Float[Tensor, "B D"],
    key: Float[Tensor, "B D"],
    ids: Int[Tensor, " B"],
    queue: Queue,
    cfg: ContrastConfig,
    counted: Bool[Tensor, " B"] | None = None,
    hard: Sequence[Hard] = (),
    further: Sequence[Float[Tensor, "B D"]] = (),
) -> Contrast:
    """InfoNCE (Eq. 7) in float32: positive key against the queue, the other keys of the step, or both.

    Queue entries that were never filled do not count, nor, with `mask_same_video`, those of the query's own video.
    Queries that are not `counted` add nothing to the loss; it stays a mean over all, so that processes add up.
    `hard` negatives count beside the others. With `further` positive keys the loss is the mean over all of them, each
    by itself against the negatives; accuracy is that of `key`.
    """
    with full_precision(query.device):
        query, key = query.float(), key.float()
        positive = (query * key).sum(1, keepdim=True)
        logits, valid = [], []
        if cfg.negatives in ("queue", "both"):
            logits.append(query @ queue.keys.T)
            filled = torch.arange(len(queue.keys), device=query.device) < queue.filled
            own = (queue.ids[None] == ids[:, None]) & cfg.mask_same_video
            valid.append(filled & ~own)
        if cfg.negatives in ("batch", "both"):
            names = gather(ids)
            logits.append(query @ gather(key).T)
            place = torch.arange(len(names), device=query.device) - world().rank * len(query)
            itself = place == torch.arange(len(query), device=query.device)[:, None]
            valid.append(~itself & ~((names[None] == ids[:, None]) & cfg.mask_same_video))
        for other in hard:
            logits.append((query * other.keys.float()).sum(1, keepdim=True))
            valid.append(other.there[:, None])
        mask = torch.cat(valid, 1)
        negative = torch.cat(logits, 1).masked_fill(~mask, -torch.inf)
        positives = [positive, *((query * other.float()).sum(1, keepdim=True) for other in further)]
        scores = [torch.cat([one, negative], 1) / cfg.tau for one in positives]
        first = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        best = negative.max(1).values
        right = ((positive[:, 0] > best) & mask.any(1)).float()
        if counted is None:
            loss, accuracy = torch.stack([F.cross_entropy(one, first) for one in scores]).mean(), right.mean()
        else:
            losses = [(F.cross_entropy(one, first, reduction="none") * counted).mean() for one in scores]
            loss = torch.stack(losses).mean()
            accuracy = (right * counted).sum() / counted.sum().clamp(min=1)
        return Contrast(loss, accuracy, mask.float().sum(1).mean())


@torch.no_grad()
def geometry(query: Float[Tensor, "B D"], key: Float[Tensor, "B D"]) -> dict[str, Tensor]:
    """How embeddings lie, for the log.

    `spread`: standard deviation of the queries times the root of their width, at most 1, 0 when all are the same.
    `alignment` (mean squared distance of query and key) and `uniformity` (log of the mean of exp(-2 d²) over pairs of
    queries) are those of Wang and Isola (ICML 2020); lower is better for both.
    """
    query, key = query.float(), key.float()
    pairs = torch.pdist(query).square() if len(query) > 1 else query.new_zeros(1)
    return {
        "spread": query.std(0).mean() * query.shape[1] ** 0.5,
        "alignment": (query - key).square().sum(1).mean(),
        "uniformity": (-2 * pairs).exp().mean().log(),
    }


@torch.no_grad()
def momentum_update(online: nn.Module, target: nn.Module, momentum: float) -> None:
    """Moves the target's parameters towards the online ones; buffers (BN statistics) are its own and stay."""
    for own, other in zip(target.parameters(), online.parameters(), strict=True):
        own.lerp_(other, 1 - momentum)
