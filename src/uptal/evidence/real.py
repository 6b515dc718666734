"""Folders of real trimmed clips under the corpora's protocol: trained on without labels, then told apart with them.

What a folder is: with `trainlist*.txt` and `testlist*.txt` in it, those lists say; with two subfolders of videos or
more, each is a class and a fixed part of each is tested on; otherwise it is only trained on. Tested videos are never
trained on. For times there is the temporal probe of the onset study, on sequences of held-out clips: a run of one
class among others. Cuts lie between all clips, so that a cut alone says nothing, and boundaries are exact.

Letters: V videos, N clips of a video, S sequences, P videos of a sequence, M = P * N steps, D feature width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor, nn

from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError, VideoError
from uptal.evidence.probes import average_precision, probe
from uptal.features import encode, make_ready
from uptal.metrics.classification import wilson
from uptal.progress import Progress
from uptal.recipes.calibrating import fresh_statistics
from uptal.recipes.probing import LabelledVideos, ProbeConfig, frozen_scores, labelled_videos
from uptal.recipes.spread_clips import VideoClips, decoded
from uptal.video import Quarantine, find_videos

CLIPS = 6
"""Clips of a video, evenly spread."""
TESTED = 0.4
"""Share of each class that is tested on where no lists are given."""
SEQUENCES, LENGTH, LONGEST = 80, 6, 3
"""Sequences to learn from, and as many to test on; videos of one; most of them of the class that is looked for."""
SEEDS = (0, 1)
"""Seeds of the temporal probe; their mean counts."""
RESAMPLED = 500
"""Resamples of the test sequences for an interval."""


@dataclass(frozen=True)
class RealSet:
    """One folder."""

    name: str
    videos: LabelledVideos | None
    """None where nothing is known of classes."""
    unlabelled: list[Path]
    """Videos to train on: all but those that are tested on."""


@dataclass(frozen=True)
class Score:
    """A number in per cent with its 95 % interval over test videos, or over resampled test sequences."""

    value: float
    low: float
    high: float
    chance: float


def read_set(folder: Path) -> RealSet:
    """A folder by its lists or its subfolders.

    Raises:
        ConfigError: No videos. AnnotationError: A list cannot be used.
    """
    paths = find_videos(folder)
    train, test = (sorted(folder.glob(pattern)) for pattern in ("trainlist*.txt", "testlist*.txt"))
    classes = sorted({path.parent.name for path in paths if path.parent != folder})
    if len(train) == len(test) == 1:
        videos = labelled_videos(folder, train[0], test[0])
    elif len(classes) > 1:
        videos = _divided([path for path in paths if path.parent != folder])
    else:
        return RealSet(folder.name, None, paths)
    tested = {path for path, _ in videos.test}
    return RealSet(folder.name, videos, [path for path in paths if path not in tested])


def _divided(paths: Sequence[Path]) -> LabelledVideos:
    """The same videos of every class whoever asks: a permutation by a fixed seed."""
    train: list[tuple[Path, str]] = []
    test: list[tuple[Path, str]] = []
    for label in sorted({path.parent.name for path in paths}):
        some = sorted(path for path in paths if path.parent.name == label)
        order = np.random.default_rng(0).permutation(len(some))
        held = max(1, round(TESTED * len(some)))
        if held == len(some):
            raise ConfigError(f"{some[0].parent}: a class needs two videos or more, one of them to be tested on.")
        test += [(some[index], label) for index in sorted(order[:held])]
        train += [(some[index], label) for index in sorted(order[held:])]
    return LabelledVideos(train, test, {})


def score_set(
    encoder: nn.Module, spec: ClipSpec, width: int, videos: LabelledVideos, device: torch.device, *, calibrate: bool
) -> dict[str, Score]:
    """`knn` and `linear` (share of test videos told right), `action`, `start` and `end` (average precision, %).

    Args:
        encoder: The network.
        spec: Its clips.
        width: Numbers in its features.
        videos: What to learn from, and what to test on.
        device: Where the encoder runs.
        calibrate: Whether batch norm's statistics are estimated anew on the clips to learn from, as the onset study
            does for every row; an untrained encoder has none of its own.
    """
    quarantine = Quarantine(total=len(videos.train) + len(videos.test), limit=1.0)
    shown = [_shown(some, videos.classes, spec, quarantine) for some in (videos.train, videos.test)]
    if calibrate:
        encoder = _calibrated(encoder, shown[0], spec, device)
    ready = make_ready(encoder, device)
    train, test = (
        VideoClips(torch.stack([encode(ready, clips, spec, device, CLIPS, "fp32") for clips, _ in some]),
                   torch.tensor([label for _, label in some]))
        for some in shown
    )  # fmt: skip
    count, found = len(test.target), {}
    often = float(test.target.bincount().max()) / count
    for method in ("knn", "linear"):
        share = frozen_scores(method, train, test, width, videos.classes, ProbeConfig(clips=CLIPS))[0]
        low, high = wilson(share, count)
        found[method] = Score(100 * share, 100 * low, 100 * high, 100 * often)
    return found | _times(train, test)


def _shown(
    labelled: list[tuple[Path, str]], classes: tuple[str, ...], spec: ClipSpec, quarantine: Quarantine
) -> list[tuple[UInt8[Tensor, "N T C H W"], int]]:
    """Clips and class of every video that can be read."""
    found = []
    with Progress("decoding", len(labelled)) as progress:
        for done, ((_, label), clips) in enumerate(zip(labelled, decoded(labelled, spec, CLIPS), strict=True), 1):
            if isinstance(clips, VideoError):
                quarantine.add(clips)
            else:
                found.append((clips, classes.index(label)))
            progress.update(done)
    return found


@torch.no_grad()
def _calibrated(
    encoder: nn.Module, shown: list[tuple[UInt8[Tensor, "N T C H W"], int]], spec: ClipSpec, device: torch.device
) -> nn.Module:
    encoder = copy.deepcopy(encoder)
    with fresh_statistics(encoder):
        for clips, _ in shown:
            encode(encoder, clips, spec, device, CLIPS, "fp32")
    return encoder


def sequences(
    target: Int[Tensor, " V"], wanted: int, seed: int
) -> tuple[Int[np.ndarray, "S P"], Int[np.ndarray, "S 2"]]:
    """Videos of each sequence, and where in it the run of the class `wanted` begins and ends (exclusive)."""
    rng = np.random.default_rng(seed)
    labels = target.numpy()
    inside, outside = np.flatnonzero(labels == wanted), np.flatnonzero(labels != wanted)
    rows, runs = [], []
    for _ in range(SEQUENCES):
        length = int(rng.integers(1, LONGEST + 1))
        begin = int(rng.integers(0, LENGTH - length + 1))
        row = rng.choice(outside, LENGTH)
        row[begin : begin + length] = rng.choice(inside, length)
        rows.append(row)
        runs.append((begin, begin + length))
    return np.stack(rows), np.array(runs)


def _laid_out(clips: VideoClips, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features (M, D) and truth (M, 3: acting, at the start, at the end) of every sequence."""
    rows, runs = sequences(clips.target, 0, seed)
    values = clips.values.numpy()
    features = [values[row].reshape(-1, values.shape[2]) for row in rows]
    steps, each = np.arange(LENGTH * values.shape[1]), values.shape[1]
    truth = []
    for begin, end in runs * each:
        acting = (steps >= begin) & (steps < end)
        near = [np.abs(steps + 0.5 - edge) < 1 for edge in (begin, end)]
        truth.append(np.stack([acting, *near], axis=1).astype(float))
    return features, truth


def _times(train: VideoClips, test: VideoClips) -> dict[str, Score]:
    learnt, truth = _laid_out(train, 1)
    tested, answers = _laid_out(test, 2)
    answer = np.stack(answers)
    scores = np.stack([probe(learnt, truth, tested, False, seed).reshape(answer.shape) for seed in SEEDS])
    picks = np.random.default_rng(0).integers(0, len(answer), (RESAMPLED, len(answer)))
    found = {}
    for column, name in enumerate(("action", "start", "end")):

        def precision(some: np.ndarray | slice, column: int = column) -> float:
            of = [average_precision(each[some, :, column].ravel(), answer[some, :, column].ravel()) for each in scores]
            return float(np.mean(of))

        low, high = np.percentile([precision(pick) for pick in picks], [2.5, 97.5])
        base = 100 * float(answer[..., column].mean())
        found[name] = Score(precision(slice(None)), float(low), float(high), base)
    return found
