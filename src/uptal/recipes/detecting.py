"""My video in, localised actions out: a run folder and video files become JSON, CSV, SRT and a page."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from uptal.annotations import match_ids, read_annotations, write_csv, write_detections, write_srt
from uptal.encoders import load_encoder
from uptal.errors import CheckpointError, ConfigError, UptalError, VideoError
from uptal.features import Features, FeatureStore, Work, extract
from uptal.postprocess import nms
from uptal.recipes import naming
from uptal.recipes.extracting import described, unique_stems
from uptal.recipes.localizer_files import Trained, load_localizer
from uptal.recipes.predicting import classes_from, origin, predict
from uptal.report import Column, Report, Table, VideoPanel, write_report
from uptal.run import environment
from uptal.similarity import self_similarity
from uptal.train import choose_device
from uptal.types import Detections, Video
from uptal.video import Quarantine

SHOWN = 0.3
"""Share of a video's best score above which a segment is shown at first and written to subtitles."""

_BATCH = 8
"""Clips a forward pass; a few videos seldom fill larger batches, and what is missing is computed in vain."""


def detect(
    run: str | Path,
    videos: Sequence[str | Path],
    out: str | Path,
    *,
    annotations: str | Path | None = None,
    device: str = "auto",
    min_score: float | None = None,
    classes: str | None = None,
) -> dict[str, Detections]:
    """Finds actions in videos with a trained run, and writes what `uptal detect` promises into `out`.

    Args:
        run: Folder of `uptal train`; nothing else is needed.
        videos: Video files; unreadable ones are named at the end.
        out: Folder for detections.json, <stem>.csv, <stem>.srt and report.html.
        annotations: Ground truth to show beside the predictions.
        device: `auto`, `cpu`, `cuda`.
        min_score: Lowest score in subtitles and at the slider's start; by default a share of each video's best score.
        classes: Vocabulary of the encoder's own classifier, such as `kinetics400`, to name segments with; by default
            the localizer's own classes. The five likeliest of each go to classes.json, classes.csv and the page.

    Returns:
        All detections of each readable video, in seconds, best first.

    Raises:
        VideoError: The video cannot be read. CheckpointError: The run cannot be used.
        ConfigError: None of several videos can be read, or one is a folder or not there. The run's encoder has no
            classifier for `classes`, or `annotations` has none of the videos.
    """
    paths, out = [Path(path) for path in videos], Path(out)
    localizer = load_localizer(Path(run))
    saved = None if classes is None else load_encoder(localizer.path)
    if saved is not None and classes is not None:
        naming.check_vocabulary(saved, classes, run)
    truth = truth_of(annotations, paths) if annotations else {}
    features, quarantine = video_features(localizer, paths, device)
    if not features:
        raise nothing_readable(quarantine)
    localizer.model.to(choose_device(device))
    found, named = predict(localizer, features, proposals_only=saved is not None), []
    if saved is not None and classes is not None:
        named = [(read.id, naming.name_segments(saved, read, found[read.id])) for read in features]
        found = {id: each.detections for id, each in named}
        naming.write_top(out, classes, dict(named))
    sources = {path.stem: path for path in paths}
    shown = {id: visible(detections, min_score) for id, detections in found.items()}
    chosen = classes_from(localizer) if classes is None else {"from": "the encoder's classifier", "vocabulary": classes}
    write_detections(out / "detections.json", found, about=origin(localizer, chosen, None))
    for id, detections in found.items():
        write_csv(out / f"{id}.csv", {id: detections})
        write_srt(out / f"{id}.srt", shown[id])
    panels = [panel(sources[read.id], read, found[read.id], truth.get(read.id), shown[read.id]) for read in features]
    note = f"Detections of {len(features)} {'video' if len(features) == 1 else 'videos'} by {Path(run).name}. "
    skipped = quarantine.summary()
    facts = environment() | {"run": str(Path(run).name), "encoder": localizer.features["encoder_digest"][:16]}
    report = Report(
        title="Detected actions", summary=[note + skipped], sections=[*panels, *_top_table(named)], facts=facts
    )
    for message in write_report(out / "report.html", report):
        print(message)
    print(skipped, end="", file=sys.stderr)
    return found


