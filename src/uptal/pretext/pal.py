"""Pseudo Action Localization, the paper's pretext task (Figure 2b), from a batch of videos to a loss.

    synthesise (T, Sec. 3.2.1) -> F = F^b, F^n, F^t (3.2.2) -> pool (G, 3.2.3) -> InfoNCE (3.2.4)

Every row of Tables 3, 4 and 5 is a setting of this file. MoCo-v2 on video (Table 3, #0) is the setting with one clip,
no paste and no temporal head. Letters: B samples, J clips, T frames, C H W picture, E encoder width, D embedding width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from uptal.distributed import gather, same_on_all, world
from uptal.errors import ConfigError
from uptal.pretext.batch import Batch, synthesise
from uptal.pretext.boundary import boundary_head, boundary_loss
from uptal.pretext.changes import as_changes, draw_changes
from uptal.pretext.contrast import Contrast, ContrastConfig, Hard, Queue, geometry, info_nce, momentum_update
from uptal.pretext.dense import dense_nce, region_clips
from uptal.pretext.norm import interleaved, split_batch_norm
from uptal.pretext.synthesis import Placement, inside, pool, region_rows
from uptal.progress import Progress


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """F^n and F^t between the clip encoder and the loss; both are dropped after pre-training."""

    hidden: int = 1024
    """Hidden width of F^n. The paper does not say; CoCLR's value."""
    width: int = 128
    """Output width of F^n. The paper does not say; CoCLR's value."""
    ft_layers: int = 2
    """Temporal convolutions of F^t (Sec. 4.1.1, Table 4)."""
    ft_width: int = 128
    """Channels of F^t. The paper does not say."""
    ft_kernel: int = 3
    """Kernel size of F^t in clips (Sec. 4.1.1)."""
    ft_last_relu: bool = True
    """ReLU also after the last temporal convolution: the literal reading of "followed by ReLU" (Sec. 4.1.1)."""
    ft_padding: Literal["zeros", "replicate"] = "zeros"
    """What lies beyond the ends of the clip sequence. The paper does not say."""
    order: Literal["projection_first", "temporal_first"] = "projection_first"
    """F^b, F^n, F^t as the paper composes them (Sec. 3.2.2), or F^t on encoder features and F^n on the region; there
    the unit length comes last whatever `l2` says."""
    l2: Literal["both", "before", "after"] = "both"
    """Unit length before pooling the region, after it, or both. The paper: "to the output features from F^t"; once more
    after pooling, because a mean of unit vectors is shorter than 1 and would change the temperature."""
    boundary: float = 0.0
    """Weight of a second loss: a small head on F^b is to say of every clip whether the region begins, ends or is there.
    0 leaves it out, as the paper does."""
    transfer: Literal["query", "key"] = "query"
    """Which encoder is kept. The paper does not say."""

    def __post_init__(self) -> None:
        if self.ft_layers < 0 or self.ft_kernel % 2 == 0 or min(self.hidden, self.width, self.ft_width) < 1:
            raise ConfigError(
                "head needs ft_layers >= 0, an odd ft_kernel and positive widths, found "
                f"ft_layers {self.ft_layers}, ft_kernel {self.ft_kernel}, hidden {self.hidden}, width {self.width}, "
                f"ft_width {self.ft_width}."
            )
        if self.boundary < 0:
            raise ConfigError(f"head.boundary is a weight of 0 or more, found {self.boundary}.")


