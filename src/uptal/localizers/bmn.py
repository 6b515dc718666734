"""BMN, the boundary-matching network: from the feature steps of a video to scored proposals in seconds.

Labels and losses are in `targets`, the pooling in `layers`, Soft-NMS in `postprocess`, the reader of published
checkpoints in `bmn_weights`; naming the action is left to the class scores. Source: Lin et al., BMN, ICCV 2019, and its
public PyTorch code of June 2020, whose outputs this network reproduces. That code trains with Adam, learning rate 1e-3
(1e-4 after 7 of 9 epochs), weight decay 1e-4, batches of 16, and keeps the last epoch.
Letters: B videos, C feature width, T steps, N samples a proposal, V valid cells of the map, M proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from uptal.errors import ConfigError
from uptal.localizers.grid_nms import GridSoftNMS
from uptal.localizers.layers import BoundaryMatching, Layout, map_cells
from uptal.localizers.samples import GROUPS, Sample, on_video, stack
from uptal.localizers.targets import BoundaryBatch, boundary_losses, draw_uniform, labels
from uptal.postprocess import soft_nms
from uptal.types import Detections

__all__ = ["BMN", "BMNConfig", "BoundaryBatch", "candidates", "labels", "proposals"]


@dataclass(frozen=True, kw_only=True)
class BMNConfig:
    """Sizes and rules of a BMN. The defaults are the published ActivityNet model's."""

    in_channels: int
    """Feature width C, a multiple of 4. Public code: 400."""
    num_steps: int = 100
    """Steps T to which every video is resampled (BMN, Sec. 4.1)."""
    num_samples: int = 32
    """Samples N taken of every proposal (BMN, Sec. 3.3)."""
    num_points: int = 3
    """Points averaged into one sample; `num_sample_perbin` of the public code. The paper does not say."""
    hidden: tuple[int, int, int] = (256, 128, 512)
    """Width of the step convolutions, of the map convolutions, and behind the boundary-matching layer (public code;
    the paper's first is 128)."""
    prop_boundary_ratio: float = 0.5
    """Share of a proposal's length that is sampled beyond either end (public code)."""
    layout: Layout = "start_end"
    """Axes of the map. `duration_start` is the paper's and that of checkpoints from 2019; weights do not carry over."""
    safe: bool = True
    """Skip a term of the loss for which the batch holds no positive. The public code gives NaN there, as happens with
    small batches and with short actions; `False` reproduces it. On every other batch the two are equal."""
    candidate_rule: Literal["all", "peaks"] = "all"
    """Which pairs of boundaries become proposals: `all` of them (public code of 2020), or those where both are `peaks`,
    a local maximum or above half the largest value (BMN, Sec. 3.6, and the code of 2019)."""
    score: Literal["all", "map"] = "all"
    """What the score of a proposal multiplies: `all` four probabilities (public code, and for recall OpenTAD), or those
    of the `map` alone (OpenTAD's detection recipe)."""
    soft_nms_alpha: float = 0.4
    """Width of the Gaussian decay (public code)."""
    soft_nms_low: float = 0.5
    """tIoU above which a proposal of length zero decays its neighbours (public code)."""
    soft_nms_high: float = 0.9
    """tIoU above which a proposal as long as the video decays its neighbours (public code)."""
    num_proposals: int = 100
    """Proposals kept for a video (BMN, Sec. 4.2)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_steps", "num_samples", "num_points", "num_proposals"):
            if getattr(self, name) < 1:
                raise ConfigError(f"BMNConfig.{name} must be at least 1, found {getattr(self, name)}.")
        if self.num_samples * self.num_points < 2:
            raise ConfigError("BMNConfig needs num_samples * num_points >= 2: both ends of a proposal are sampled.")
        if self.prop_boundary_ratio < 0:
            raise ConfigError(f"BMNConfig.prop_boundary_ratio must not be negative, found {self.prop_boundary_ratio}.")
        for name, width in (("in_channels", self.in_channels), ("hidden[0]", self.hidden[0])):
            if width % GROUPS:
                raise ConfigError(
                    f"BMNConfig.{name} must be a multiple of {GROUPS} (grouped convolution), not {width}."
                )


class BMN(nn.Module):
    """The network (BMN, Sec. 3.4), its loss and its proposals. Parameters have the names of the public code."""

    valid: Bool[Tensor, "T T"]
    """Cells of the map that stand for a proposal."""

    def __init__(self, cfg: BMNConfig):
        super().__init__()
        self.cfg = cfg
        steps, cells, mixed = cfg.hidden
        self.x_1d_b = nn.Sequential(
            nn.Conv1d(cfg.in_channels, steps, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv1d(steps, steps, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
        )
        self.x_1d_s = _boundary_branch(steps)
        self.x_1d_e = _boundary_branch(steps)
        self.x_1d_p = nn.Sequential(nn.Conv1d(steps, steps, 3, padding=1), nn.ReLU())
        self.x_3d_p = nn.Sequential(nn.Conv3d(steps, mixed, (cfg.num_samples, 1, 1)), nn.ReLU())
        self.x_2d_p = nn.Sequential(
            nn.Conv2d(mixed, cells, 1),
            nn.ReLU(),
            nn.Conv2d(cells, cells, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(cells, cells, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(cells, 2, 1),
            nn.Sigmoid(),
        )
        self.matching = BoundaryMatching(
            cfg.num_steps, cfg.num_samples, cfg.num_points, cfg.prop_boundary_ratio, cfg.layout
        )
        valid = torch.zeros(cfg.num_steps**2, dtype=torch.bool).index_fill(0, self.matching.flat_index, True)
        self.register_buffer("valid", valid.unflatten(0, (cfg.num_steps, cfg.num_steps)), persistent=False)

    def forward(
        self, x: Float[Tensor, "B C T"]
    ) -> tuple[Float[Tensor, "B 2 T T"], Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Confidence map (channel 0 regresses the tIoU, channel 1 classifies it), start and end probabilities."""
        if x.shape[1:] != (self.cfg.in_channels, self.cfg.num_steps):
            raise ConfigError(
                f"This BMN takes features (B, {self.cfg.in_channels}, {self.cfg.num_steps}), found {tuple(x.shape)}: "
                "resample every video to that many steps, and use features of the encoder it was trained on."
            )
        base = self.x_1d_b(x)
        confidence_map = self.x_2d_p[2:](self._first_map(self.x_1d_p(base)))
        return confidence_map, self.x_1d_s(base).squeeze(1), self.x_1d_e(base).squeeze(1)

    def _first_map(self, x: Float[Tensor, "B H T"]) -> Float[Tensor, "B W T T"]:
        """Boundary matching, `x_3d_p` and the 1x1 layer of `x_2d_p`, computed where there is a proposal.

        The other cells see no feature, so they all hold one vector made of biases, which their neighbours do see.
        """
        mix_bias, first_bias = self.get_parameter("x_3d_p.0.bias"), self.get_parameter("x_2d_p.0.bias")
        first_kernel = self.get_parameter("x_2d_p.0.weight").flatten(1)
        pooled = F.relu(self.matching(x, self.get_parameter("x_3d_p.0.weight").flatten(2)) + mix_bias)
        cells = F.relu(F.linear(pooled, first_kernel, first_bias))
        elsewhere = F.relu(F.linear(F.relu(mix_bias), first_kernel, first_bias))
        full = elsewhere.expand(len(x), self.cfg.num_steps**2, -1).index_copy(1, self.matching.flat_index, cells)
        return full.transpose(1, 2).unflatten(2, (self.cfg.num_steps, self.cfg.num_steps))

    def loss(self, batch: BoundaryBatch, generator: np.random.Generator | torch.Generator) -> dict[str, Tensor]:
        """The loss and its parts, `loss tem pem_reg pem_cls`; the generator draws which cells the regression counts."""
        uniform = draw_uniform(generator, batch.gt_map)
        confidence_map, start, end = (output.to(batch.gt_map.dtype) for output in self(batch.features))
        return boundary_losses(confidence_map, start, end, batch, self.valid, uniform, self.cfg.safe)

    @torch.no_grad()
    def predict(self, features: Float[Tensor, "B C T"], durations: Float[Tensor, " B"]) -> list[Detections]:
        """The best proposals of every video in seconds, best first, without labels (BMN, Sec. 3.6).

        `durations` are the seconds that the T steps of each video cover. As in the public code, no proposal ends at
        the very end of a video, and the last candidate that Soft-NMS is left with is not returned.
        """
        maps, starts, ends = (output.float().cpu().numpy() for output in self(features))
        seconds, cfg = durations.tolist(), self.cfg
        if cfg.candidate_rule != "all" or not len(maps):
            return [proposals(*video, cfg) for video in zip(maps, starts, ends, seconds, strict=True)]
        every = [candidates(*video, "all", cfg.layout, cfg.score) for video in zip(maps, starts, ends, strict=True)]
        suppress = shared_soft_nms(cfg.num_steps, cfg.layout, cfg.soft_nms_alpha, cfg.soft_nms_low, cfg.soft_nms_high)
        found = suppress(np.stack([part.scores for part in every]), cfg.num_proposals)
        return [Detections(part.segments * second, part.scores) for part, second in zip(found, seconds, strict=True)]

    def collate(self, samples: Sequence[Sample]) -> BoundaryBatch:
        """Samples with their label maps."""
        made = [labels(s.segments - s.start, s.span, self.cfg.num_steps, self.cfg.layout) for s in samples]
        maps, starts, ends = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        return BoundaryBatch(features=stack(samples), gt_map=maps, gt_start=starts, gt_end=ends)

    def localize(self, samples: Sequence[Sample]) -> list[Detections]:
        """Proposals of each sample in seconds of its video."""
        features = stack(samples).to(self.get_parameter("x_2d_p.0.bias").device)
        found = self.predict(features, torch.tensor([sample.span for sample in samples], dtype=torch.float64))
        return [on_video(sample, part) for sample, part in zip(samples, found, strict=True)]

    propose = localize

    def merge(self, samples: Sequence[Sample], parts: Sequence[Detections]) -> Detections:
        """Proposals of a video's windows as one list, thinned once more. The public code has no windows."""
        if len(parts) == 1:
            return parts[0]
        cfg = self.cfg
        return soft_nms(
            Detections.joined(parts),
            duration=samples[0].span,
            alpha=cfg.soft_nms_alpha,
            low=cfg.soft_nms_low,
            high=cfg.soft_nms_high,
            max_output=cfg.num_proposals,
        )


