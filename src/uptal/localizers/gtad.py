"""G-TAD, sub-graph localization: from the feature steps of a video or window to scored proposals in seconds.

Pooling is in `align`, labels in `gtad_targets`, losses in `targets`, Soft-NMS in `postprocess`, the reader of published
checkpoints in `gtad_weights`; naming the action is left to the class scores. Source: Xu et al., G-TAD, CVPR 2020, and
its public code, whose ActivityNet and THUMOS'14 branches are two forms of one network here; outputs are equal to both.
Letters: B videos, C feature width, T steps, D durations, V distinct anchors, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uptal.errors import ConfigError
from uptal.localizers.align import SGAlign, at_steps, neighbours
from uptal.localizers.bmn import peaks
from uptal.localizers.gtad_targets import LOSS_WEIGHTS, Form, labels
from uptal.localizers.samples import GROUPS, Sample, on_video, stack
from uptal.localizers.targets import BoundaryBatch, boundary_losses, draw_uniform
from uptal.postprocess import gaussian_soft_nms
from uptal.types import Detections


@dataclass(frozen=True, kw_only=True)
class GTADConfig:
    """Sizes and rules of a G-TAD. The defaults are the published ActivityNet model's; `thumos14` gives the other's."""

    in_channels: int
    """Feature width C, a multiple of 4. Public code: 400 (ActivityNet), 2048 (THUMOS'14)."""
    form: Form = "activitynet"
    """Which public code's labels, loss weights and candidates: those for whole videos or those for windows."""
    num_steps: int = 100
    """Steps T of a video or window. Public code: 100 and 256."""
    max_duration: int = 100
    """Longest proposal D in steps. Public code: 100 and 64."""
    inner: int = 32
    """Samples of a sub-graph's own features (G-TAD, Sec. 3.4). Public code: 32 and 16."""
    context: int = 4
    """Samples of its neighbours' features. Public code: 4 and 16."""
    inner_ratio: int = 0
    """Points averaged into a sample of the own features; 0: as many as it is long (public code, `goi_samp`)."""
    context_ratio: int = 0
    """The same for the neighbours' features. The ActivityNet code has 0 whatever `goi_samp` says."""
    style: int = 1
    """Whose features are the context (public code, `goi_style`): 0 nobody's, 1 the neighbours of the pooled features,
    2 the neighbours found in the first and in the last block."""
    kernel_2d: int = 1
    """Kernel of the convolutions over the map. Public code: 1 and 3."""
    hidden: tuple[int, int, int] = (256, 128, 512)
    """Width of the step convolutions, of the map convolutions, and behind the pooling (public code)."""
    groups: int = 32
    """Paths of a GCNeXt block (G-TAD, Sec. 3.3)."""
    group_width: int = 4
    """Channels of a path (public code)."""
    num_neighbours: int = 3
    """Edges of a step in feature space, the one to itself included (public code)."""
    safe: bool = True
    """Skip a term of the loss for which the batch holds no positive. The public code gives NaN there, as happens with
    small batches and with short actions; `False` reproduces it. On every other batch the two are equal."""
    soft_nms_sigma: float = 0.8
    """Width of the Gaussian decay. Public code: 0.8 and 0.46."""
    num_proposals: int = 100
    """Proposals kept for a video, and for each window. Public code: 100 and 200."""
    longest: int | None = None
    """Proposals of so many steps or more are dropped. The public code for THUMOS'14 does so at 60 of 64 (300 frames).
    It is a prior on durations, so state it with results."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_steps", "max_duration", "inner", "groups", "group_width", "num_proposals"):
            if getattr(self, name) < 1:
                raise ConfigError(f"GTADConfig.{name} must be at least 1, found {getattr(self, name)}.")
        for name in ("context", "inner_ratio", "context_ratio"):
            if getattr(self, name) < 0:
                raise ConfigError(f"GTADConfig.{name} must not be negative, found {getattr(self, name)}.")
        if not 1 <= self.num_neighbours <= self.num_steps:
            raise ConfigError(
                f"GTADConfig.num_neighbours must lie between 1 and num_steps {self.num_steps}, found "
                f"{self.num_neighbours}."
            )
        if self.style not in (0, 1, 2) or (self.style and not self.context):
            raise ConfigError(
                f"GTADConfig.style must be 0, 1 or 2, and 1 and 2 need context samples; found style {self.style} and "
                f"context {self.context}."
            )
        if self.max_duration > self.num_steps or self.kernel_2d % 2 == 0 or not self.soft_nms_sigma > 0:
            raise ConfigError(
                "GTADConfig needs max_duration <= num_steps, an odd kernel_2d and a positive soft_nms_sigma; found "
                f"{self.max_duration} and {self.num_steps}, {self.kernel_2d}, {self.soft_nms_sigma}."
            )
        for name, width in (("in_channels", self.in_channels), ("hidden[0]", self.hidden[0])):
            if width % GROUPS:
                raise ConfigError(f"GTADConfig.{name} must be a multiple of {GROUPS} (groups), not {width}.")

    @property
    def used_context(self) -> int:
        """Context samples that are there: none in style 0."""
        return self.context if self.style else 0


def thumos14(in_channels: int) -> GTADConfig:
    """The published model for THUMOS'14: windows of 256 steps."""
    return GTADConfig(
        in_channels=in_channels,
        form="thumos14",
        num_steps=256,
        max_duration=64,
        inner=16,
        context=16,
        kernel_2d=3,
        soft_nms_sigma=0.46,
        num_proposals=200,
        longest=60,
    )


class GCNeXt(nn.Module):
    """A block on the graph of steps (G-TAD, Sec. 3.3), whose edges join neighbours in time and in feature space."""

    def __init__(self, width: int, groups: int, group_width: int):
        super().__init__()
        inner = groups * group_width
        self.tconvs = nn.Sequential(
            nn.Conv1d(width, inner, 1),
            nn.ReLU(),
            nn.Conv1d(inner, inner, 3, padding=1, groups=groups),
            nn.ReLU(),
            nn.Conv1d(inner, width, 1),
        )
        self.sconvs = nn.Sequential(
            nn.Conv2d(2 * width, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1),
        )

    def forward(self, x: Float[Tensor, "B C T"], index: Int[Tensor, "B T K"]) -> Float[Tensor, "B C T"]:
        """`index` names the neighbours in feature space of every step of the input, as `align.neighbours` finds them.

        The first convolution sees a neighbour's features beside the step's own; it is applied to each of them once, and
        not to every pair.
        """
        of_neighbour, of_self = self.get_parameter("sconvs.0.weight").flatten(2).chunk(2, dim=1)
        pairs = at_steps(F.conv1d(x, of_neighbour), index)
        pairs = pairs + F.conv1d(x, of_self, self.get_parameter("sconvs.0.bias"))[..., None]
        return F.relu(self.tconvs(x) + x + self.sconvs[1:](pairs).max(dim=-1).values)


class GTAD(nn.Module):
    """The network (G-TAD, Sec. 3), its loss and its proposals. Parameters have the names of the public code."""

    valid: Bool[Tensor, "D T"]
    """Cells of the map that stand for a proposal: row k, column s for [s, s + k + 1)."""

    def __init__(self, cfg: GTADConfig):
        super().__init__()
        self.cfg = cfg
        width, cells, mixed = cfg.hidden

        def block() -> GCNeXt:
            return GCNeXt(width, cfg.groups, cfg.group_width)

        self.backbone1 = nn.Sequential(
            nn.Conv1d(cfg.in_channels, width, 3, padding=1, groups=GROUPS), nn.ReLU(), block()
        )
        self.regu_s = nn.Sequential(block(), nn.Conv1d(width, 1, 1), nn.Sigmoid())
        self.regu_e = nn.Sequential(block(), nn.Conv1d(width, 1, 1), nn.Sigmoid())
        self.backbone2 = nn.Sequential(block())
        self.goi_align = SGAlign(
            cfg.num_steps, cfg.max_duration, cfg.inner, cfg.used_context, cfg.inner_ratio, cfg.context_ratio
        )
        kernel, padding = cfg.kernel_2d, cfg.kernel_2d // 2
        self.localization = nn.Sequential(
            nn.Conv2d(width * (cfg.inner + cfg.used_context), mixed, 1),
            nn.ReLU(),
            nn.Conv2d(mixed, cells, 1),
            nn.ReLU(),
            nn.Conv2d(cells, cells, kernel, padding=padding),
            nn.ReLU(),
            nn.Conv2d(cells, cells, kernel, padding=padding),
            nn.ReLU(),
            nn.Conv2d(cells, 2, 1),
            nn.Sigmoid(),
        )
        rows, columns = torch.arange(cfg.max_duration)[:, None], torch.arange(cfg.num_steps)
        self.register_buffer("valid", rows + columns < cfg.num_steps, persistent=False)

    def forward(
        self, x: Float[Tensor, "B C T"]
    ) -> tuple[Float[Tensor, "B 2 D T"], Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Confidence map (channel 0 regresses the tIoU, channel 1 classifies it), start and end probabilities."""
        if x.shape[1:] != (self.cfg.in_channels, self.cfg.num_steps):
            raise ConfigError(
                f"This G-TAD takes features (B, {self.cfg.in_channels}, {self.cfg.num_steps}), found {tuple(x.shape)}: "
                "bring every video or window to that many steps, and use features of the encoder it was trained on."
            )
        stem = self.backbone1[:2](x)
        first = neighbours(stem, self.cfg.num_neighbours)
        base = self.backbone1[2](stem, first)
        second = neighbours(base, self.cfg.num_neighbours)
        start, end = (branch[1:](branch[0](base, second)).squeeze(1) for branch in (self.regu_s, self.regu_e))
        graph = self.backbone2[0](base, second)
        return self._map(graph, torch.cat((first, second), dim=2)), start, end

    def _map(self, graph: Float[Tensor, "B H T"], index: Int[Tensor, "B T K"]) -> Float[Tensor, "B 2 D T"]:
        """Sub-graph pooling and the convolutions over the map, at the distinct anchors as long as cells stay apart."""
        if self.cfg.style == 1:
            index = neighbours(graph, self.cfg.num_neighbours)
        around = at_steps(graph, index).mean(-1) if self.cfg.style else None
        weight, bias = (self.get_parameter(f"localization.0.{name}") for name in ("weight", "bias"))
        kernel = weight.flatten(1).unflatten(1, (graph.shape[1], -1))
        rows = (self.goi_align(graph, around, kernel) + bias).transpose(1, 2).unsqueeze(2)  # (B, O, 1, V)
        apart = len(self.localization) if self.cfg.kernel_2d == 1 else 4
        rows = self.localization[1:apart](rows).squeeze(2).transpose(1, 2)
        return self.localization[apart:](self.goi_align.spread(rows))

    def loss(self, batch: BoundaryBatch, generator: np.random.Generator | torch.Generator) -> dict[str, Tensor]:
        """The loss and its parts, `loss tem pem_reg pem_cls`; the generator draws which cells the regression counts."""
        uniform = draw_uniform(generator, batch.gt_map)
        confidence_map, start, end = (output.to(batch.gt_map.dtype) for output in self(batch.features))
        weights = LOSS_WEIGHTS[self.cfg.form]
        return boundary_losses(confidence_map, start, end, batch, self.valid, uniform, self.cfg.safe, weights)

    def collate(self, samples: Sequence[Sample]) -> BoundaryBatch:
        """Samples with their label maps."""
        cfg = self.cfg
        made = [labels(s.segments - s.start, s.span, cfg.num_steps, cfg.max_duration, cfg.form) for s in samples]
        maps, starts, ends = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
        return BoundaryBatch(features=stack(samples), gt_map=maps, gt_start=starts, gt_end=ends)

    @torch.no_grad()
    def localize(self, samples: Sequence[Sample]) -> list[Detections]:
        """Proposals of each sample in seconds of its video, best first, without labels.

        As in the public code, no proposal ends at the very end of a video or window, and the last candidate that
        Soft-NMS is left with is not returned.
        """
        features = stack(samples).to(self.get_parameter("localization.0.bias").device)
        maps, starts, ends = (output.float().cpu().numpy() for output in self(features))
        found = [proposals(*video, self.cfg) for video in zip(maps, starts, ends, strict=True)]
        return [
            on_video(sample, Detections(part.segments * sample.step, part.scores))
            for sample, part in zip(samples, found, strict=True)
        ]

    propose = localize

    def merge(self, samples: Sequence[Sample], parts: Sequence[Detections]) -> Detections:
        """Proposals of a video's windows as one list, thinned once more; on THUMOS'14 those of a single window, too."""
        if len(parts) == 1 and self.cfg.form == "activitynet":
            return parts[0]
        return suppress(Detections.joined(parts), replace(self.cfg, longest=None))


def candidates(
    confidence_map: Float[np.ndarray, "2 D T"],
    start: Float[np.ndarray, " T"],
    end: Float[np.ndarray, " T"],
    form: Form,
) -> Detections:
    """Every proposal that the form's rule lets through, ordered by start and then by duration, in steps.

    The score is the product of classification and regression. On ActivityNet a proposal must start and end at peaks of
    the two curves, which count for nothing else; on THUMOS'14 every pair of steps is a candidate. None ends at T.
    """
    _, max_duration, num_steps = confidence_map.shape
    first, last = np.nonzero(np.add.outer(np.arange(num_steps), np.arange(max_duration)) + 1 < num_steps)
    if form == "activitynet":
        keep = peaks(start, first=True)[first] & peaks(end, first=False)[first + last + 1]
        first, last = first[keep], last[keep]
    regression, classification = confidence_map[:, last, first]
    segments = np.stack((first, first + last + 1), axis=1).astype(np.float64)
    return Detections(segments, (classification * regression).astype(np.float64))


def suppress(found: Detections, cfg: GTADConfig) -> Detections:
    """Soft-NMS as the configuration has it; segments may be in any unit unless `longest` is set."""
    longest = None if cfg.longest is None else float(cfg.longest)
    return gaussian_soft_nms(found, sigma=cfg.soft_nms_sigma, max_output=cfg.num_proposals, longest=longest)


def proposals(
    confidence_map: Float[np.ndarray, "2 D T"],
    start: Float[np.ndarray, " T"],
    end: Float[np.ndarray, " T"],
    cfg: GTADConfig,
) -> Detections:
    """The proposals of one video or window in steps, best first: its candidates after Soft-NMS."""
    return suppress(candidates(confidence_map, start, end, cfg.form), cfg)
