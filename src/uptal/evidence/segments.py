"""What label-free segments are worth: class-agnostic recall of annotated instances, with intervals over videos.

Rows are encoders and three controls that know less: windows laid evenly, frame differences, untrained encoders. All but
the first go through the same segmenter. Letters: V videos, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from uptal.encoders import SavedEncoder, build, load_encoder
from uptal.errors import AnnotationError
from uptal.evidence.scores import changes, clips_of
from uptal.features import Features
from uptal.metrics.overlap import tiou
from uptal.metrics.selection import STRICT_TIOUS
from uptal.recipes.calibrating import calibrate
from uptal.recipes.extracting import ExtractConfig
from uptal.recipes.segmenting import encode_files, in_seconds
from uptal.similarity import SegmentConfig
from uptal.types import Detections, Timebase, Video
from uptal.video import find_videos, probe, read

AT = (1, 5, 10)
"""Numbers of segments a video whose recall is reported."""
RESAMPLES = 2000
"""Draws of as many videos as there are, with repeats, for an interval."""


@dataclass(frozen=True)
class Row:
    """Segments of every video by one way of finding them."""

    name: str
    found: Mapping[str, Detections]
    digest: str | None = None
    """SHA-256 of the encoder's weights."""


def measure(
    videos: Sequence[Path],
    truth: Mapping[str, Video],
    weights: Mapping[str, str | Path],
    *,
    untrained: Sequence[int] = (0, 1, 2),
    cfg: SegmentConfig = SegmentConfig(),  # noqa: B008  (frozen)
    device: str = "auto",
) -> list[Row]:
    """Segments of the annotated videos by every encoder and control.

    Args:
        videos: Files; those without annotated instances are left out.
        truth: Annotated videos by file stem.
        weights: Encoders by the name of their row.
        untrained: Seeds of slim encoders that were never trained; the statistics of their batch norms are those of the
            same videos (labels play no part), which is more than an encoder from elsewhere has.
        cfg: How segments are found.
        device: Where encoders run.

    Raises:
        AnnotationError: No video has an instance. VideoError: None can be read.
    """
    paths = [path for path in videos if path.stem in truth and truth[path.stem].segments]
    if not paths:
        raise AnnotationError(f"None of the {len(videos)} videos has an annotated instance; ids are file stems.")
    how = ExtractConfig(device=device)
    saved = {name: load_encoder(path) for name, path in weights.items()}
    fresh = {f"untrained, seed {seed}": _untrained(seed, paths) for seed in untrained}
    rows = [
        Row("windows laid evenly", {path.stem: evenly(truth[path.stem].duration) for path in paths}),
        Row("frame differences", {path.stem: in_seconds(differences(path), cfg) for path in paths}),
    ]
    for name, encoder in (fresh | saved).items():
        features, _ = encode_files(encoder, paths, how)
        rows.append(Row(name, {each.id: in_seconds(each, cfg) for each in features}, encoder.digest or None))
    few = {id: evenly(truth[id].duration, len(some)) for id, some in rows[-1].found.items()}
    return [*rows[:1], Row(f"windows, as many as of {rows[-1].name}", few), *rows[1:]]


def _untrained(seed: int, paths: Sequence[Path]) -> SavedEncoder:
    torch.manual_seed(seed)
    encoder = build("slim")
    calibrate(encoder, paths, encoder.native)
    return SavedEncoder(encoder=encoder, clip=encoder.native, digest="")


def evenly(duration: float, count: int = 10) -> Detections:
    """So many windows that do not look at the video: the whole, halves, thirds and so on, the middle first of each."""
    rows: list[tuple[float, float]] = []
    parts = 0
    while len(rows) < count:
        parts += 1
        cut = [(n * duration / parts, (n + 1) * duration / parts) for n in range(parts)]
        rows += sorted(cut, key=lambda window: abs(sum(window) - duration))
    return Detections(np.array(rows[:count]), np.linspace(1, 0.1, count))


