"""From a folder of videos to batches: one video is opened a sample, everything random is drawn here.

A sample's randomness is a pure function of (seed, epoch, index), so the number of workers, prefetching and a restart
change nothing. Batches carry each decoded frame once, and index tables that say which frames make which clip.

Letters: B samples, V views, J clips, R most clips of a region, T frames of a clip, F distinct frames of a batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from uptal import augment, video
from uptal.augment import AugmentConfig, AugmentParams
from uptal.clips import TimelineConfig, draw_timeline
from uptal.distributed import World
from uptal.errors import ConfigError, VideoError
from uptal.pixels import normalise
from uptal.pretext.synthesis import PasteConfig, Placement, derangements, draw_blend, paste
from uptal.video import Quarantine

_VALIDATION = 2**31
"""Epoch number under which validation samples are drawn, so that they are the same every time."""


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
    group_pattern: str | None = None
    """Regular expression on the file stem; videos whose first group agrees are never pasted onto each other."""
    workers: int = 2
    """Processes that decode; 0 decodes in the training process."""
    worker_timeout: float = 600.0
    """Seconds after which a silent worker is an error rather than a hang."""
    backend: str = "pyav"
    """Decoder: `pyav`, or `torchcodec` when installed."""
    max_bad: float = 0.01
    """Share of the videos (at least one) that may be unreadable before the run stops."""


@dataclass(frozen=True)
class Sample:
    """One video's contribution: frames once, index tables into them, and what was drawn."""

    frames: UInt8[Tensor, "F C H W"]
    clips: Int[Tensor, "V J T"]
    region: Int[Tensor, "V R T"]
    start: Int[Tensor, " V"]
    length: Int[Tensor, " V"]
    blend: Float[Tensor, "V R T"]
    augment: AugmentParams
    """(V, 2): the clips' draw and the region's."""
    index: int
    """Number of the video in the sorted folder."""


@dataclass(frozen=True)
class Unreadable:
    """A video that could not be used; travels from a worker to the training process."""

    path: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Samples of one step on one process, and who lends a background to whom."""

    frames: UInt8[Tensor, "F C H W"]
    clips: Int[Tensor, "B V J T"]
    region: Int[Tensor, "B V R T"]
    start: Int[Tensor, "B V"]
    length: Int[Tensor, "B V"]
    blend: Float[Tensor, "B V R T"]
    augment: AugmentParams
    """(B, V, 2): the clips' draw and the region's."""
    lender: Int[Tensor, "V B"] | None
    """Sample whose clips are the background of sample b in view v; None when regions stay in their own video."""
    ids: Int[Tensor, " B"]
    labels: Int[Tensor, " B"] | None
    names: tuple[str, ...]
    position: int
    """Samples of the epoch that were used up when this batch was complete; where a resumed run goes on."""
    size: int
    """Height and width after augmentation."""
    composite: bool
    """Whether the finished synthetic video is augmented instead of its sources."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        move = {name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved = dict(vars(self)) | move
        moved["augment"] = self.augment.map(lambda value: value.to(device, non_blocking=True))
        return Batch(**moved)