class RegionEncoder(nn.Module):
    """F and G: clips of a synthetic video to the unit vector of its region."""

    def __init__(self, backbone: nn.Module, width: int, cfg: HeadConfig, local: bool = False):
        """`local` adds a projection of single clips, beside F^n and F^t."""
        super().__init__()
        self.cfg = cfg
        self.backbone = backbone
        first = cfg.order == "temporal_first"
        temporal_in = width if first else cfg.width
        temporal_out = cfg.ft_width if cfg.ft_layers else temporal_in
        self.projection = projection(temporal_out if first else width, cfg.hidden, cfg.width)
        self.temporal = temporal_head(temporal_in, cfg)
        self.width = cfg.width if first else temporal_out
        self.local = projection(width, cfg.hidden, cfg.width) if local else None
        self.boundary = boundary_head(width, cfg.ft_width) if cfg.boundary else None

    def forward(self, clips: Float[Tensor, "B J C T H W"], place: Placement) -> Float[Tensor, "B D"]:
        """Region features: of length 1, or, with `l2` "before", at most 1."""
        return self.region(self.clip_features(clips, place), place)

    def region(self, features: Float[Tensor, "B J E"], place: Placement) -> Float[Tensor, "B D"]:
        """F^n, F^t and G on the encoder's features."""
        return self._pooled(features, place, inside(place, features.shape[1]))

    def outside(self, features: Float[Tensor, "B J E"], place: Placement) -> Hard:
        """The same of the clips around the region."""
        where = ~inside(place, features.shape[1])
        return Hard(self._pooled(features, place, where), where.any(1))

    def single(self, features: Float[Tensor, "B J E"], place: Placement) -> Float[Tensor, "B R D"]:
        """Unit vectors of the region's single clips."""
        assert self.local is not None
        single = self.local(region_clips(features, place, place.blend.shape[1]))
        return F.normalize(single.float(), dim=-1)

    def boundaries(self, features: Float[Tensor, "B J E"]) -> Float[Tensor, "B 3 J"]:
        """Scores of every clip: the region begins, ends, is there."""
        assert self.boundary is not None
        return self.boundary(features.transpose(1, 2))

    def _pooled(
        self, features: Float[Tensor, "B J E"], place: Placement, where: Bool[Tensor, "B J"]
    ) -> Float[Tensor, "B D"]:
        if self.cfg.order == "temporal_first":
            return F.normalize(self.projection(pool(self.along_time(features, place), where)).float(), dim=-1)
        return self._normalised_pool(self.along_time(self.projection(features), place), where)

    def clip_features(self, clips: Float[Tensor, "B J C T H W"], place: Placement) -> Float[Tensor, "B J E"]:
        """F^b of every clip; where a region stands alone, of its clips only, and zeros beyond."""
        batch, count = clips.shape[:2]
        if not place.alone:
            frames = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last_3d)
            return self.backbone(frames).unflatten(0, (batch, count))
        sample, clip = region_rows(place, place.total)
        there = sample, place.start[sample] + clip
        some = self.backbone(clips[there].contiguous(memory_format=torch.channels_last_3d))
        features = some.new_zeros(batch, count, some.shape[1])
        features[there] = some
        return features

    def along_time(self, features: Float[Tensor, "B J E"], place: Placement | None = None) -> Float[Tensor, "B J D"]:
        """F^t over the sequence of clips; one that stands alone ends where it ends, for every layer."""
        x = features.transpose(1, 2)
        for layer in self.temporal:
            if place is not None and place.alone and isinstance(layer, nn.Conv1d):
                x = beyond_the_end(x, place, self.cfg.ft_padding)
            x = layer(x)
        return x.transpose(1, 2)

    def _normalised_pool(self, features: Float[Tensor, "B J D"], where: Bool[Tensor, "B J"]) -> Float[Tensor, "B D"]:
        """L2 and TempAvgPool, in float32."""
        features = features.float()
        if self.cfg.l2 in ("both", "before"):
            features = F.normalize(features, dim=-1)
        region = pool(features, where)
        return region if self.cfg.l2 == "before" else F.normalize(region, dim=-1)


@dataclass(frozen=True)
class _Compared:
    query: Float[Tensor, "B D"]
    key: Float[Tensor, "B D"]
    result: Contrast
    terms: dict[str, Tensor]
    """Further losses by name, without their weights."""


