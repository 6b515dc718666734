"""Features in and out: foreign files become a store once their time base is known and fits the videos' durations.

How the files look is in `uptal.features.foreign`. Letters: N features of a video.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from uptal.annotations import read_annotations, read_durations
from uptal.errors import AnnotationError, CheckpointError, ConfigError, VideoError
from uptal.features import Features, FeatureStore, csv_mean_100, resample, writing
from uptal.features.foreign import Format, Rows, read_foreign, write_foreign
from uptal.types import Timebase
from uptal.video import find_videos, probe

Rule = Literal["linear", "csv_mean"]
"""How features are brought to a number of rows: linear in time, or as BMN's `csv_mean_100` was made."""

SLACK = 1
"""Features by which a video may have more or fewer than its duration and time base promise."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What rows of foreign features mean in time: `fps`, `stride` and `window`, or `resampled_to`; or what the files
    say themselves, where all of them are None."""

    fps: float | None = None
    """Frames a second of the videos that the features were made of. None: each video's own, if that is known."""
    stride: float | None = None
    """Frames from one feature to the next."""
    window: float | None = None
    """Frames that a feature covers."""
    resampled_to: int | None = None
    """Rows that each video was resampled to, whatever its length: row i is the i-th of so many equal parts."""

    def __post_init__(self) -> None:
        parts = (self.stride, self.window)
        if self.resampled_to is not None and (self.fps, *parts) != (None, None, None):
            raise ConfigError("Resampled features have no stride: give --resampled-to, or --fps --stride --window.")
        if (self.stride is None) != (self.window is None):
            raise ConfigError("A time base needs both --stride and --window, in frames, and --fps.")
        if self.resampled_to is not None and self.resampled_to < 1:
            raise ConfigError(f"--resampled-to counts rows and must be at least 1, found {self.resampled_to}.")

    def timebase(self, rows: Rows, video: Known) -> Timebase:
        """Time base of one video.

        Raises:
            ConfigError: It is not known.
        """
        if self.resampled_to is not None:
            return Timebase(fps=self.resampled_to / video.duration, stride=1.0, window=1.0)
        if self.stride is None or self.window is None:
            if rows.timebase is None:
                raise ConfigError(
                    f"Nothing says which second a row of {rows.id!r} belongs to. Give --fps, --stride and --window in "
                    "frames (such as --fps 25 --stride 16 --window 16), or --resampled-to 100."
                )
            return rows.timebase
        rate = video.fps if self.fps is None else self.fps
        if rate is None:
            raise ConfigError(
                "A stride in frames needs a rate: give --fps, or --videos DIR with the videos themselves."
            )
        return Timebase(fps=rate, stride=self.stride, window=self.window)


@dataclass(frozen=True)
class Known:
    """What is known about a video from elsewhere."""

    duration: float
    """Seconds."""
    fps: float | None = None
    """Frames a second."""


def import_features(source: Path, out: Path, meaning: Meaning, known: Mapping[str, Known]) -> int:
    """Makes a store of foreign features, or completes it; returns how many videos were written.

    Every video's number of features is compared with what its duration and the time base promise, before anything is
    written. Videos of unknown duration are left out and named.

    Raises:
        ConfigError: The time base is not known, or does not fit. CheckpointError: A file cannot be used.
    """
    widths, missing, wrong, total = set(), [], [], hashlib.sha256()
    for rows in read_foreign(source):
        video = _known(rows, known)
        if video is None:
            missing.append(rows.id)
            continue
        base = meaning.timebase(rows, video)
        if abs(len(rows.values) - expected_count(base, video.duration)) > SLACK:
            wrong.append((rows, base, video))
        widths.add(rows.values.shape[1])
        total.update(rows.id.encode() + hashlib.sha256(rows.values.tobytes()).digest())
    _check(source, widths, missing, wrong)
    description = {
        "encoder_digest": total.hexdigest(),
        "width": widths.pop(),
        "interval": meaning.stride,
        "fps": meaning.fps,
        "resampled_to": meaning.resampled_to,
        "imported": True,
    }
    with writing(out):
        store, written = FeatureStore.create(out, description), 0
        for rows in read_foreign(source):
            video = _known(rows, known)
            if video is not None and rows.id not in store:
                values = torch.from_numpy(rows.values)
                store.write(Features(rows.id, values, meaning.timebase(rows, video), video.duration))
                written += 1
    return written


