"""From a folder of videos to batches: one video is opened a sample, everything random is drawn here.

A sample's randomness is a pure function of (seed, epoch, index), so the number of workers, prefetching and a restart
change nothing. Each place of an epoch's order names a video and spares: where the video cannot be read, the worker
itself takes a spare, so that every process makes the same number of batches and a position means the same every time.
Batches carry each decoded frame once, and index tables that say which frames make which clip.

Letters: B samples, V views, J clips, R most clips of a region, T frames of a clip, F distinct frames of a batch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from uptal import augment
from uptal.augment import AugmentConfig, AugmentParams
from uptal.clips import TimelineConfig, draw_timeline
from uptal.distributed import World
from uptal.errors import ConfigError, VideoError
from uptal.pixels import normalise
from uptal.pretext.cache import DecodedVideos
from uptal.pretext.synthesis import PasteConfig, Placement, derangements, draw_blend, paste
from uptal.video import Quarantine

_VALIDATION = 2**31
"""Epoch number under which validation samples are drawn, so that they are the same every time."""

_SPARES = 7
"""Videos that are tried in the place of an unreadable one."""

_SAMPLE, _SPLIT, _ORDER, _PAIRS = range(4)
"""Streams of random numbers under one seed."""


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
    cache_mib: int = 0
    """Memory in MiB that each loader process may fill with decoded videos, so that small corpora are decoded once."""
    max_bad: float = 0.01
    """Share of the videos (at least one) that may be unreadable before the run stops."""

    def __post_init__(self) -> None:
        if self.resize < 1 or self.val_videos < 0 or self.workers < 0 or min(self.std) <= 0:
            raise ConfigError("data needs resize >= 1, val_videos >= 0, workers >= 0 and positive std.")


@dataclass(frozen=True)
class Sample:
    """One video's contribution: frames once, index tables into them, and what was drawn.

    Only frames are a tensor: tensors travel between processes through a file descriptor each, arrays do not.
    """

    frames: UInt8[Tensor, "F C H W"]
    clips: Int[np.ndarray, "V J T"]
    region: Int[np.ndarray, "V R T"]
    start: Int[np.ndarray, " V"]
    length: Int[np.ndarray, " V"]
    blend: Float[np.ndarray, "V R T"]
    augment: AugmentParams
    """(V, 2): the clips' draw and the region's."""
    index: int
    """Number of the video in the sorted folder."""


@dataclass(frozen=True)
class Drawn:
    """What a place of the order came to: a sample, and the videos that failed before it."""

    sample: Sample | None
    """None when no spare could be read either."""
    failures: tuple[tuple[str, str], ...] = ()
    """Path and reason of every video that could not be read."""


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

        def move(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        tensors: dict[str, Any] = {name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, augment=self.augment.map(move), **tensors)


class Videos(Dataset):
    """The samples of a folder, addressed by epoch and numbers of videos: the one that is meant, then its spares."""

    def __init__(self, paths: Sequence[Path], data: DataConfig, paste_cfg: PasteConfig, aug: AugmentConfig, seed: int):
        self.paths, self.data, self.paste, self.aug, self.seed = paths, data, paste_cfg, aug, seed
        self.decoded = DecodedVideos(data.resize, data.backend, data.cache_mib * 2**20)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, tuple[int, ...]]) -> Drawn:
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
        path, rng = self.paths[index], np.random.default_rng([self.seed, _SAMPLE, epoch, index])
        info = self.decoded.probe(path)
        cfg, pasting = self.data.timeline, self.paste.source != "none"
        timeline = draw_timeline(rng, info.num_frames, cfg, paste=pasting, centred=epoch == _VALIDATION)
        most = cfg.region.max_clips
        blend = np.stack([draw_blend(rng, self.paste, int(n), most, cfg.frames) for n in timeline.length])
        params = augment.draw(rng, cfg.views * 2, info.width / info.height, self.aug)
        wanted = [timeline.clips.ravel(), timeline.region.ravel()] if pasting else [timeline.clips.ravel()]
        distinct, where = np.unique(np.concatenate(wanted), return_inverse=True)
        count = timeline.clips.size
        return Sample(
            frames=self.decoded.read(info, path, distinct.tolist()),
            clips=where[:count].reshape(timeline.clips.shape),
            region=where[count:].reshape(timeline.region.shape) if pasting else np.zeros_like(timeline.region),
            start=timeline.start,
            length=timeline.length,
            blend=blend,
            augment=params.map(lambda value: value.reshape(cfg.views, 2, *value.shape[1:])),
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
        order = np.random.default_rng([seed, _SPLIT]).permutation(len(paths))
        self.validation, self.training = np.sort(order[: data.val_videos]), np.sort(order[data.val_videos :])
        self._order = _Order()
        self._samples = self._workers()
        self._check()

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; an incomplete last batch is dropped."""
        return len(self.training) // (self.batch * self.world.size)

    def batches(self, epoch: int, position: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting after `position` samples of this process.

        Unreadable videos are put into quarantine and others take their place, before anything is paired.

        Raises:
            QuarantineError: Too many videos are unreadable.
        """
        order = np.random.default_rng([self.videos.seed, _ORDER, epoch]).permutation(self.training)
        yield from self._assemble(epoch, order, position, fixed=False)

    def validation_batches(self) -> Iterator[Batch]:
        """The validation videos with the same draws every time; an incomplete last batch is dropped."""
        yield from self._assemble(_VALIDATION, self.validation, 0, fixed=True)

    def _assemble(self, epoch: int, order: Int[np.ndarray, " N"], position: int, fixed: bool) -> Iterator[Batch]:
        self._order.epoch, self._order.candidates = epoch, self._candidates(order)[position:]
        waiting: list[Sample] = []
        for drawn in self._samples:
            position += 1
            waiting.append(self._accepted(drawn))
            if len(waiting) == self.batch:
                rng = np.random.default_rng([self.videos.seed, _PAIRS, epoch, position, self.world.rank])
                yield self._collate(waiting, None if fixed else rng, position)
                waiting = []

    def _candidates(self, order: Int[np.ndarray, " N"]) -> Int[np.ndarray, "n spares"]:
        """This process's share of whole batches, each video with its spares: those at its place in other batches."""
        step = self.batch * self.world.size
        used = len(order) // step * step
        share = order[:used][self.world.rank :: self.world.size]
        pool = np.concatenate([share, order[used:]])
        shift = self.batch if len(pool) > self.batch else 1
        return np.stack([np.roll(pool, -shift * turn)[: len(share)] for turn in range(1 + _SPARES)], axis=1)

    def _accepted(self, drawn: Drawn) -> Sample:
        """Sets failed videos aside; gives the sample, in memory of this process.

        Raises:
            QuarantineError: Too many videos have failed. VideoError: One failed and nothing may take its place.
        """
        for path, reason in drawn.failures:
            if self.quarantine is None:
                raise VideoError(path, reason)
            self.quarantine.add(VideoError(path, reason))
        if drawn.sample is None:
            raise VideoError(*drawn.failures[-1])
        if self.videos.data.workers == 0:
            return drawn.sample
        return replace(drawn.sample, frames=drawn.sample.frames.clone())  # a shared tensor keeps a file open

    def _check(self) -> None:
        """Refuses sizes that cannot work before the first video is opened.

        Raises:
            ConfigError: A batch is larger than the set it is taken from, or too small to paste.
        """
        step, counted = self.batch * self.world.size, self.videos.data.val_videos
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"A batch of {self.batch} on each of {self.world.size} processes needs {step} training videos; "
                f"{len(self.training)} are left of {len(self.videos)} after {counted} were set aside for validation. "
                "Use a smaller --optim.batch, a smaller --data.val_videos or more videos."
            )
        if 0 < counted < step:
            raise ConfigError(
                f"--data.val_videos {counted} is less than one batch ({step} over all processes), so there would be no "
                "validation loss. Set aside at least a batch, or none."
            )
        if self.videos.paste.source != "none":
            derangements(None, range(self.batch), same=self.videos.paste.source == "same")

    def _workers(self) -> DataLoader:
        data = self.videos.data
        return DataLoader(
            self.videos,
            sampler=self._order,
            batch_size=None,
            num_workers=data.workers,
            persistent_workers=data.workers > 0,
            timeout=data.worker_timeout if data.workers else 0,
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # its draws are not used; the global generator belongs to the model
            prefetch_factor=max(2, self.batch // data.workers) if data.workers else None,
        )

    def _collate(self, samples: list[Sample], rng: np.random.Generator | None, position: int) -> Batch:
        data, pasting = self.videos.data, self.videos.paste.source

        def stacked(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays))

        counts = np.array([len(sample.frames) for sample in samples])
        offset = torch.from_numpy(np.cumsum(counts) - counts)[:, None, None, None]
        tables = ("clips", "region", "start", "length", "blend")
        stack = {name: stacked([vars(sample)[name] for sample in samples]) for name in tables}
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
            augment=AugmentParams(**{name: stacked([vars(draw)[name] for draw in drawn]) for name in vars(drawn[0])}),
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
    with torch.no_grad(), torch.autocast(batch.frames.device.type, enabled=False):
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
        self.epoch = 0
        self.candidates = np.zeros((0, 1 + _SPARES), np.int64)

    def __iter__(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        for row in self.candidates:
            yield self.epoch, tuple(row.tolist())

    def __len__(self) -> int:
        return len(self.candidates)


def _prepare_worker(worker: int) -> None:
    """One thread each, in a process group of its own: a signal to the whole run (Ctrl-C, `timeout`, a scheduler) is for
    the training process, which still needs its data to finish the step and then ends the workers itself."""
    torch.set_num_threads(1)
    os.setpgid(0, 0)


def _groups(paths: Sequence[Path], pattern: str | None) -> Int[np.ndarray, " N"]:
    """A number for each video; equal for those that must not be pasted onto each other."""
    if pattern is None:
        return np.arange(len(paths))
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.group_pattern {pattern!r} is not a regular expression: {error}.") from error
    if expression.groups < 1:
        raise ConfigError(f"data.group_pattern {pattern!r} has no group; put the part that counts in brackets.")
    found = [expression.search(path.stem) for path in paths]
    names = [path.stem if match is None else match.group(1) for path, match in zip(paths, found, strict=True)]
    return np.unique(names, return_inverse=True)[1]