class PAL(nn.Module):
    """The pretext task: a trained encoder, its momentum copy, and a queue of keys."""

    def __init__(self, backbone: nn.Module, width: int, head: HeadConfig, contrast: ContrastConfig):
        super().__init__()
        self.head, self.contrast = head, contrast
        self.online = RegionEncoder(split_batch_norm(backbone, contrast.split_bn), width, head, contrast.dense > 0)
        self.momentum = copy.deepcopy(self.online).requires_grad_(False)
        self.queue = Queue(contrast.queue, self.online.width, random=contrast.unfilled == "random")
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """InfoNCE between the two views' regions; also accuracy, number of negatives, `geometry` and further terms.

        In training mode the keys are kept for `after_step`; in evaluation nothing is changed.
        """
        views = synthesise(batch)
        changed = None
        if self.contrast.changes:
            changed = draw_changes(self.contrast.changes, len(batch.ids), self.training)
            changed = changed.to(batch.ids.device, non_blocking=True)
        found = self._compared(batch, views, changed, 0)
        loss, accuracy, terms = found.result.loss, found.result.accuracy, found.terms
        if self.contrast.symmetric:
            back = self._compared(batch, views, changed, 1)
            loss, accuracy = (loss + back.result.loss) / 2, (accuracy + back.result.accuracy) / 2
            terms = {name: (value + back.terms[name]) / 2 for name, value in terms.items()}
        weights = {"dense": self.contrast.dense, "boundary": self.head.boundary}
        for name, value in terms.items():
            loss = loss + weights[name] * value
        if self.training:
            self._fresh.append((found.key, batch.ids))
        watched = {"negatives": found.result.num_negatives, **geometry(found.query.detach(), found.key)}
        return {"loss": loss, "accuracy": accuracy, **watched, **terms}

    def _compared(
        self,
        batch: Batch,
        views: Sequence[tuple[Tensor, Placement]],
        changed: Bool[Tensor, "2 B"] | None,
        view: int,
    ) -> _Compared:
        """One view as query, the other as key; `changed` says which are shown as changes."""
        (clips, place), (plain_key_clips, key_place) = views[view], views[1 - view]
        key_clips = plain_key_clips
        if changed is not None:
            clips, key_clips = as_changes(clips, changed[view]), as_changes(key_clips, changed[1 - view])
        counted = ~batch.looped if self.contrast.skip_looped else None
        features = self.online.clip_features(clips, place)
        query = self.online.region(features, place)
        terms: dict[str, Tensor] = {}
        if self.contrast.dense:
            with torch.no_grad():
                key_features = self.momentum.clip_features(key_clips, key_place)
                key = self.momentum.region(key_features, key_place)
                single = self.momentum.single(key_features, key_place)
            own = self.online.single(features, place)
            terms["dense"] = dense_nce(own, single, batch.span, batch.length, batch.ids, self.contrast.tau)
        else:
            key = self.key(key_clips, key_place)
        if self.head.boundary:
            terms["boundary"] = boundary_loss(self.online.boundaries(features), place, counted)
        hard = []
        if self.contrast.background:
            hard.append(background_key(batch, key, view))
        if self.contrast.own_outside:
            hard.append(self.online.outside(features, place))
        for how in self.contrast.motion:
            frames = plain_key_clips.unbind(3)
            spoilt = torch.stack([frames[at] for at in frame_order(how, len(frames))], 3)
            if changed is not None:
                spoilt = as_changes(spoilt, changed[1 - view])
            hard.append(Hard(self.key(spoilt, key_place), torch.ones_like(batch.looped)))
        videos = len(batch.names)
        others = range(videos, len(key), videos) if self.contrast.positives == "all" else ()
        further = [key.roll(-shift, 0) for shift in others]
        result = info_nce(query, key, batch.ids, self.queue, self.contrast, counted, hard, further)
        return _Compared(query, key, result, terms)

    @torch.no_grad()
    def key(self, clips: Float[Tensor, "B J C T H W"], place: Placement) -> Float[Tensor, "B D"]:
        """Region features of the momentum encoder; with `split_bn` and `shuffle_bn` in other company than queries."""
        if not self.training or not self.contrast.local_statistics:
            if self.contrast.key_batch is None:
                return self.momentum(clips, place)
            parts = torch.arange(len(clips), device=clips.device).split(self.contrast.key_batch)
            return torch.cat([self.momentum(clips[part], place.reordered(part)) for part in parts])
        if self.contrast.shuffle_bn:
            return self._shuffled_key(clips, place)
        order = interleaved(len(clips), self.contrast.split_bn).to(clips.device, non_blocking=True)
        return self.momentum(clips[order], place.reordered(order))[order.argsort()]

    def _shuffled_key(self, clips: Float[Tensor, "B J C T H W"], place: Placement) -> Float[Tensor, "B D"]:
        """Keys of this process's samples, each encoded by whichever process a random order gives it to."""
        here = len(clips)
        order = same_on_all(torch.randperm(here * world().size).to(clips.device, non_blocking=True))
        own = slice(here * world().rank, here * (world().rank + 1))
        everywhere = Placement(gather(place.start), gather(place.length), gather(place.blend), place.alone)
        keys = gather(self.momentum(gather(clips)[order[own]], everywhere.reordered(order[own])))
        return keys[order.argsort()[own]]

    @torch.no_grad()
    def fill_queue(self, batches: Iterable[Batch], device: torch.device) -> None:
        """Fills the queue with keys of the untrained momentum encoder, before the first step (`unfilled` warm_up)."""
        self.train()
        with Progress("filling the queue", len(self.queue.keys), enabled=world().rank == 0) as progress:
            for batch in batches:
                _, (clips, place) = synthesise(batch.to(device))
                self.queue.push(gather(self.key(clips, place)), gather(batch.ids.to(device)))
                progress.update(int(self.queue.filled))
                if int(self.queue.filled) == len(self.queue.keys):
                    return

    def after_step(self) -> None:
        """Moves the momentum encoder and enqueues the keys of the step, gathered over processes in rank order."""
        momentum_update(self.online, self.momentum, self.contrast.momentum)
        for keys, ids in self._fresh:
            self.queue.push(gather(keys), gather(ids))
        self._fresh.clear()

    def encoder(self) -> nn.Module:
        """F^b, the part that is kept."""
        return (self.online if self.head.transfer == "query" else self.momentum).backbone


