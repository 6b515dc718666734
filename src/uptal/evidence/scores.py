"""Features of a corpus in memory and all that the probes say of them; one set of numbers for every kind of features.

Letters: V and U videos, N and M clips of a video, T frames of a clip, F frames, D feature width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from uptal.clips import extraction_frames
from uptal.clipspec import ClipSpec
from uptal.evidence.films import Films, Material
from uptal.evidence.probes import average_precision, knn_accuracy, probe, proposal_auc
from uptal.features.encoding import encode
from uptal.features.grid import crop
from uptal.localizers.classifier import SegmentClassifier
from uptal.recipes.calibrating import fresh_statistics
from uptal.types import Video

INTERVAL = 8
"""Frames from one clip to the next."""
SEEDS = (0, 1)
"""Seeds of the probes that draw random numbers; their mean counts."""
NAMES = {
    "knn": "class, 10 nearest neighbours (% of videos)",
    "linear": "class, linear (% of videos)",
    "action_linear": "actionness, linear (AP, %)",
    "action": "actionness, temporal probe (AP, %)",
    "start": "start (AP, %)",
    "end": "end (AP, %)",
    "auc20": "AUC over 1 to 20 proposals (%)",
    "bmn_auc": "BMN, AUC (%)",
    "gtad_map": "G-TAD, average mAP (%)",
}
"""What is measured; the last two, by trained localizers, only where asked for (`HEADS`)."""
HEADS = ("bmn_auc", "gtad_map")


@dataclass(frozen=True)
class Features:
    """Clip features of all videos of a corpus."""

    trimmed: Float[np.ndarray, "V N D"]
    untrimmed: Float[np.ndarray, "U M D"]


def clips_of(frames: int, spec: ClipSpec) -> Int[np.ndarray, "N T"]:
    """Frames of the clips that are looked at; none runs past the end."""
    table = extraction_frames(frames, spec.frames, spec.stride, INTERVAL)
    return table[table[:, 0] + (spec.frames - 1) * spec.stride < frames]


def encoded(encoder: nn.Module, films: Films, spec: ClipSpec) -> Features:
    """Features of an encoder whose batch statistics are those of clean clips of the corpus, without labels.

    An untrained encoder has no statistics of its own and PAL's are those of blended frames, so all are treated alike.
    The encoder itself is left as it is.
    """
    encoder = recalibrated(encoder, films, spec)
    return Features(*(np.stack(encode_videos(encoder, frames, spec)) for frames in (films.trimmed, films.untrimmed)))


@torch.no_grad()
def recalibrated(encoder: nn.Module, films: Material, spec: ClipSpec) -> nn.Module:
    """A copy in evaluation mode with running statistics from every fourth video."""
    encoder = copy.deepcopy(encoder)
    with fresh_statistics(encoder):
        for frames in (films.trimmed[::4], films.untrimmed[::4]):
            encode_videos(encoder, frames, spec)
    return encoder


def encode_videos(
    encoder: Any, videos: UInt8[Tensor, "V F 3 H W"] | list[Tensor], spec: ClipSpec
) -> list[Float[np.ndarray, "N D"]]:
    """Features (or whatever else the network gives) of the clips of every video."""
    device = next(encoder.parameters()).device
    blocks = [video[None] for video in videos] if isinstance(videos, list) else _blocks(videos, spec)
    found: list[np.ndarray] = []
    for some in blocks:
        table = torch.from_numpy(clips_of(some.shape[1], spec))
        clips = crop(some[:, table].flatten(0, 1), spec.size)
        found.extend(encode(encoder, clips, spec, device, precision="fp32").unflatten(0, (len(some), -1)).numpy())
    return found


def _blocks(videos: UInt8[Tensor, "V F 3 H W"], spec: ClipSpec) -> tuple[Tensor, ...]:
    return videos.split(max(1, 256 // len(clips_of(videos.shape[1], spec))))


def frame_difference(films: Films, spec: ClipSpec) -> Features:
    """The control: mean change of brightness from frame to frame in each field of a 3 x 3 grid, nine numbers a clip."""
    return Features(*(np.stack(changes(frames, spec)) for frames in (films.trimmed, films.untrimmed)))


def changes(videos: UInt8[Tensor, "V F 3 H W"] | list[Tensor], spec: ClipSpec) -> list[Float[np.ndarray, "N 9"]]:
    """Mean change of brightness from frame to frame in nine fields, for the clips of every video."""
    return [_fields(np.abs(np.diff(grey, axis=0, append=grey[-1:])), spec) for grey in map(_grey, videos)]


def luminance(videos: UInt8[Tensor, "V F 3 H W"] | list[Tensor], spec: ClipSpec) -> list[Float[np.ndarray, "N 9"]]:
    """Mean brightness of nine fields, for the clips of every video; another control."""
    return [_fields(_grey(video), spec) for video in videos]


def _grey(video: UInt8[Tensor, "F 3 H W"]) -> Float[np.ndarray, "F H W"]:
    return video.numpy().astype(np.float32).mean(axis=1)


def _fields(pictures: Float[np.ndarray, "F H W"], spec: ClipSpec) -> Float[np.ndarray, "N 9"]:
    """Means of the fields of a 3 x 3 grid over the frames that each clip spans."""
    first, length = clips_of(len(pictures), spec)[:, 0], spec.frames * spec.stride
    rows = [part.mean(axis=1) for part in np.array_split(pictures, 3, axis=1)]
    fields = np.stack([part.mean(axis=1) for row in rows for part in np.array_split(row, 3, axis=1)], axis=1)
    return np.stack([fields[begin : begin + length].mean(axis=0) for begin in first])


def score(features: Features, films: Films, spec: ClipSpec, seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """Every number of `NAMES` but those of `HEADS`, in percent."""
    return _classes(features.trimmed, films) | _times(features.untrimmed, films, spec, seeds)


def _classes(trimmed: Float[np.ndarray, "V N D"], films: Films) -> dict[str, float]:
    """Classes of the test videos from the others' labels."""
    return told(trimmed.mean(axis=1), films)


