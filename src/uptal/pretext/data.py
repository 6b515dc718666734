"""From a video to a sample: one file is opened, everything random is drawn here, each frame is decoded once.

A sample's randomness is a pure function of (seed, epoch, index), so the number of workers, prefetching and a restart
change nothing. What a batch is made of is in `batch`, which samples come when in `loader`.

Letters: V views, J clips, R most clips of a region, T frames of a clip, F distinct frames, C H W picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams
from uptal.clips import TimelineConfig, draw_timeline
from uptal.errors import ConfigError, VideoError
from uptal.pretext.cache import DecodedVideos, Frames
from uptal.pretext.synthesis import PasteConfig, draw_blend
from uptal.pretext.within import elsewhere, frozen
from uptal.video import VideoInfo

VALIDATION = 2**31
"""Epoch number under which validation samples are drawn, so that they are the same every time."""

STREAM_SAMPLE, STREAM_SPLIT, STREAM_ORDER, STREAM_PAIRS = range(4)
"""Streams of random numbers under one seed."""

Key = tuple[int, tuple[int, ...]]
"""An epoch and numbers of videos: the one that is meant, then its spares."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Videos and how they are read and cut."""

    timeline: TimelineConfig = field(default_factory=TimelineConfig)
    """Where clips lie in time."""
    resize: int = 128
    """Side of the square canvas that frames are decoded to; crops undo the squeeze. The paper does not say."""
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    """Subtracted from RGB in [0, 1]. The paper does not say; the usual value for video."""
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    """RGB is divided by this. The paper does not say; the usual value for video."""
    val_videos: int = 0
    """Videos set aside for the validation loss that drives the plateau schedule. The paper does not say how many."""
    stretch: float | None = None
    """Seconds of each video that a sample sees, at a random place, for long untrimmed videos; all of it when not given.
    The paper's videos are trimmed to ten seconds."""
    group_pattern: str | None = None
    """Regular expression on the file stem; videos whose first group agrees are never pasted onto each other."""
    workers: int = 2
    """Processes that decode; 0 decodes in the training process."""
    worker_timeout: float = 600.0
    """Seconds after which a silent worker is an error rather than a hang."""
    backend: str = "pyav"
    """Decoder: `pyav`, or `torchcodec` when installed; `nvdec` is torchcodec on the GPU, without workers."""
    cache_mib: int = 0
    """Memory in MiB that each loader process may fill with decoded videos, so that small corpora are decoded once."""
    max_bad: float = 0.01
    """Share of the videos (at least one) that may be unreadable before the run stops."""

    def __post_init__(self) -> None:
        if self.resize < 1 or self.val_videos < 0 or self.workers < 0 or min(self.std) <= 0:
            raise ConfigError("data needs resize >= 1, val_videos >= 0, workers >= 0 and positive std.")
        if self.stretch is not None and self.stretch <= 0:
            raise ConfigError(f"data.stretch counts seconds and must be positive, found {self.stretch}.")
        if self.backend == "nvdec" and self.workers:
            raise ConfigError(
                f"data.backend nvdec decodes on the GPU, which forked loader processes cannot use, and data.workers is "
                f"{self.workers}. Add --data.workers 0: decoding and training then take turns. With --data.backend "
                "pyav the workers decode while the GPU trains."
            )
        if self.worker_timeout <= 0:
            raise ConfigError(f"data.worker_timeout counts seconds and must be positive, found {self.worker_timeout}.")


@dataclass(frozen=True)
class Plan:
    """What was drawn for one video: index tables into its frames, and all that happens to them."""

    clips: Int[np.ndarray, "V J T"]
    region: Int[np.ndarray, "V R T"]
    start: Int[np.ndarray, " V"]
    length: Int[np.ndarray, " V"]
    span: Int[np.ndarray, "V R 2"]
    """First and last frame, in the video, of every clip of the region."""
    blend: Float[np.ndarray, "V R T"]
    augment: AugmentParams
    """(V, 2): the clips' draw and the region's."""
    looped: bool
    """Whether the video is shorter than a clip and was played in a loop."""
    index: int
    """Number of the video in the sorted folder."""
    pasted: bool = True
    """False where the region stays in its own video although others are pasted (`paste.ramp`)."""


@dataclass(frozen=True)
class Sample:
    """One video's contribution."""

    frames: UInt8[Tensor, "F C H W"]
    """Each distinct frame once."""
    plan: Plan
    more: tuple[Plan, ...] = ()
    """Plans of the video's other regions, on the same frames."""

    @property
    def plans(self) -> tuple[Plan, ...]:
        """One for each region."""
        return self.plan, *self.more


@dataclass(frozen=True)
class Drawn:
    """What a place of the order came to: a sample, and the videos that failed before it."""

    sample: Sample | None
    """None when no spare could be read either."""
    failures: tuple[tuple[str, str], ...] = ()
    """Path and reason of every video that could not be read."""


@dataclass(frozen=True)
class Parcel:
    """Several places of the order on their way from a worker.

    The frames of all of them are one tensor: each tensor that travels between processes costs a file descriptor and a
    connection of its own, which for small samples is more than drawing them.
    """

    frames: UInt8[Tensor, "F C H W"]
    counts: tuple[int, ...]
    plans: tuple[tuple[Plan, ...], ...]
    """Those of each sample; none where no spare could be read."""
    failures: tuple[tuple[tuple[str, str], ...], ...]

    @classmethod
    def of(cls, drawn: Sequence[Drawn]) -> Parcel:
        """Packs what was drawn."""
        frames = [one.sample.frames for one in drawn if one.sample is not None]
        return cls(
            frames=torch.cat(frames) if frames else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
            counts=tuple(0 if one.sample is None else len(one.sample.frames) for one in drawn),
            plans=tuple(() if one.sample is None else one.sample.plans for one in drawn),
            failures=tuple(one.failures for one in drawn),
        )

    def opened(self) -> list[Drawn]:
        """What was drawn, in memory of this process: a shared tensor would keep its file open."""
        parts = self.frames.clone().split(list(self.counts))
        samples = [
            Sample(part, plans[0], plans[1:]) if plans else None for part, plans in zip(parts, self.plans, strict=True)
        ]
        return [Drawn(sample, failed) for sample, failed in zip(samples, self.failures, strict=True)]


