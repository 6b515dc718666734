"""From a feature store and annotations to a localizer that stands alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uptal.annotations import AMBIGUOUS, annotations_digest, match_ids, read_annotations
from uptal.distributed import World
from uptal.errors import AnnotationError
from uptal.features import Features, FeatureStore
from uptal.files import digest
from uptal.localizers.classifier import SegmentClassifier, mean_feature
from uptal.localizers.samples import cut_store
from uptal.localizers.training import LocalizerTask, SampleData
from uptal.recipes import heads
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.localizer_files import save_localizer
from uptal.run import RunFolder, plain
from uptal.train import Outcome, choose_device, fit
from uptal.types import Video


def train_localizer(
    cfg: LocalizeConfig, features: Path, annotations: Path, run_path: Path, init: Path | None = None
) -> Outcome:
    """Trains a localizer and the class-score classifier; leaves everything that `detect` needs in the run folder.

    `init` is a checkpoint of the localizer's public code to start from; with no epochs to train it is used as it is.

    Raises:
        AnnotationError: Annotations and store share no video. ConfigError: Settings that cannot be used.
        CheckpointError: `init` does not fit them.
    """
    heads.check_classes(cfg)
    device, store, run = choose_device(cfg.device), FeatureStore(features), RunFolder(run_path)
    videos, missing = labelled_videos(store, annotations, cfg.subset)
    if missing:
        named = ", ".join(missing[:8]) + (" …" if len(missing) > 8 else "")
        print(
            f"{len(missing)} annotated videos have no features in {store.path} and are left out: {named}",
            file=sys.stderr,
        )
    if AMBIGUOUS in class_names(videos):
        print(
            f"{annotations}: Ambiguous, THUMOS'14's mark of doubtful stretches, is learnt as a class here, and `uptal "
            "evaluate` then refuses predictions of it. To train without: uptal doctor annotations "
            f"{annotations} --drop-labels Ambiguous --write FILE, and --annotations FILE.",
            file=sys.stderr,
        )
    cfg = heads.fit_to(cfg, cfg.cut.channels or store.width)
    torch.manual_seed(cfg.seed)
    network = heads.build(cfg, class_names(videos)) if init is None else heads.from_official(cfg, init)
    with run.locked():
        started_from = {} if init is None else {"init": str(init.resolve()), "init_sha256": digest(init)}
        run.write_config({"localizer": heads.kind(cfg)} | plain(cfg) | _origin(store, annotations) | started_from)
        run.write_environment(device=str(device), videos=len(videos), missing=missing)
        samples = cut_store(store, videos, heads.num_steps(cfg), cfg.cut, training=True)
        task = LocalizerTask(network, cfg.ema).to(device)
        data = SampleData(samples, task.model, cfg.optim.part(1), cfg.seed)
        outcome = fit(task, data, cfg.optim, run, device=device, world=World(0, 1, 0))
        classifier = train_classifier(store, videos, cfg.classifier_decay)
        save_localizer(run_path, task.kept.cpu(), classifier, cfg, store)
    return outcome


def _origin(store: FeatureStore, annotations: Path) -> dict[str, Any]:
    """Where features and annotations were, and what was in them: others would be another run."""
    return {
        "features": str(store.path.resolve()),
        "features_sha256": store.digest(),
        "annotations": str(annotations.resolve()),
        "annotations_sha256": annotations_digest(annotations),
    }


def class_names(videos: Sequence[Video]) -> tuple[str, ...]:
    """Classes of all instances, sorted."""
    return tuple(sorted({s.label for video in videos for s in video.segments if s.label is not None}))


def labelled_videos(store: FeatureStore, annotations: Path, subset: str) -> tuple[list[Video], list[str]]:
    """Videos of a subset that have features, and the names of those that have none.

    Annotations that name no subset count as part of every one.

    Raises:
        AnnotationError: There are none, and the message says what each side holds; or nothing happens in them.
    """
    annotated = read_annotations(annotations)
    wanted = [video for video in annotated.values() if video.subset in (subset, "")]
    videos = [video for video in wanted if video.id in store]
    if not videos:
        subsets = ", ".join(sorted({video.subset for video in annotated.values()})) or "none"
        raise AnnotationError(
            f"{annotations}: no video of subset {subset!r} has features in {store.path}. Subsets there: {subsets}. "
            f"{match_ids([v.id for v in annotated.values()], store.ids).describe()}"
        )
    if not any(video.segments for video in videos):
        raise AnnotationError(
            f"{annotations}: none of the {len(videos)} videos of subset {subset!r} that have features holds an "
            "annotated instance, so there is nothing to learn. Choose another subset, or annotations with instances."
        )
    return videos, [video.id for video in wanted if video.id not in store]


def train_classifier(store: FeatureStore, videos: Sequence[Video], weight_decay: float) -> SegmentClassifier:
    """A linear classifier on the mean feature of every annotated segment."""
    rows, names = [], []
    for video in videos:
        read = store.read(video.id)
        for segment in video.segments:
            if segment.label is not None:
                rows.append(segment_feature(read, segment.start, segment.end))
                names.append(segment.label)
    labels = class_names(videos)
    classifier = SegmentClassifier(store.width, labels)
    if len(labels) > 1:
        target = torch.tensor([labels.index(name) for name in names])
        classifier.learn(torch.stack(rows), target, weight_decay=weight_decay)
    return classifier.eval()


def segment_feature(features: Features, start: float, end: float) -> torch.Tensor:
    """Mean of the features whose centres lie between two seconds."""
    base = features.timebase
    return mean_feature(features.values, np.ceil(base.index(start)), np.floor(base.index(end)))