class Videos(Dataset):
    """The samples of a folder, addressed by (epoch, index of the video)."""

    def __init__(self, paths: Sequence[Path], data: DataConfig, paste_cfg: PasteConfig, aug: AugmentConfig, seed: int):
        self.paths, self.data, self.paste, self.aug, self.seed = paths, data, paste_cfg, aug, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Unreadable:
        epoch, index = key
        path = self.paths[index]
        try:
            return self.draw(path, index, np.random.default_rng([self.seed, epoch, index]))
        except VideoError as error:
            return Unreadable(error.path, error.reason)

    def draw(self, path: Path, index: int, rng: np.random.Generator) -> Sample:
        """Draws, decodes and packs one sample.

        Raises:
            VideoError: The video cannot be read.
        """
        info = video.probe(path)
        cfg, pasting = self.data.timeline, self.paste.source != "none"
        timeline = draw_timeline(rng, info.num_frames, cfg, paste=pasting)
        most = cfg.region.max_clips
        blend = np.stack([draw_blend(rng, self.paste, int(n), most, cfg.frames) for n in timeline.length])
        params = augment.draw(rng, cfg.views * 2, info.width / info.height, self.aug)
        wanted = np.concatenate([timeline.clips.ravel(), timeline.region.ravel() if pasting else timeline.clips[:0].ravel()])
        distinct, where = np.unique(wanted, return_inverse=True)
        side = self.data.resize
        frames = video.read(path, distinct.tolist(), (side, side), info=info, backend=self.data.backend)
        clips = where[: timeline.clips.size].reshape(timeline.clips.shape)
        region = where[timeline.clips.size :].reshape(timeline.region.shape) if pasting else np.zeros_like(timeline.region)
        return Sample(
            frames=frames,
            clips=torch.from_numpy(clips),
            region=torch.from_numpy(region),
            start=torch.from_numpy(timeline.start),
            length=torch.from_numpy(timeline.length),
            blend=torch.from_numpy(blend),
            augment=params.map(lambda value: torch.from_numpy(value).unflatten(0, (cfg.views, 2))),
            index=index,
        )