def told(means: Float[np.ndarray, "V D"], films: Material) -> dict[str, float]:
    """How many of the test videos' classes are told from the others' labels, by means of their clips; percent."""
    cut, labels = films.split.trimmed, films.labels
    knn = knn_accuracy(means[:cut], labels[:cut], means[cut:], labels[cut:])
    values, target = torch.from_numpy(means).float(), torch.from_numpy(labels)
    classifier = SegmentClassifier(values.shape[1], films.classes)
    classifier.learn(values[:cut], target[:cut])
    with torch.no_grad():
        found = classifier(values[cut:]).argmax(1)
    return {"knn": knn, "linear": 100 * float(found.eq(target[cut:]).float().mean())}


def _times(
    untrimmed: Float[np.ndarray, "U M D"], films: Films, spec: ClipSpec, seeds: Sequence[int]
) -> dict[str, float]:
    """Actions, boundaries and proposals of the test videos."""
    cut, videos = films.split.untrimmed, films.videos
    first = clips_of(films.untrimmed.shape[1], spec)[:, 0]
    middle = first + spec.frames * spec.stride / 2
    truth = [_truth(video, middle, films.config.fps) for video in videos]
    learnt, tested, answer = list(untrimmed[:cut]), list(untrimmed[cut:]), np.concatenate(truth[cut:])
    found = []
    for seed in seeds:
        flat, deep = (probe(learnt, truth[:cut], tested, linear, seed) for linear in (True, False))
        precisions = [average_precision(deep[:, target], answer[:, target]) for target in range(3)]
        area = proposal_auc(deep, middle / films.config.fps, videos[cut:])
        found.append([average_precision(flat[:, 0], answer[:, 0]), *precisions, area])
    names = ("action_linear", "action", "start", "end", "auc20")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def _truth(video: Video, middle: Float[np.ndarray, " N"], fps: float | int) -> Float[np.ndarray, "N 3"]:
    """Whether the middle of a clip lies in an instance, and at most one interval from a start, from an end."""
    spans = np.array([(one.start, one.end) for one in video.segments]) * fps
    acting = np.any((middle[:, None] >= spans[:, 0]) & (middle[:, None] < spans[:, 1]), axis=1)
    near = np.any(np.abs(middle[:, None, None] - spans) <= INTERVAL, axis=1)
    return np.concatenate([acting[:, None], near], axis=1).astype(float)