def truth_of(annotations: str | Path, paths: Sequence[Path]) -> dict[str, Video]:
    """Ground truth by video id; says which of the videos it lacks.

    Raises:
        ConfigError: It has none of them.
    """
    truth = read_annotations(annotations)
    match = match_ids(list(truth), [path.stem for path in paths])
    if not match.both:
        raise ConfigError(
            f"{annotations} names none of the {len(paths)} videos; ids are file stems. {match.describe()}"
        )
    if match.only_at_hand:
        print(f"{annotations}: {match.describe()}", file=sys.stderr)
    return truth


def _top_table(named: Sequence[tuple[str, naming.Named]]) -> list[Table]:
    if not named:
        return []
    columns = ["Video", Column("start"), Column("end"), "Likeliest classes"]
    return [Table(title="What the encoder's own classifier sees", columns=columns, rows=naming.table_rows(named))]


def video_features(localizer: Trained, paths: Sequence[Path], device: str) -> tuple[list[Features], Quarantine]:
    """Features of videos by the encoder that the run carries, in the order of `paths`."""
    target, saved = choose_device(device), load_encoder(localizer.path)
    if saved.digest != localizer.features["encoder_digest"]:
        raise CheckpointError(
            f"{localizer.path}: its encoder is {saved.digest[:12]}, its localizer was trained on features of "
            f"{localizer.features['encoder_digest'][:12]}. Train the localizer again."
        )
    check_files(paths)
    clip, sampling = described(localizer.features)
    quarantine = Quarantine(total=len(paths), limit=1.0)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(folder, localizer.features)
        extract(
            paths, store, saved.encoder, clip, sampling,
            device=target, work=Work(batch=_BATCH), quarantine=quarantine,
        )  # fmt: skip
        return [store.read(path.stem) for path in paths if path.stem in store], quarantine


def check_files(paths: Sequence[Path]) -> None:
    """Looks at the names of videos before any work.

    Raises:
        ConfigError: A folder in the place of a file, a file that does not exist, or two of one stem.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders:
        raise ConfigError(f"{folders[0]} is a folder; give video files, such as {folders[0]}/*.mp4.")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ConfigError(
            f"Of {len(paths)} videos these do not exist: {', '.join(missing[:8])}{more}. Check the paths."
        )
    unique_stems(paths)


def nothing_readable(quarantine: Quarantine) -> UptalError:
    """What to raise when every video failed; it names all of them."""
    if quarantine.total == 1:
        ((path, reason),) = quarantine.failures.items()
        return VideoError(path, reason)
    return ConfigError(f"None of the {quarantine.total} videos can be used.\n{quarantine.summary().rstrip()}")


def visible(found: Detections, min_score: float | None) -> Detections:
    """What a person wants to see first: no two segments on the same spot, nothing far below the best."""
    best = nms(found, threshold=0.3, max_output=50)
    if not len(best):
        return best
    lowest = SHOWN * float(best.scores.max()) if min_score is None else min_score
    keep = best.scores >= lowest
    labels = (
        None if best.labels is None else tuple(label for label, kept in zip(best.labels, keep, strict=True) if kept)
    )
    return Detections(best.segments[keep], best.scores[keep], labels)


def panel(
    path: Path, features: Features, found: Detections, truth: Video | None, shown: Detections | None = None
) -> VideoPanel:
    """A video with its annotations, predictions and similarity map for a page."""
    threshold = float(shown.scores.min()) if shown is not None and len(shown) else None
    return VideoPanel(
        id=features.id,
        video_path=path,
        duration=features.duration,
        truth=None if truth is None else truth.segments,
        predictions=nms(found, threshold=0.6, max_output=40) if len(found) else found,
        similarity=self_similarity(features.values.numpy(), centre=True),
        timebase=features.timebase,
        threshold=threshold,
    )