class Videos(Dataset):
    """The samples of a folder, several at a time."""

    def __init__(
        self,
        paths: Sequence[Path],
        data: DataConfig,
        paste_cfg: PasteConfig,
        aug: AugmentConfig,
        seed: int,
        decoded: Frames | None = None,
    ):
        """Frames come from the files at `paths`, or from `decoded` under these names."""
        self.paths, self.data, self.paste, self.aug, self.seed = paths, data, paste_cfg, aug, seed
        self.decoded = decoded or DecodedVideos(data.resize, data.backend, data.cache_mib * 2**20)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, keys: Sequence[Key]) -> Parcel:
        return Parcel.of([self.first_readable(key) for key in keys])

    def first_readable(self, key: Key) -> Drawn:
        """The sample of the video that is meant, or of the first of its spares that can be read."""
        epoch, candidates = key
        failures = []
        for index in candidates:
            try:
                return Drawn(self.draw(epoch, index), tuple(failures))
            except VideoError as error:
                failures.append((error.path, error.reason))
        return Drawn(None, tuple(failures))

    def draw(self, epoch: int, index: int) -> Sample:
        """Draws, decodes and packs one sample.

        Raises:
            VideoError: The video cannot be read.
        """
        path, rng = self.paths[index], np.random.default_rng([self.seed, STREAM_SAMPLE, epoch, index])
        info = self.decoded.probe(path)
        begin, length = self._stretch(rng, info, centred=epoch == VALIDATION)
        drawn = [self._plan(rng, info, index, epoch, length) for _ in range(self.data.timeline.regions)]
        pasting = self.paste.source != "none"
        wanted = [table for plan in drawn for table in ((plan.clips, plan.region) if pasting else (plan.clips,))]
        distinct, where = _distinct(np.concatenate([table.ravel() for table in wanted]), length)
        ends = np.cumsum([table.size for table in wanted])
        tables = [part.reshape(table.shape) for part, table in zip(np.split(where, ends[:-1]), wanted, strict=True)]
        if pasting:
            plans = [replace(p, clips=c, region=r) for p, c, r in zip(drawn, tables[::2], tables[1::2], strict=True)]
        else:
            plans = [replace(p, clips=c, region=np.zeros_like(p.region)) for p, c in zip(drawn, tables, strict=True)]
        return Sample(self.decoded.read(info, path, (begin + distinct).tolist()), plans[0], tuple(plans[1:]))

    def _plan(self, rng: np.random.Generator, info: VideoInfo, index: int, epoch: int, length: int) -> Plan:
        """One region: where it lies, what it is pasted onto and what happens to both, by frames of the video."""
        cfg, paste_cfg, centred = self.data.timeline, self.paste, epoch == VALIDATION
        pasting = paste_cfg.source != "none"
        pasted = pasting and (not paste_cfg.ramp or bool(rng.random() < paste_cfg.probability(epoch)))
        timeline = draw_timeline(rng, length, cfg, paste=pasted, centred=centred)
        if pasted and paste_cfg.source == "own":
            timeline = elsewhere(rng, timeline)
        elif pasted and paste_cfg.source == "frozen":
            timeline = frozen(rng, timeline, length, cfg.background.share)
        whole = replace(paste_cfg, beta=(1.0, 1.0), edge=0) if pasting and not pasted else paste_cfg
        most = cfg.region.max_clips
        blend = np.stack([draw_blend(rng, whole, int(n), most, cfg.frames) for n in timeline.length])
        params = augment.draw(rng, cfg.views * 2, info.width / info.height, self.aug)
        params = params.map(lambda value: value.reshape(cfg.views, 2, *value.shape[1:]))
        if pasting and not pasted:  # the region is part of its video: one crop and one jitter for both
            params = params.map(lambda value: value[:, [0, 0]])
        return Plan(
            clips=timeline.clips if pasted or not pasting else timeline.lent,
            region=timeline.region,
            start=timeline.start,
            length=timeline.length,
            span=timeline.region[..., [0, -1]],
            blend=blend,
            augment=params,
            looped=info.num_frames < cfg.frames,
            index=index,
            pasted=pasted,
        )

    def _stretch(self, rng: np.random.Generator, info: VideoInfo, centred: bool) -> tuple[int, int]:
        """First frame and number of frames of the part of a video that a sample is made of."""
        if self.data.stretch is None or self.data.stretch >= info.duration:
            return 0, info.num_frames
        length = max(1, round(self.data.stretch * info.fps))
        free = max(0, info.num_frames - length)
        return (free // 2 if centred else int(rng.integers(0, free + 1))), min(length, info.num_frames)


def _distinct(indices: Int[np.ndarray, " N"], length: int) -> tuple[Int[np.ndarray, " F"], Int[np.ndarray, " N"]]:
    """What `np.unique` says of numbers below `length`, and where each is in it; for a few of them much sooner."""
    there = np.zeros(length, bool)
    there[indices] = True
    return np.flatnonzero(there), (there.cumsum() - 1)[indices]
