"""Stretches of videos as localizers see them: so many steps of features, when they are, and what happens in them.

A localizer turns samples into tensors and labels itself (`collate`), and detections come back on the video's clock.
Letters: C feature width, T steps, N features of a video, M segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from uptal.errors import AnnotationError, ConfigError
from uptal.features import Features, FeatureStore, resample
from uptal.types import Detections, Video

GROUPS = 4
"""Groups of channels in the first convolutions of BMN and G-TAD (public codes). Features of a width that they do not
divide are filled with zeros, which no weight can make anything of."""


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    """How videos become samples."""

    mode: Literal["resample", "windows", "whole"] = "resample"
    """`resample`: the whole video in so many steps, whatever its length (BMN and G-TAD on ActivityNet). `windows`:
    features at their own rate, in overlapping windows of so many steps (G-TAD on THUMOS'14). `whole`: all features of
    the video at their own rate, any number of steps."""
    channels: int | None = None
    """Interpolate every feature to so many numbers before anything else, as if neighbouring channels were akin, which
    they are not. An author of UP-TAL fitted 512-d features to G-TAD's 400 so (HumamAlwassel/TSP, issue 9), so the
    paper's numbers may rest on it. By default features keep their width."""
    overlap: float = 0.5
    """`windows`: share of a window that the next one sees again (G-TAD, public code)."""
    tail: float = 0.0
    """`windows`: a rest of the video up to this share of a window gets no window of its own. G-TAD's public code drops
    up to 0.2; we drop nothing."""
    coverage: float = 0.9
    """`windows`, training: a window is kept if more than this share of at least one instance lies in it (G-TAD)."""

    def __post_init__(self) -> None:
        for name, low, high in (("overlap", 0, 0.95), ("tail", 0, 1), ("coverage", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"cut.{name} must lie between {low} and {high}, found {getattr(self, name)}.")
        if self.channels is not None and self.channels < 1:
            raise ConfigError(f"cut.channels counts numbers of a feature, or is left out; found {self.channels}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """T steps of one video. Step i covers the seconds [start + i * step, start + (i + 1) * step)."""

    id: str
    """Name of the video."""
    values: Float[Tensor, "C T"]
    """Features; columns from `num_valid` on are zeros that fill a window."""
    num_valid: int
    """Steps that hold features."""
    first: int
    """Index of the first step among the video's features (0 unless cut into windows)."""
    start: float
    """Seconds at which the first step begins; may be slightly negative."""
    step: float
    """Seconds of a step."""
    duration: float
    """Seconds of the whole video."""
    segments: Float[np.ndarray, "M 2"]
    """Instances that reach into the sample, in seconds of the video; not clipped."""
    labels: tuple[str, ...]
    """Their classes; an instance without one counts as `action`."""

    @property
    def span(self) -> float:
        """Seconds that all T steps cover."""
        return self.values.shape[1] * self.step

    @property
    def relative(self) -> Float[np.ndarray, "M 2"]:
        """The instances in steps of the sample; not clipped."""
        return (self.segments - self.start) / self.step

    def seconds(self, steps: Float[np.ndarray, "M 2"]) -> Float[np.ndarray, "M 2"]:
        """Positions in steps as seconds of the video, clipped to it."""
        return (np.asarray(steps, np.float64) * self.step + self.start).clip(0, self.duration)


def cut_video(read: Features, video: Video | None, num_steps: int, cfg: CutConfig) -> list[Sample]:
    """The samples of one video, in order of time.

    Args:
        read: Its features.
        video: Its annotations; `None` where there are none.
        num_steps: T of `resample` and `windows`.
        cfg: How to cut.

    Raises:
        AnnotationError: The video has no features, or some that are not finite numbers.
    """
    check_features(read)
    if cfg.channels is not None:
        values = F.interpolate(read.values[:, None].float(), cfg.channels, mode="linear", align_corners=False)
        read = replace(read, values=values[:, 0])
    if cfg.mode == "resample":
        step = read.duration / num_steps
        return [_sample(read, video, resample(read, num_steps), 0, 0.0, step)]
    count, base = len(read.values), read.timebase
    step = base.stride / base.fps
    length = count if cfg.mode == "whole" else num_steps
    starts = [0] if cfg.mode == "whole" else window_starts(count, length, cfg)
    return [
        _sample(read, video, read.values[first : first + length].T, first, base.centre(first) - step / 2, step, length)
        for first in starts
    ]


def cut_store(
    store: FeatureStore, videos: Sequence[Video], num_steps: int, cfg: CutConfig, *, training: bool
) -> list[Sample]:
    """The samples of several videos; for training those windows alone that hold (nearly) a whole instance."""
    samples = [sample for video in videos for sample in cut_video(store.read(video.id), video, num_steps, cfg)]
    if not training or cfg.mode != "windows":
        return samples
    kept = [sample for sample in samples if holds_instance(sample, cfg.coverage)]
    if not kept:
        raise AnnotationError(
            f"None of the {len(samples)} windows of {num_steps} steps holds {cfg.coverage:.0%} of an annotated "
            "instance. Use more steps, a smaller cut.coverage, or cut.mode resample."
        )
    return kept


def window_starts(count: int, length: int, cfg: CutConfig) -> list[int]:
    """First steps of the windows over `count` features; together they cover all of them (up to `tail`).

    >>> window_starts(10, 4, CutConfig(mode="windows"))
    [0, 2, 4, 6]
    >>> window_starts(11, 4, CutConfig(mode="windows")), window_starts(3, 4, CutConfig(mode="windows"))
    ([0, 2, 4, 6, 7], [0])
    """
    if count <= length:
        return [0]
    stride = max(1, round(length * (1 - cfg.overlap)))
    starts = list(range(0, count - length + 1, stride))
    if count - length - starts[-1] > int(cfg.tail * length):
        starts.append(count - length)
    return starts


def holds_instance(sample: Sample, coverage: float) -> bool:
    """Whether more than `coverage` of one of the instances lies in the sample.

    Zeros that fill a window count as part of it, as in G-TAD's public code; features that end before the annotations do
    make a difference, and only those.
    """
    low, high = sample.segments.T.clip(sample.start, sample.start + sample.span)
    return bool(((high - low) > coverage * (sample.segments[:, 1] - sample.segments[:, 0])).any())


def check_features(read: Features) -> None:
    """Refuses features that no localizer can use.

    Raises:
        AnnotationError: There are none, or some are not finite.
    """
    if not len(read.values):
        raise AnnotationError(f"Video {read.id} has no features (0 clips). Delete its file and extract it again.")
    finite = read.values.isfinite().all(dim=1)
    if not finite.all():
        bad = int((~finite).nonzero()[0])
        raise AnnotationError(
            f"Features of video {read.id} are not finite numbers in {int((~finite).sum())} of {len(finite)} clips, the "
            f"first at {read.timebase.centre(bad):.2f} s. Delete its file and extract it again."
        )


def on_video(sample: Sample, found: Detections) -> Detections:
    """Detections in seconds since the sample's start, on the video's clock and clipped to it; none beyond it."""
    if sample.start == 0 and not (found.segments > sample.duration).any():
        return found
    segments = (found.segments + sample.start).clip(0, sample.duration)
    inside = segments[:, 0] < segments[:, 1]
    labels = None if found.labels is None else tuple(np.array(found.labels, dtype=object)[inside])
    return Detections(segments[inside], found.scores[inside], labels)


def filled_width(width: int) -> int:
    """The next multiple of `GROUPS`: what features of that width are to a network that takes them in groups.

    >>> filled_width(13), filled_width(16)
    (16, 16)
    """
    return -(-width // GROUPS) * GROUPS


def stack(samples: Sequence[Sample]) -> Float[Tensor, "B F T"]:
    """Features of several samples as one batch; channels of zeros fill them up to F = `filled_width(C)`."""
    values = torch.stack([sample.values for sample in samples])
    return F.pad(values, (0, 0, 0, filled_width(values.shape[1]) - values.shape[1]))


def by_video(samples: Sequence[Sample]) -> Mapping[str, list[int]]:
    """Positions of each video's samples."""
    places: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        places.setdefault(sample.id, []).append(place)
    return places


def _sample(
    read: Features,
    video: Video | None,
    values: Float[Tensor, "C T"],
    first: int,
    start: float,
    step: float,
    length: int | None = None,
) -> Sample:
    """A sample padded to `length`, with the instances that reach into it."""
    num_valid = values.shape[1]
    instances = [] if video is None else list(video.segments)
    end = start + (length or num_valid) * step
    inside = [s for s in instances if s.start < end and s.end > start] if first or length else instances
    return Sample(
        id=read.id,
        values=F.pad(values, (0, (length or num_valid) - num_valid)).contiguous(),
        num_valid=num_valid,
        first=first,
        start=start,
        step=step,
        duration=read.duration,
        segments=np.array([[s.start, s.end] for s in inside], np.float64).reshape(-1, 2),
        labels=tuple(s.label or "action" for s in inside),
    )
