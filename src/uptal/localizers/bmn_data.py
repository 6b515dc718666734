"""Videos of a feature store with their labels, as the training loop wants them for a BMN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from uptal.features import FeatureStore, resample
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.targets import BoundaryBatch, labels
from uptal.types import Video


@dataclass(frozen=True)
class LabelledBatch:
    """Labelled videos of one step, and the seed of the step's random draws."""

    boundary: BoundaryBatch
    names: tuple[str, ...]
    position: int
    seed: tuple[int, ...]

    def to(self, device: torch.device) -> LabelledBatch:
        """The batch with its tensors on `device`."""
        return LabelledBatch(self.boundary.to(device), self.names, self.position, self.seed)


class BMNData:
    """All videos in memory (a video is T x D numbers), in an order that depends on (seed, epoch) alone."""

    def __init__(self, store: FeatureStore, videos: Sequence[Video], cfg: BMNConfig, batch: int, seed: int):
        self.names = tuple(video.id for video in videos)
        self.batch, self.seed = batch, seed
        features, maps, starts, ends = [], [], [], []
        for video in videos:
            read = store.read(video.id)
            segments = np.array([[s.start, s.end] for s in video.segments], np.float64).reshape(-1, 2)
            gt_map, gt_start, gt_end = labels(segments, read.duration, cfg.num_steps, cfg.layout)
            features.append(resample(read, cfg.num_steps))
            maps.append(torch.from_numpy(gt_map))
            starts.append(torch.from_numpy(gt_start))
            ends.append(torch.from_numpy(gt_end))
        self.all = BoundaryBatch(
            features=torch.stack(features),
            gt_map=torch.stack(maps),
            gt_start=torch.stack(starts),
            gt_end=torch.stack(ends),
        )

    @property
    def steps_per_epoch(self) -> int:
        """The incomplete last batch counts, as in the public code."""
        return -(-len(self.names) // self.batch)

    def batches(self, epoch: int, position: int = 0) -> Iterator[LabelledBatch]:
        """The epoch's batches after `position` videos."""
        order = np.random.default_rng([self.seed, 5, epoch]).permutation(len(self.names))
        for begin in range(position, len(order), self.batch):
            pick = order[begin : begin + self.batch]
            part = BoundaryBatch(**{name: value[torch.from_numpy(pick)] for name, value in vars(self.all).items()})
            names = tuple(self.names[i] for i in pick)
            yield LabelledBatch(part, names, begin + len(pick), (self.seed, 6, epoch, begin))

    def validation_batches(self) -> Iterator[LabelledBatch]:
        """None: the last epoch is kept, as in the public code."""
        return iter(())


class BMNTask(nn.Module):
    """A BMN as the training loop sees it."""

    def __init__(self, model: BMN):
        super().__init__()
        self.model = model

    def loss(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """The model's loss with the draws that belong to this step."""
        return self.model.loss(batch.boundary, np.random.default_rng(list(batch.seed)))

    def after_step(self) -> None:
        """Nothing outlives a step."""


def known_videos(store: FeatureStore, annotated: Mapping[str, Video], subset: str) -> tuple[list[Video], list[str]]:
    """Annotated videos of a subset that the store holds, and the names of those that it lacks.

    Annotations that name no subset count as part of every one.
    """
    wanted = [video for video in annotated.values() if video.subset in (subset, "")]
    present = [video for video in wanted if video.id in store]
    return present, [video.id for video in wanted if video.id not in store]