def _boundary_branch(width: int) -> nn.Sequential:
    """Probability of a boundary at every step."""
    return nn.Sequential(
        nn.Conv1d(width, width, 3, padding=1, groups=GROUPS), nn.ReLU(), nn.Conv1d(width, 1, 1), nn.Sigmoid()
    )


def candidates(
    confidence_map: Float[np.ndarray, "2 T T"],
    start: Float[np.ndarray, " T"],
    end: Float[np.ndarray, " T"],
    rule: Literal["all", "peaks"] = "all",
    layout: Layout = "start_end",
    score: Literal["all", "map"] = "all",
) -> Detections:
    """Every proposal that the rule lets through, ordered by start and then by end, in fractions of the video.

    The score is the product of start, end, classification and regression probability (public code; the paper takes the
    root of the last two), or of the latter two. The end probability is read at the step after the proposal, so that
    none ends at 1.
    """
    num_steps = len(start)
    cells = map_cells(num_steps, layout)
    keep = cells.end < num_steps
    if rule == "peaks":
        keep[keep] = peaks(start, first=True)[cells.start[keep]] & peaks(end, first=False)[cells.end[keep]]
    row, column, low, high = (part[keep] for part in (cells.row, cells.column, cells.start, cells.end))
    regression, classification = confidence_map[:, row, column]
    bounds = start[low] * end[high] if score == "all" else 1
    scores = bounds * classification * regression
    return Detections(np.stack((low, high), axis=1) / num_steps, scores.astype(np.float64))