class Loader:
    """Batches of a folder of videos, epoch by epoch, from any position, on any number of workers."""

    def __init__(
        self,
        paths: Sequence[Path],
        data: DataConfig,
        paste_cfg: PasteConfig,
        aug: AugmentConfig,
        *,
        batch: int,
        seed: int,
        world: World,
        labels: Mapping[str, int] | None = None,
        quarantine: Quarantine | None = None,
    ):
        self.videos = Videos(paths, data, paste_cfg, aug, seed)
        self.batch, self.world, self.labels, self.quarantine = batch, world, labels, quarantine
        self.groups = _groups(paths, data.group_pattern)
        order = np.random.default_rng([seed, 1]).permutation(len(paths))
        self.validation, self.training = np.sort(order[: data.val_videos]), np.sort(order[data.val_videos :])
        self._order = _Order()
        self._train_workers = self._workers()
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"A batch of {batch} on each of {world.size} processes needs {batch * world.size} training videos; "
                f"{len(self.training)} are left of {len(paths)} after {data.val_videos} were set aside for validation. "
                "Use a smaller --optim.batch, a smaller --data.val_videos or more videos."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch when every video is readable; an incomplete last batch is dropped."""
        return len(self.training) // (self.batch * self.world.size)

    def batches(self, epoch: int, position: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting after `position` samples of this process.

        Unreadable videos are put into quarantine and the next sample takes their place, before anything is paired.
        """
        order = np.random.default_rng([self.videos.seed, 2, epoch]).permutation(self.training)
        share = order[: len(order) // self.world.size * self.world.size][self.world.rank :: self.world.size]
        yield from self._assemble(epoch, share, position, fixed=False)

    def validation_batches(self) -> Iterator[Batch]:
        """The validation videos with the same draws every time."""
        share = self.validation[self.world.rank :: self.world.size]
        yield from self._assemble(_VALIDATION, share, 0, fixed=True)

    def _assemble(self, epoch: int, indices: np.ndarray, position: int, fixed: bool) -> Iterator[Batch]:
        waiting: list[Sample] = []
        self._order.keys = [(epoch, int(index)) for index in indices[position:]]
        for sample in self._train_workers:
            position += 1
            if isinstance(sample, Unreadable):
                self._set_aside(sample)
                continue
            waiting.append(sample)
            if len(waiting) == self.batch:
                rng = None if fixed else np.random.default_rng([self.videos.seed, 3, epoch, position, self.world.rank])
                yield self._collate(waiting, rng, position)
                waiting = []

    def _set_aside(self, bad: Unreadable) -> None:
        error = VideoError(bad.path, bad.reason)
        if self.quarantine is None:
            raise error
        self.quarantine.add(error)

    def _workers(self) -> DataLoader:
        data = self.videos.data
        return DataLoader(
            self.videos,
            sampler=self._order,
            batch_size=None,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            timeout=data.worker_timeout if data.workers else 0,
            worker_init_fn=_one_thread,
            prefetch_factor=max(2, self.batch // data.workers) if data.workers else None,
        )

    def _collate(self, samples: list[Sample], rng: np.random.Generator | None, position: int) -> Batch:
        data, pasting = self.videos.data, self.videos.paste.source
        counts = np.array([len(sample.frames) for sample in samples])
        offset = torch.from_numpy(np.cumsum(counts) - counts)[:, None, None, None]
        stack = {name: torch.stack([getattr(s, name) for s in samples]) for name in ("clips", "region", "start", "length", "blend")}
        lender = None
        if pasting != "none":
            groups = [int(self.groups[sample.index]) for sample in samples]
            maps = derangements(rng, groups, same=pasting == "same")[: data.timeline.views]
            lender = torch.from_numpy(np.stack(maps))
        names = tuple(self.videos.paths[sample.index].stem for sample in samples)
        drawn = [sample.augment for sample in samples]
        return Batch(
            frames=torch.cat([sample.frames for sample in samples]),
            clips=stack["clips"] + offset,
            region=stack["region"] + offset,
            start=stack["start"],
            length=stack["length"],
            blend=stack["blend"],
            augment=AugmentParams(*(torch.stack([getattr(d, name) for d in drawn]) for name in vars(drawn[0]))),
            lender=lender,
            ids=torch.tensor([sample.index for sample in samples]),
            labels=None if self.labels is None else torch.tensor([self.labels[name] for name in names]),
            names=names,
            position=position,
            size=self.videos.aug.size,
            composite=self.videos.aug.scope == "composite",
            mean=data.mean,
            std=data.std,
        )


def synthesise(batch: Batch) -> list[tuple[Float[Tensor, "B J C T H W"], Placement]]:
    """T (Sec. 3.2.1) on the device: for every view the synthetic videos, normalised, and where their regions are."""
    return [_synthesise_view(batch, view) for view in range(batch.clips.shape[1])]


def _synthesise_view(batch: Batch, view: int) -> tuple[Tensor, Placement]:
    place = Placement(batch.start[:, view], batch.length[:, view], batch.blend[:, view])
    lender = torch.arange(len(batch.ids), device=batch.clips.device) if batch.lender is None else batch.lender[view]
    clips = batch.frames[batch.clips[lender, view]]
    own, other = batch.augment.map(lambda x: x[:, view, 1]), batch.augment.map(lambda x: x[lender, view, 0])
    if batch.composite:
        if batch.lender is not None:
            clips = paste(batch.frames[batch.region[:, view]].float(), clips.float(), place)
        pictures = augment.apply(clips, own, batch.size)
    else:
        pictures = augment.apply(clips, other, batch.size)
        if batch.lender is not None:
            action = augment.apply(batch.frames[batch.region[:, view]], own, batch.size)
            pictures = paste(action, pictures, place)
    return normalise(pictures, batch.mean, batch.std), place


class _Order:
    """A sampler whose order can be set before each pass, so that workers may outlive an epoch."""

    def __init__(self) -> None:
        self.keys: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _groups(paths: Sequence[Path], pattern: str | None) -> Int[np.ndarray, " N"]:
    """A number for each video; equal for those that must not be pasted onto each other."""
    if pattern is None:
        return np.arange(len(paths))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern {pattern!r} is not a regular expression: {error}.") from error
    if expression.groups < 1:
        raise ConfigError(f"data.group_pattern {pattern!r} has no group; put the part that names the family in brackets.")
    found = [expression.search(path.stem) for path in paths]
    names = [path.stem if match is None else match.group(1) for path, match in zip(paths, found, strict=True)]
    return np.unique(names, return_inverse=True)[1]
