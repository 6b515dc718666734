"""A built-in corpus drawn straight into memory: frames as training and probes want them, nothing encoded or decoded.

What was drawn is kept in a file, so that the next run of the same corpus begins at once.
Letters: V and U videos, F and G frames, H W picture, S side of a square one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from uptal.errors import ConfigError, UptalError, VideoError
from uptal.files import atomic_write
from uptal.progress import Progress
from uptal.synthetic import CorpusConfig, Kind, annotate, render_video
from uptal.synthetic.corpus import config_digest
from uptal.synthetic.sentences import video_queries
from uptal.types import Query, Video
from uptal.video import VideoInfo


@dataclass(frozen=True, kw_only=True)
class Split:
    """How many videos are for what; those that are only tested on come after all others."""

    trimmed: int
    """Trimmed videos to pre-train on, and for the probes of classes to learn from."""
    trimmed_test: int
    """Trimmed videos on which classes are told."""
    untrimmed: int
    """Untrimmed videos for the probes of actions and boundaries to learn from."""
    untrimmed_test: int
    """Untrimmed videos on which they are scored."""


@runtime_checkable
class Material(Protocol):
    """Videos in memory with all that is known of them: those of a built-in corpus below, or a folder's (`folders`)."""

    @property
    def split(self) -> Split:
        """Which videos are for what."""
        ...

    @property
    def trimmed(self) -> Tensor | list[Tensor]:
        """Frames of every trimmed video, uint8 (F, 3, H, W)."""
        ...

    @property
    def untrimmed(self) -> Tensor | list[Tensor]:
        """Frames of every untrimmed video."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second of all videos."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def labels(self) -> Int[np.ndarray, " V"]:
        """Class of every trimmed video."""
        ...

    @property
    def videos(self) -> list[Video]:
        """What happens in every untrimmed video."""
        ...

    @property
    def queries(self) -> list[Query]:
        """Sentences about the untrimmed videos, with the times at which they are true."""
        ...

    def paths(self) -> list[Path]:
        """Names of the videos to pre-train on."""
        ...


@dataclass(frozen=True)
class Films:
    """All videos of a built-in corpus."""

    config: CorpusConfig
    split: Split
    trimmed: UInt8[Tensor, "V F 3 H W"]
    untrimmed: UInt8[Tensor, "U G 3 H W"]

    @property
    def fps(self) -> float:
        """Frames per second of all videos."""
        return float(self.config.fps)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.config.labels)

    @property
    def labels(self) -> Int[np.ndarray, " V"]:
        """Class of every trimmed video."""
        count = len(self.trimmed)
        names = [annotate(self.config, "trimmed", index).segments[0].label or "" for index in range(count)]
        return np.array([self.config.labels.index(name) for name in names])

    @property
    def videos(self) -> list[Video]:
        """What happens in every untrimmed video."""
        return [annotate(self.config, "untrimmed", index) for index in range(len(self.untrimmed))]

    @property
    def queries(self) -> list[Query]:
        """Sentences about the untrimmed videos, with the times at which they are true."""
        return [query for index in range(len(self.untrimmed)) for query in video_queries(self.config, index)]

    def paths(self) -> list[Path]:
        """Names of the videos to pre-train on."""
        return [Path(f"trimmed_{index:05d}") for index in range(self.split.trimmed)]


def draw_films(config: CorpusConfig, split: Split, keep: Path, workers: int = 1) -> Films:
    """The corpus from the folder `keep`, or drawn and put there."""
    file = keep / f"{_digest(config, split)}.npz"
    if file.exists():
        try:
            with np.load(file, allow_pickle=False) as stored:
                trimmed, untrimmed = (torch.from_numpy(stored[name]) for name in ("trimmed", "untrimmed"))
        except (OSError, ValueError, KeyError) as error:
            raise UptalError(f"{file}: the drawn corpus is damaged ({error}). Delete the file.") from error
        return Films(config, split, trimmed, untrimmed)
    counts: dict[Kind, int] = {"trimmed": split.trimmed + split.trimmed_test}
    counts["untrimmed"] = split.untrimmed + split.untrimmed_test
    drawn = {kind: _draw(config, kind, count, workers) for kind, count in counts.items()}
    with atomic_write(file, "wb") as out:
        np.savez(out, trimmed=drawn["trimmed"], untrimmed=drawn["untrimmed"])
    return Films(config, split, *(torch.from_numpy(drawn[kind]) for kind in counts))


def _draw(config: CorpusConfig, kind: Kind, count: int, workers: int) -> UInt8[np.ndarray, "V F 3 H W"]:
    made, job = [], partial(_one, config, kind)
    with Progress(f"drawing {kind} videos", count) as progress:
        if workers <= 1:
            for index in range(count):
                made.append(job(index))
                progress.update(index + 1)
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                for frames in pool.map(job, range(count), chunksize=4):
                    made.append(frames)
                    progress.update(len(made))
    return np.stack(made)


def _one(config: CorpusConfig, kind: Kind, index: int) -> UInt8[np.ndarray, "F 3 H W"]:
    return np.ascontiguousarray(render_video(config, kind, index)[0].transpose(0, 3, 1, 2))


def _digest(config: CorpusConfig, split: Split) -> str:
    text = json.dumps([config_digest(config), asdict(split)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class InMemory:
    """Frames for the loader of pre-training, in the place of `uptal.pretext.cache.DecodedVideos`."""

    def __init__(self, frames: Mapping[str, UInt8[Tensor, "F 3 S S"]], fps: float | int):
        """`frames` by the stem of the path under which the loader asks for them; all squares of one size."""
        if len({video.shape[1:] for video in frames.values()}) > 1:
            raise ConfigError("Videos in memory must all have one size.")
        self.frames, self.fps = frames, float(fps)

    def probe(self, path: Path) -> VideoInfo:
        """What the video holds."""
        if path.stem not in self.frames:
            raise VideoError(path, "is not among the videos in memory")
        count, _, height, width = self.frames[path.stem].shape
        return VideoInfo(
            path=str(path), num_frames=count, fps=self.fps, duration=count / self.fps, width=width, height=height,
            rotation=0, codec="none", constant_rate=True, times=np.arange(count) / self.fps, start=0.0, stream=0,
            common_colours=True, flips=(False, False, False), stamps=None, keyframes=np.arange(count),
        )  # fmt: skip

    def read(self, info: VideoInfo, path: Path, indices: Sequence[int]) -> UInt8[Tensor, "F C S S"]:
        """Frames of a video."""
        return self.frames[path.stem][list(indices)]