@lru_cache(maxsize=4)
def shared_soft_nms(num_steps: int, layout: Layout, alpha: float, low: float, high: float) -> GridSoftNMS:
    """Soft-NMS over all candidates of a map, kept from batch to batch."""
    cells = map_cells(num_steps, layout)
    keep = cells.end < num_steps
    segments = np.stack((cells.start[keep], cells.end[keep]), axis=1) / num_steps
    return GridSoftNMS(segments, alpha=alpha, low=low, high=high)


def proposals(
    confidence_map: Float[np.ndarray, "2 T T"],
    start: Float[np.ndarray, " T"],
    end: Float[np.ndarray, " T"],
    duration: float,
    cfg: BMNConfig,
) -> Detections:
    """The proposals of one video in seconds, best first: its candidates after Soft-NMS."""
    found = soft_nms(
        candidates(confidence_map, start, end, cfg.candidate_rule, cfg.layout, cfg.score),
        alpha=cfg.soft_nms_alpha,
        low=cfg.soft_nms_low,
        high=cfg.soft_nms_high,
        max_output=cfg.num_proposals,
    )
    return Detections(found.segments * duration, found.scores)


def peaks(curve: Float[np.ndarray, " T"], first: bool) -> Bool[np.ndarray, " T"]:
    """Steps that are a strict local maximum or above half the largest value; and always the first (or the last) one."""
    found = np.zeros(len(curve), bool)
    inner = curve[1:-1]
    found[1:-1] = ((inner > curve[:-2]) & (inner > curve[2:])) | (inner > 0.5 * curve.max())
    found[0 if first else -1] = True
    return found
