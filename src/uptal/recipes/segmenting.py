"""My video in, segments out, without any label: an encoder and video files become JSON, CSV, SRT and a page."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from uptal.annotations import read_annotations, write_csv, write_detections, write_srt
from uptal.device import number_format
from uptal.encoders import SavedEncoder, load_encoder
from uptal.features import Features, FeatureStore, extract
from uptal.recipes.detecting import check_files, nothing_readable, panel, visible
from uptal.recipes.extracting import ExtractConfig, describe
from uptal.report import Report, write_report
from uptal.run import environment
from uptal.similarity import SegmentConfig, find_segments
from uptal.train import choose_device
from uptal.types import Detections
from uptal.video import Quarantine


def segment(
    weights: str | Path,
    videos: Sequence[str | Path],
    out: str | Path,
    cfg: SegmentConfig = SegmentConfig(),  # noqa: B008  (frozen)
    how: ExtractConfig = ExtractConfig(),  # noqa: B008
    annotations: str | Path | None = None,
    min_score: float | None = None,
) -> dict[str, Detections]:
    """Finds where videos change and which stretches come back, and writes into `out` what `uptal detect` would.

    Args:
        weights: Run folder, feature store, weight file, or name of an encoder of the package.
        videos: Video files; unreadable ones are named at the end.
        out: Folder for detections.json, <stem>.csv, <stem>.srt and report.html.
        cfg: How segments are found.
        how: How features are made; by default half a clip from one to the next.
        annotations: Ground truth to show beside the segments.
        min_score: Lowest score in subtitles and at the slider's start; by default a share of each video's best score.

    Returns:
        All candidates of each readable video, in seconds, best first; the label is a letter, the same for stretches of
        one video that resemble each other.

    Raises:
        VideoError: The video cannot be read. ConfigError: None of several can, or one is a folder or not there.
    """
    paths, out = [Path(path) for path in videos], Path(out)
    truth = read_annotations(annotations) if annotations else {}
    saved = load_encoder(weights)
    digest = saved.digest
    features, quarantine = encode_files(saved, paths, how)
    found = {read.id: in_seconds(read, cfg) for read in features}
    shown = {id: visible(each, min_score) for id, each in found.items()}
    about = {"by": "self-similarity, without labels", "encoder": digest, "settings": vars(cfg)}
    write_detections(out / "detections.json", found, about=about)
    for id, each in found.items():
        write_csv(out / f"{id}.csv", {id: each})
        write_srt(out / f"{id}.srt", shown[id])
    sources = {path.stem: path for path in paths}
    report = Report(
        title="Segments found without labels",
        summary=[
            f"{len(features)} {'video' if len(features) == 1 else 'videos'}, cut where clips stop resembling each "
            "other. Stretches of one video with the same letter resemble each other. Nothing here knows what an action "
            "is. " + quarantine.summary()
        ],
        sections=[
            panel(sources[read.id], read, found[read.id], truth.get(read.id), shown[read.id]) for read in features
        ],
        facts=environment() | {"encoder": digest[:16], **vars(cfg)},
    )
    for message in write_report(out / "report.html", report):
        print(message)
    print(quarantine.summary(), end="", file=sys.stderr)
    return found


def in_seconds(read: Features, cfg: SegmentConfig) -> Detections:
    """The candidates of a video: boundaries lie in the middle between two clips, the ends are those of the video."""
    candidates = find_segments(read.values.numpy(), cfg)
    edges = np.array([read.timebase.centre(index - 0.5) for index in range(len(read.values) + 1)])
    edges[0], edges[-1] = 0.0, read.duration
    labels = tuple(letters(int(group)) for group in candidates.groups)
    return Detections(np.clip(edges[candidates.bounds], 0.0, read.duration), candidates.scores, labels)


def letters(number: int) -> str:
    """A, B … Z, AA, AB …

    >>> letters(0), letters(27)
    ('A', 'AB')
    """
    before, last = divmod(number, 26)
    return (letters(before - 1) if before else "") + chr(ord("A") + last)


def encode_files(saved: SavedEncoder, paths: Sequence[Path], how: ExtractConfig) -> tuple[list[Features], Quarantine]:
    """Features of the videos that can be read, half a clip from one to the next where `how` says nothing.

    Raises:
        VideoError: The video cannot be read. ConfigError: None of several can, or one is a folder or not there.
    """
    check_files(paths)
    device = choose_device(how.device)
    clip = how.clip(saved.clip)
    if how.interval is None:
        how = replace(how, interval=max(1, clip.frames * clip.stride // 2))
    sampling, quarantine = how.sampling(clip), Quarantine(total=len(paths), limit=1.0)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(folder, describe(saved, clip, sampling, number_format(how.precision, device)))
        extract(
            paths, store, saved.encoder, clip, sampling, device=device, work=how.work(), quarantine=quarantine
        )  # fmt: skip
        features = [store.read(path.stem) for path in paths if path.stem in store]
    if not features:
        raise nothing_readable(quarantine)
    return features, quarantine
