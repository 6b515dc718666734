"""A folder of somebody's own videos in the place of a built-in corpus: decoded once, kept in memory.

    DIR/trimmed.csv         video,label: videos to pre-train on; a fifth of them is held out to tell classes on
    DIR/annotations.json    untrimmed videos, their instances, subsets `training` and `validation` (or `testing`)
    DIR/queries.csv         sentences, if there are any (Table 2)

`uptal synthesize --out DIR` writes such a folder. Letters: V videos, F frames, S side of a picture.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from uptal.annotations import match_ids, read_annotations, read_queries
from uptal.annotations.cliplists import match_files, read_clip_list
from uptal.errors import ConfigError
from uptal.evidence.films import Split
from uptal.progress import Progress
from uptal.types import Query, Video
from uptal.video import find_videos, probe, read

SIZE = 32
"""Side of the square to which pictures are squeezed, that of the built-in corpora."""
TESTED = 5
"""Every so manyth trimmed video (in a fixed random order) is tested on."""
SHORTEST = 16
"""Frames that every video must have."""
BATCH = 32
"""Videos a step of PAL, where there are enough."""


@dataclass(frozen=True)
class FolderFilms:
    """All videos of a folder (`films.Material`); those that are only tested on come last."""

    split: Split
    trimmed: list[Tensor]
    untrimmed: list[Tensor]
    fps: float
    classes: tuple[str, ...]
    labels: Int[np.ndarray, " V"]
    videos: list[Video]
    queries: list[Query]
    names: tuple[str, ...]
    """Stems of the trimmed videos."""

    def paths(self) -> list[Path]:
        """Names of the videos to pre-train on."""
        return [Path(name) for name in self.names[: self.split.trimmed]]


@dataclass(frozen=True)
class Folder:
    """A folder as a place where methods are compared (`corpora.Place`)."""

    name: str
    digest: str
    """SHA-256 over all frames and what happens in them."""
    split: Split
    size: int = SIZE
    batch: int = BATCH
    lr: float = 1e-3
    frozen: bool = True
    """Somebody's own videos have no knobs that could be set by an outcome."""


def read_folder(path: Path) -> tuple[Folder, FolderFilms]:
    """A folder in memory.

    Raises:
        ConfigError: A file is missing, or the videos' frame rates differ. AnnotationError: A list cannot be read, or
            names no video that is there. VideoError: A video cannot be decoded.
    """
    for name in ("trimmed.csv", "annotations.json"):
        if not (path / name).is_file():
            raise ConfigError(
                f"{path}: has no {name}. A folder to compare methods on holds trimmed.csv (video,label) and "
                "annotations.json, as `uptal synthesize --out DIR` writes them."
            )
    files = find_videos(path)
    labelled, _ = match_files(read_clip_list(path / "trimmed.csv"), files)
    order = np.random.default_rng(0).permutation(len(labelled))
    labelled = [labelled[index] for index in order]
    by_stem = {file.stem: file for file in files}
    known = read_annotations(path / "annotations.json")
    learnt = [video for id, video in known.items() if id in by_stem and video.subset == "training"]
    tested = [video for id, video in known.items() if id in by_stem and video.subset != "training"]
    held = len(labelled) // TESTED
    if min(len(learnt), len(tested)) < 1 or held < 1:
        raise ConfigError(
            f"{path}: found {len(labelled)} trimmed videos, {len(learnt)} untrimmed ones of subset training and "
            f"{len(tested)} of others; each must be at least 1, trimmed ones {TESTED}. "
            f"{match_ids(list(known), list(by_stem)).describe()}"
        )
    split = Split(trimmed=len(labelled) - held, trimmed_test=held, untrimmed=len(learnt), untrimmed_test=len(tested))
    wanted = [file for file, _ in labelled] + [by_stem[video.id] for video in (*learnt, *tested)]
    frames, fps = _decode(wanted)
    classes = tuple(sorted({label for _, label in labelled}))
    subsets = {video.id: "training" for video in learnt} | {video.id: "validation" for video in tested}
    films = FolderFilms(
        split=split, trimmed=frames[: len(labelled)], untrimmed=frames[len(labelled) :], fps=fps, classes=classes,
        labels=np.array([classes.index(label) for _, label in labelled]), videos=[*learnt, *tested],
        queries=_queries(path, subsets), names=tuple(file.stem for file, _ in labelled),
    )  # fmt: skip
    batch = max(3, min(BATCH, split.trimmed // 4))
    return Folder(path.resolve().name, _digest(films), split, batch=batch), films


def _decode(paths: list[Path]) -> tuple[list[Tensor], float]:
    """Frames of every video, and the rate that all have."""
    frames: list[Tensor] = []
    rates: dict[float, Path] = {}
    with Progress("decoding", len(paths)) as progress:
        for path in paths:
            info = probe(path)
            rates.setdefault(round(info.fps, 3), path)
            if len(rates) > 1:
                listed = ", ".join(f"{file} {rate:g}" for rate, file in rates.items())
                raise ConfigError(
                    f"The videos to compare methods on must have one frame rate, found {listed}. Convert them to "
                    "one rate, or leave out those that differ."
                )
            if info.num_frames < SHORTEST:
                raise ConfigError(
                    f"{path}: has {info.num_frames} frames; a video must have {SHORTEST}, those of a clip of 8 at "
                    "stride 2. Leave it out of the lists."
                )
            frames.append(read(path, range(info.num_frames), (SIZE, SIZE), info=info))
            progress.update(len(frames))
    return frames, next(iter(rates))


def _queries(path: Path, subsets: dict[str, str]) -> list[Query]:
    file = path / "queries.csv"
    queries = read_queries(file) if file.is_file() else []
    return [replace(query, subset=subsets[query.video]) for query in queries if query.video in subsets]


def _digest(films: FolderFilms) -> str:
    total = hashlib.sha256(repr((films.split, films.classes, films.labels.tolist(), films.videos)).encode())
    for video in (*films.trimmed, *films.untrimmed):
        total.update(torch.as_tensor(video).numpy().tobytes())
    return total.hexdigest()