def expected_count(base: Timebase, duration: float) -> int:
    """Features that a video of this length has, counted as `uptal.clips.extraction_frames` does."""
    return max(1, math.floor((duration * base.fps - base.window) / base.stride + 0.5) + 1)


def export_features(
    store: FeatureStore, target: Path, kind: Format, steps: int | None = None, rule: Rule = "linear"
) -> int:
    """Writes a store's features for other projects, as they are or resampled to `steps`; returns how many videos.

    Raises:
        ConfigError: BMN's rule is asked for, and features overlap or leave gaps.
    """
    return write_foreign(target, kind, (_resampled(store.read(id), steps, rule) for id in store.ids))


def read_known(durations: Path | None, videos: Path | None) -> dict[str, Known]:
    """Durations from an annotation file or a table `video,duration`, or from the videos themselves.

    Raises:
        AnnotationError: The file is neither.
    """
    if videos is not None:
        return dict(_probed(videos))
    if durations is None:
        return {}
    try:
        return {video.id: Known(video.duration) for video in read_annotations(durations).values()}
    except AnnotationError as error:
        try:
            return {id: Known(seconds) for id, seconds in read_durations(durations).items()}
        except AnnotationError:
            raise error from None


def _probed(videos: Path) -> Iterator[tuple[str, Known]]:
    for path in find_videos(videos):
        try:
            info = probe(path)
        except VideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        yield path.stem, Known(info.duration, info.fps)


def _known(rows: Rows, known: Mapping[str, Known]) -> Known | None:
    """What is known from elsewhere, or else from the file itself."""
    if rows.id in known:
        return known[rows.id]
    return None if rows.duration is None else Known(rows.duration, rows.timebase.fps if rows.timebase else None)


def _check(source: Path, widths: set[int], missing: list[str], wrong: list[tuple[Rows, Timebase, Known]]) -> None:
    if not widths:
        raise ConfigError(
            f"{source}: no video of known duration among {len(missing)} (first: {', '.join(missing[:3]) or 'none'}). "
            "Give --durations FILE (a table video,duration or annotations), or --videos DIR."
        )
    if missing:
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        print(f"{len(missing)} videos of unknown duration are left out: {listed}", file=sys.stderr)
    if len(widths) > 1:
        raise CheckpointError(f"{source}: features are of different widths: {sorted(widths)}. A store holds one kind.")
    if wrong:
        rows, base, video = wrong[0]
        raise ConfigError(
            f"{source}: the time base does not fit {len(wrong)} videos. {rows.id} has {len(rows.values)} features; "
            f"{video.duration:g} s at {base.fps:g} frames a second, a feature every {base.stride:g} frames over "
            f"{base.window:g}, make {expected_count(base, video.duration)}.{_suggestion(wrong)}"
        )


def _suggestion(wrong: list[tuple[Rows, Timebase, Known]]) -> str:
    strides = [
        (video.duration * base.fps - base.window) / (len(rows.values) - 1)
        for rows, base, video in wrong
        if len(rows.values) > 1 and video.duration * base.fps > base.window
    ]
    if not strides:
        return " Check the durations."
    if len({len(rows.values) for rows, _, _ in wrong}) == 1 < len(wrong):
        return f" All have {len(wrong[0][0].values)} rows: were they resampled? Then --resampled-to says so."
    return f" A stride of {np.median(strides):.2f} frames would fit the middle one."


def _resampled(features: Features, steps: int | None, rule: Rule) -> Features:
    if steps is None:
        return features
    base = features.timebase
    if rule == "csv_mean" and (base.stride != base.window or base.stride % 1):
        raise ConfigError(
            f"BMN's rule is for clips back to back; {features.id!r} has one every {base.stride:g} frames over "
            f"{base.window:g}. Use --rule linear."
        )
    if rule == "csv_mean":
        frames, seconds, snippet = features.duration * base.fps, features.duration, int(base.stride)
        rows = csv_mean_100(features.values.numpy(), frames, seconds, num_steps=steps, snippet=snippet)
        values = torch.from_numpy(rows)
    else:
        values = resample(features, steps).T.contiguous()
    return replace(features, values=values, timebase=Timebase(fps=steps / features.duration, stride=1.0, window=1.0))
