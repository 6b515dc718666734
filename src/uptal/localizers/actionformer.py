"""ActionFormer: every step of a pyramid over the video says what happens there and how far it reaches either way.

Unlike BMN it tells classes apart itself and takes videos of any length as they are, at a cost linear in that length.
Its layers are in `actionformer_layers`, what its points learn in `actionformer_targets`, Soft-NMS and voting in
`postprocess`. Source: Zhang, Wu, Li, ActionFormer, ECCV 2022, and the settings of its public code. All operations here
heed the mask, so that a video's output does not depend on what it is padded to.
Letters: B videos, C feature width, D network width, T steps of a level, P points of all levels, K classes, N blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from uptal.errors import ConfigError
from uptal.localizers.actionformer_layers import Block, ConvNorm, Head, in_a_row, positions, without_gaps
from uptal.localizers.actionformer_targets import (
    PointBatch,
    Points,
    collate,
    crop,
    label_points,
    pad,
    point_losses,
    pyramid_points,
)
from uptal.localizers.samples import Sample
from uptal.postprocess import gaussian_soft_nms, vote
from uptal.types import Detections

__all__ = ["ActionFormer", "ActionFormerConfig"]


@dataclass(frozen=True, kw_only=True)
class ActionFormerConfig:
    """Sizes and rules of an ActionFormer. The defaults are the published THUMOS'14 model's."""

    in_channels: int
    """Feature width C, any. Public code: 2048 (I3D, two streams)."""
    num_steps: int = 2304
    """Longest stretch of a video that a training step sees, a random one in every step (`max_seq_len` of the public
    code); with `cut.mode` resample or windows the steps of a sample. Whole videos are localized at any length."""
    width: int = 512
    """Width D of pyramid and heads, a multiple of `num_heads` (public code)."""
    num_heads: int = 4
    """Attention heads (public code)."""
    num_levels: int = 6
    """Levels of the pyramid, each half as long as the one before; one level sees actions of about `reach` times twice
    that of the one before (paper)."""
    num_stem: int = 2
    """Transformer blocks before the first halving (public code)."""
    window: int = 19
    """Steps that a step attends to, itself in the middle, so an odd number; 0 for all of them (public code: 19)."""
    last_window: int | None = None
    """The same for the last level, where it differs: 0 in the public code for ActivityNet."""
    position: bool = False
    """Add sinusoidal positions to the embedded features. The public code does so for ActivityNet alone."""
    drop_path: float = 0.1
    """Share of residual branches that a training step leaves out (public code)."""
    reach: float = 4.0
    """Steps to the farther end of an action up to which the first level is in charge; doubled with every level, without
    a bound at the last (paper; public code)."""
    radius: float = 1.5
    """Only points within so many steps of their level from an action's centre learn it (paper)."""
    label_smoothing: float = 0.0
    """Softens the class targets; 0.1 in the public code for ActivityNet."""
    regression_weight: float = 1.0
    """Weight of the regression loss (1 in the paper, 2 in the public code for ActivityNet)."""
    loss_norm: float = 100.0
    """Positive points that the first steps' losses are divided by; then a running mean (public code)."""
    loss_momentum: float = 0.9
    """Momentum of that running mean (public code)."""
    crop: float = 0.9
    """A training step sees a random stretch of at least this share of a video, as augmentation; 1 for all of it
    (public code)."""
    class_agnostic: bool = False
    """Find actions of any class and leave their names to the class scores, as published ActivityNet results do."""
    pre_nms_threshold: float = 0.001
    """Score below which a candidate is not considered (public code)."""
    pre_nms_top: int = 2000
    """Candidates of a video that Soft-NMS sees (public code)."""
    min_duration: float = 0.05
    """Steps below which a candidate is not considered (public code)."""
    nms_sigma: float = 0.5
    """Width of Soft-NMS's Gaussian decay (public code)."""
    min_score: float = 0.001
    """Score after Soft-NMS below which a detection is dropped (public code)."""
    voting: float = 0.7
    """A detection's ends become the mean over all candidates of at least this tIoU with it; 1 switches it off (public
    code)."""
    num_detections: int = 200
    """Detections kept for a video (public code)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_steps", "width", "num_heads", "num_levels", "pre_nms_top", "num_detections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ActionFormerConfig.{name} must be at least 1, found {getattr(self, name)}.")
        for name in ("drop_path", "label_smoothing", "loss_momentum", "pre_nms_threshold", "voting"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"ActionFormerConfig.{name} is a share from 0 to 1, found {getattr(self, name)}.")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"ActionFormerConfig.crop is a share above 0, 1 for the whole video; found {self.crop}.")
        if self.drop_path == 1:
            raise ConfigError("ActionFormerConfig.drop_path must be below 1: some branch has to learn.")
        if self.width % self.num_heads or self.width % 2:
            raise ConfigError(
                f"ActionFormerConfig.width {self.width} must be even and divide into {self.num_heads} heads."
            )
        for name in ("window", "last_window"):
            size = getattr(self, name)
            if size and (size < 0 or size % 2 == 0):
                raise ConfigError(
                    f"ActionFormerConfig.{name} must be odd (a step and its neighbours) or 0, found {size}."
                )

    @property
    def levels(self) -> tuple[tuple[int, float, float], ...]:
        """Stride of each level, and the distances (above, up to) in steps that it is in charge of."""
        count = self.num_levels
        bounds = [0.0, *(self.reach * 2**level for level in range(count - 1)), math.inf]
        return tuple((2**level, bounds[level], bounds[level + 1]) for level in range(count))


class ActionFormer(nn.Module):
    """The network, its loss and its detections."""

    loss_norm: Float[Tensor, ""]
    """Running mean of positive points in a batch."""

    def __init__(self, cfg: ActionFormerConfig, labels: Sequence[str]):
        """`labels` are the classes, in the order of the outputs."""
        super().__init__()
        self.cfg = cfg
        self.labels = ("action",) if cfg.class_agnostic or not labels else tuple(labels)
        self.embed = nn.ModuleList(ConvNorm(inner, cfg.width) for inner in (cfg.in_channels, cfg.width))
        windows = [cfg.window] * (cfg.num_stem + cfg.num_levels - 1)
        if windows and cfg.last_window is not None:
            windows[-1] = cfg.last_window
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.num_heads, window, 1 if i < cfg.num_stem else 2) for i, window in enumerate(windows)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.width) for _ in range(cfg.num_levels))
        self.classify = Head(cfg.width, len(self.labels), bias=math.log(0.01 / 0.99))  # few points are positive
        self.regress = Head(cfg.width, 2)
        self.scales = nn.Parameter(torch.ones(cfg.num_levels))
        self.register_buffer("loss_norm", torch.tensor(cfg.loss_norm))

    def forward(
        self, x: Float[Tensor, "B C T"], mask: Bool[Tensor, "B T"], keep: Float[Tensor, "N 2 B"] | None = None
    ) -> tuple[Float[Tensor, "B P K"], Float[Tensor, "B P 2"], Bool[Tensor, "B P"]]:
        """Class logits, distances to start and end in steps of the point's level, and which points exist.

        Args:
            x: Features.
            mask: Which steps hold features; they come first.
            keep: Factor of every residual branch of the N blocks for every video; 1 if left out.
        """
        if x.shape[1] != self.cfg.in_channels:
            raise ConfigError(
                f"This ActionFormer takes features (B, {self.cfg.in_channels}, T), found {tuple(x.shape)}: use "
                "those of the encoder that it was trained on."
            )
        levels, masks = self._pyramid(x.mT, mask, keep)
        lengths = [level.shape[1] for level in levels]
        row, exists = in_a_row(levels), in_a_row(masks)
        scales = self.scales.repeat_interleave(torch.tensor(lengths, device=x.device))[:, None]
        offsets = F.relu(without_gaps(self.regress(row, exists), lengths) * scales)
        return without_gaps(self.classify(row, exists), lengths), offsets, torch.cat(masks, 1)

    def _pyramid(
        self, x: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"], keep: Float[Tensor, "N 2 B"] | None
    ) -> tuple[list[Float[Tensor, "B _ D"]], list[Bool[Tensor, "B _"]]]:
        """Normed features of every level (FPN: identity) and their masks."""
        x = x * mask[..., None]
        for layer in self.embed:
            x = layer(x, mask)
        if self.cfg.position:
            x = (x + positions(x)) * mask[..., None]
        levels, masks = ([x], [mask]) if self.cfg.num_stem == 0 else ([], [])
        for number, block in enumerate(self.blocks):
            x, mask = block(x, mask, None if keep is None else keep[number])
            if number >= self.cfg.num_stem - 1:
                levels, masks = [*levels, x], [*masks, mask]
        return [norm(x) * mask[..., None] for norm, x, mask in zip(self.norms, levels, masks, strict=True)], masks

    def points(self, num_steps: int) -> Points:
        """The points of a padded batch of so many steps, in the order of the network's output."""
        return pyramid_points(num_steps, self.cfg.levels, self.get_parameter("scales").device)

    def collate(self, samples: Sequence[Sample]) -> PointBatch:
        """Samples with their instances.

        Raises:
            AnnotationError: An instance is of a class that the network does not know.
        """
        return collate(samples, None if self.cfg.class_agnostic else self.labels)

    def loss(self, batch: PointBatch, generator: np.random.Generator) -> dict[str, Tensor]:
        """The loss and its parts, `loss cls reg`; the generator draws crops and the residual branches left out."""
        cfg = self.cfg
        if self.training:
            batch = crop(batch, cfg.num_steps, cfg.crop, generator)
        logits, offsets, exists = self(batch.features, batch.mask, self._kept_branches(batch, generator))
        points = self.points(batch.mask.shape[1])
        targets = label_points(points, batch.segments, batch.labels, len(self.labels), cfg.radius)
        cls, reg, num_positive = point_losses(logits.float(), offsets.float(), exists, *targets, cfg.label_smoothing)
        if self.training:
            self.loss_norm.lerp_(num_positive.clamp(min=1), 1 - cfg.loss_momentum)
        cls, reg = cls / self.loss_norm.clamp(min=1), reg / self.loss_norm.clamp(min=1)
        return {"loss": cls + cfg.regression_weight * reg, "cls": cls, "reg": reg}

    def _kept_branches(self, batch: PointBatch, generator: np.random.Generator) -> Float[Tensor, "N 2 B"] | None:
        """Drop path: 0 for a branch left out, else what keeps its mean as it was."""
        rate = self.cfg.drop_path
        if not self.training or rate == 0:
            return None
        drawn = generator.random((len(self.blocks), 2, len(batch.features))) >= rate
        return torch.from_numpy(drawn).to(batch.features) / (1 - rate)

    def localize(self, samples: Sequence[Sample]) -> list[Detections]:
        """Detections of each sample in seconds of its video, best first."""
        return self._find(samples, None if self.cfg.class_agnostic else self.labels)

    def propose(self, samples: Sequence[Sample]) -> list[Detections]:
        """Segments without classes: every point has the score of its likeliest class. The public code has none."""
        return self._find(samples, None)

    @torch.no_grad()
    def _find(self, samples: Sequence[Sample], labels: Sequence[str] | None) -> list[Detections]:
        x, mask = pad(samples)
        device = self.get_parameter("scales").device
        logits, offsets, exists = self(x.to(device), mask.to(device))
        points = self.points(x.shape[2])
        scores = logits.float().sigmoid() * exists[..., None]
        if labels is None:
            scores = scores.amax(dim=2, keepdim=True)
        segments = points.segments(offsets.float())
        found = [self._thin(self._candidates(*video, labels)) for video in zip(scores, segments, strict=True)]
        return [
            Detections(sample.seconds(part.segments), part.scores, part.labels)
            for sample, part in zip(samples, found, strict=True)
        ]

    def merge(self, samples: Sequence[Sample], parts: Sequence[Detections]) -> Detections:
        """Detections of a video's windows as one list, thinned once more. The public code has no windows."""
        if len(parts) == 1:
            return parts[0]
        return self._thin(Detections.joined(parts))

    def _candidates(
        self, scores: Float[Tensor, "P K"], segments: Float[Tensor, "P 2"], labels: Sequence[str] | None
    ) -> Detections:
        """Every (point, class) that is worth a look, in steps of the sample; without names if there are no labels."""
        long = segments[:, 1] - segments[:, 0] > self.cfg.min_duration
        flat = (scores * long[:, None]).flatten()
        best, place = flat.topk(min(self.cfg.pre_nms_top, len(flat)))
        place, best = place[best > self.cfg.pre_nms_threshold], best[best > self.cfg.pre_nms_threshold]
        point, label = place // scores.shape[1], (place % scores.shape[1]).tolist()
        names = None if labels is None else tuple(labels[int(k)] for k in label)
        return Detections(segments[point].double().cpu().numpy(), best.double().cpu().numpy(), names)

    def _thin(self, candidates: Detections) -> Detections:
        """Soft-NMS within each class, then the ends by vote."""
        cfg = self.cfg
        kept = gaussian_soft_nms(candidates, sigma=cfg.nms_sigma, max_output=cfg.num_detections, keep_last=True)
        kept = kept.top(int((kept.scores >= cfg.min_score).sum()))
        return vote(kept, candidates, threshold=cfg.voting)