def frame_order(how: Literal["still", "reversed", "shuffled"], frames: int) -> list[int]:
    """Which frame of a clip stands where, for one kind of spoilt motion; none of them moves as the clip itself does.

    >>> frame_order("still", 4), frame_order("reversed", 4)
    ([2, 2, 2, 2], [3, 2, 1, 0])
    """
    if how == "still":
        return [frames // 2] * frames
    order = list(range(frames))
    if how == "reversed":
        return order[::-1]
    while order == list(range(frames)) or order == list(range(frames))[::-1]:
        order = torch.randperm(frames).tolist()
    return order


def background_key(batch: Batch, key: Float[Tensor, "B D"], view: int) -> Hard:
    """The keys of the videos that the view's regions were pasted onto; a region in its own video has none."""
    assert batch.lender is not None
    lender = batch.lender[view]
    return Hard(key[lender], batch.ids[lender] != batch.ids)


def beyond_the_end(
    sequence: Float[Tensor, "B E J"], place: Placement, padding: Literal["zeros", "replicate"]
) -> Float[Tensor, "B E J"]:
    """The sequence with what a convolution is to see beyond the last clip of each region: zeros, or that clip again."""
    if padding == "zeros":
        return sequence * inside(place, sequence.shape[2])[:, None]
    slot = torch.arange(sequence.shape[2], device=sequence.device)
    last = torch.minimum(slot, (place.start + place.length - 1)[:, None])
    return sequence.gather(2, last[:, None].expand_as(sequence))


def projection(width: int, hidden: int, out: int) -> nn.Sequential:
    """F^n: a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def temporal_head(width: int, cfg: HeadConfig) -> nn.Sequential:
    """F^t: temporal convolutions, each followed by ReLU; no layers make it the identity (Table 4, first row)."""
    layers: list[nn.Module] = []
    for layer in range(cfg.ft_layers):
        channels = width if layer == 0 else cfg.ft_width
        layers.append(
            nn.Conv1d(channels, cfg.ft_width, cfg.ft_kernel, padding=cfg.ft_kernel // 2, padding_mode=cfg.ft_padding)
        )
        if cfg.ft_last_relu or layer + 1 < cfg.ft_layers:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
