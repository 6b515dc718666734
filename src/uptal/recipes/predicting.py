"""Stored features in, named and scored segments in seconds out, with a localizer that was trained before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from uptal.annotations import match_ids
from uptal.errors import CheckpointError, ConfigError
from uptal.features import Features, FeatureStore
from uptal.files import digest
from uptal.localizers.samples import by_video, cut_video
from uptal.postprocess import fuse
from uptal.recipes import heads
from uptal.recipes.localize import segment_feature
from uptal.recipes.localizer_files import Localizer, Trained
from uptal.run import environment
from uptal.types import Detections

_BATCH = 16
"""Samples a forward pass."""


def predict(
    localizer: Localizer,
    features: Sequence[Features],
    *,
    proposals_only: bool = False,
    class_scores: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Detections]:
    """Detections (or class-agnostic proposals) of each video, in seconds, best first.

    Args:
        localizer: A trained localizer.
        features: Features of the same encoder.
        proposals_only: Segments without classes.
        class_scores: Scores of each video's classes from another classifier, by video id; they take the place of our
            own classifier and of the localizer's own classes.

    Raises:
        ConfigError: `class_scores` lacks a video.
    """
    if class_scores is not None:
        check_class_scores(class_scores, [read.id for read in features])
    found = localize(localizer, features, named=class_scores is None and not proposals_only)
    if proposals_only:
        return found
    if class_scores is None:
        return {read.id: name_proposals(localizer, read, found[read.id]) for read in features}
    top = localizer.settings.top_classes
    return {id: fuse(each, class_scores[id], min(top, len(class_scores[id]))) for id, each in found.items()}


def origin(localizer: Localizer, classes: Mapping[str, Any] | None, store: FeatureStore | None) -> dict[str, Any]:
    """How predictions were made, to stand in their file: run, features, class scores, versions.

    Args:
        localizer: What predicted.
        classes: Where the classes came from; `None` if they were left out.
        store: From what; `None` for features that were not kept.
    """
    return {
        "run": str(localizer.path),
        "localizer": heads.kind(localizer.settings),
        "localizer_sha256": digest(localizer.path / "localizer.safetensors"),
        "seed": localizer.settings.seed,
        "store": None if store is None else str(store.path),
        "store_sha256": None if store is None else store.digest(),
        "encoder_digest": localizer.features["encoder_digest"],
        "class_scores": None if classes is None else dict(classes),
        "environment": environment(),
    }


def classes_from(localizer: Localizer, file: str | None = None) -> dict[str, Any]:
    """Where classes come from: a file of class scores, or the run, which is its classifier or a localizer that tells
    classes apart itself."""
    top = {"top_classes": localizer.settings.top_classes}
    if file is not None:
        return {"from": "file", **top, "file": file, "sha256": digest(file)}
    return {"from": "the localizer"} if heads.names_classes(localizer.settings) else {"from": "the run", **top}


def check_class_scores(class_scores: Mapping[str, Mapping[str, float]], ids: Sequence[str]) -> None:
    """Refuses class scores that lack a video.

    Raises:
        ConfigError: Naming what each side holds.
    """
    missing = [id for id in ids if not class_scores.get(id)]
    if missing:
        raise ConfigError(
            f"The class scores lack {len(missing)} of {len(ids)} videos, {missing[0]} among them. "
            f"{match_ids(ids, list(class_scores)).describe()}"
        )


def localize(localizer: Localizer, features: Sequence[Features], *, named: bool) -> dict[str, Detections]:
    """What the network finds in each video; if `named`, with labels where it tells classes apart itself."""
    cfg, model = localizer.settings, localizer.model
    find = model.localize if named else model.propose
    samples = [s for read in features for s in cut_video(read, None, heads.num_steps(cfg), cfg.cut)]
    parts: list[Detections] = []
    with torch.no_grad():
        for begin in range(0, len(samples), _BATCH):
            parts += find(samples[begin : begin + _BATCH])
    return {
        id: model.merge([samples[i] for i in places], [parts[i] for i in places])
        for id, places in by_video(samples).items()
    }


def name_proposals(localizer: Localizer, features: Features, proposals: Detections) -> Detections:
    """Gives proposals their classes; score = proposal's score times class score (see `LocalizeConfig.class_scores`).

    What has labels already, from a localizer that tells classes apart, stays as it is.
    """
    settings, labels = localizer.settings, localizer.classifier.labels
    if proposals.labels is not None:
        return proposals
    if not len(proposals) or not labels:
        return Detections(proposals.segments, proposals.scores, (labels[0] if labels else "action",) * len(proposals))
    with torch.no_grad():
        rows = torch.stack([segment_feature(features, start, end) for start, end in proposals.segments.tolist()])
        chances = localizer.classifier(rows).numpy()
    if settings.class_scores == "video":
        best = np.argsort(-proposals.scores, kind="stable")[:10]
        mean = np.average(chances[best], axis=0, weights=np.maximum(proposals.scores[best], 1e-12))
        return fuse(proposals, dict(zip(labels, mean.tolist(), strict=True)), min(settings.top_classes, len(labels)))
    top = np.argsort(-chances, axis=1, kind="stable")[:, : settings.top_classes]
    scores = proposals.scores[:, None] * np.take_along_axis(chances, top, 1)
    segments = np.repeat(proposals.segments, top.shape[1], axis=0)
    return Detections(segments, scores.ravel(), tuple(labels[k] for k in top.ravel())).top(len(scores.ravel()))


def check_store(localizer: Trained, store: FeatureStore) -> None:
    """Refuses features of another encoder.

    Raises:
        CheckpointError: Saying both sides.
    """
    mine = localizer.features
    for key in ("encoder_digest", "width", "interval", "fps", "preprocessing"):
        if mine.get(key) != store.description.get(key):
            raise CheckpointError(
                f"{localizer.path} was trained on features with {key} {mine.get(key)}, {store.path} has "
                f"{store.description.get(key)}. Extract with the run's own encoder: uptal extract --weights "
                f"{localizer.path} --videos DIR --out STORE."
            )


def read_all(store: FeatureStore, ids: Sequence[str]) -> list[Features]:
    """Features of several videos.

    Raises:
        ConfigError: The store lacks all of them.
    """
    present = [id for id in ids if id in store]
    if not present:
        raise ConfigError(
            f"{store.path} holds none of the {len(ids)} videos asked for. {match_ids(ids, store.ids).describe()}"
        )
    return [store.read(id) for id in present]