def differences(path: Path) -> Features:
    """Nine numbers a clip: how much each field of a 3 x 3 grid changes from frame to frame, in the slim encoder's size.

    Raises:
        VideoError: The video cannot be read.
    """
    spec, info = build("slim").native, probe(path)
    frames = read(path, range(info.num_frames), spec.resize, info=info)
    if info.num_frames < spec.frames * spec.stride:  # shorter than a clip: stand still at the end
        frames = torch.cat([frames, frames[-1:].expand(spec.frames * spec.stride - len(frames), -1, -1, -1)])
    (values,) = changes([frames], spec)
    step = float(np.diff(clips_of(len(frames), spec)[:2, 0]).sum()) or 1.0
    base = Timebase(fps=info.fps, stride=step, window=float(spec.frames * spec.stride))
    return Features(path.stem, torch.from_numpy(values), base, info.duration)


def hits(truth: Mapping[str, Video], found: Mapping[str, Detections]) -> Float[np.ndarray, "V A"]:
    """Instances of every video that its best 1, 5 and 10 segments find, averaged over tIoU 0.5 to 0.95."""
    rows = np.zeros((len(truth), len(AT)))
    for row, video in enumerate(truth.values()):
        if video.id not in found:
            continue
        best = found[video.id].segments[np.argsort(-found[video.id].scores, kind="stable")][: max(AT)]
        for one in video.segments:
            overlap = tiou(np.array([[one.start, one.end]]).repeat(len(best), 0), best)
            for column, count in enumerate(AT):
                top = overlap[:count].max(initial=0.0)
                rows[row, column] += np.mean([top >= threshold for threshold in STRICT_TIOUS])
    return rows


def summarise(rows: Sequence[Row], truth: Mapping[str, Video], against: str, seed: int = 0) -> list[dict[str, Any]]:
    """Recall in per cent with 95 % intervals over videos, and the paired difference to the row `against`.

    The videos are drawn anew, with repeats, `RESAMPLES` times; all rows meet the same draws.
    """
    judged = {id: video for id, video in truth.items() if video.segments and any(id in row.found for row in rows)}
    counts = np.array([len(video.segments) for video in judged.values()], dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(judged), (RESAMPLES, len(judged)))

    def recall(found: Float[np.ndarray, "V A"], chosen: np.ndarray) -> np.ndarray:
        return 100 * found[chosen].sum(-2) / counts[chosen].sum(-1)[..., None]

    every = np.arange(len(judged))
    of = {row.name: hits(judged, row.found) for row in rows}
    drawn = {name: recall(found, draws) for name, found in of.items()}
    summary = []
    for row in rows:
        value = recall(of[row.name], every)
        low, high = np.percentile(drawn[row.name], (2.5, 97.5), axis=0)
        apart = np.percentile(drawn[row.name] - drawn[against], (2.5, 97.5), axis=0)
        cells = {}
        for column, count in enumerate(AT):
            cells[f"AR@{count}"] = {
                "value": float(value[column]),
                "interval": [float(low[column]), float(high[column])],
                f"minus {against}": [float(edge) for edge in apart[:, column]],
            }
        summary.append({"row": row.name, "encoder_digest": row.digest, **cells})
    return summary


def annotated(folder: Path, truth: Mapping[str, Video], subset: str | None, most: int | None) -> list[Path]:
    """The videos of a folder that are annotated, of one subset if asked for, and no more than wanted."""
    chosen = {id: video for id, video in truth.items() if subset in (None, video.subset)}
    return [path for path in find_videos(folder) if path.stem in chosen][:most]


def with_files(truth: Mapping[str, Video], paths: Sequence[Path]) -> dict[str, Video]:
    """The annotated videos that have a file, with the file's own duration where the annotations give none."""
    kept = {path.stem: path for path in paths}
    return {
        id: video if video.duration else replace(video, duration=probe(kept[id]).duration)
        for id, video in truth.items()
        if id in kept
    }
