"""What the demo measures on one encoder: a localizer on its features, its detections, and how well classes are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uptal.annotations import write_detections
from uptal.features import Features, FeatureStore
from uptal.metrics import detection_map, proposal_recall
from uptal.recipes import heads
from uptal.recipes import pretrain as recipes
from uptal.recipes.localize import segment_feature, train_localizer
from uptal.recipes.localizer_files import Localizer, load_localizer
from uptal.recipes.predicting import predict, read_all
from uptal.types import Video


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a demo plays, and how."""

    out: Path
    corpus: Path
    truth: dict[str, Video]
    """The validation videos."""
    full: bool
    seed: int
    device: str


def score(localizer: str, encoder: str, stage: Stage) -> dict[str, Any]:
    """Trains a localizer on the features of an encoder and evaluates it on the validation videos."""
    settings = replace(heads.recipe(localizer, None if stage.full else "small"), seed=stage.seed, device=stage.device)
    store, run = stage.out / "features" / encoder, localizer_run(stage.out, localizer, encoder)
    if not train_localizer(settings, store, stage.corpus / "annotations.json", run).finished:
        raise KeyboardInterrupt
    return evaluate_run(run, store, stage.truth, stage.out / "found" / run.name)


def localizer_run(out: Path, localizer: str, encoder: str) -> Path:
    """The run folder of a localizer."""
    return out / "localizers" / f"{encoder}_{localizer}"


def evaluate_run(run: Path, store: Path, truth: dict[str, Video], found: Path) -> dict[str, Any]:
    """Detection mAP and proposal recall of one localizer on the validation videos; predictions are kept."""
    localizer = load_localizer(run)
    features = read_all(FeatureStore(store), list(truth))
    detections = predict(localizer, features)
    proposals = predict(localizer, features, proposals_only=True)
    write_detections(found / "detections.json", detections)
    write_detections(found / "proposals.json", proposals)
    # a class may lack test videos, and predictions of it are wrong wherever they are
    precision = detection_map(truth, detections, unknown_labels="false-positive").to_json()
    recall = proposal_recall(truth, proposals).to_json()
    return {
        "average_mAP": precision["average_mAP"],
        "mAP": precision["mAP"],
        "AUC": recall["AUC"],
        "AR": recall["AR"],
        "class_accuracy": class_accuracy(localizer, features, truth),
    }


def class_accuracy(localizer: Localizer, features: Sequence[Features], truth: dict[str, Video]) -> float:
    """Share of the annotated segments whose class the linear classifier tells from their mean feature."""
    rows, answers = [], []
    for read in features:
        for segment in truth[read.id].segments:
            rows.append(segment_feature(read, segment.start, segment.end))
            answers.append(segment.label)
    with torch.no_grad():
        chosen = localizer.classifier(torch.stack(rows)).argmax(1).tolist()
    return float(np.mean([localizer.classifier.labels[k] == label for k, label in zip(chosen, answers, strict=True)]))


def budget(cfg: recipes.PretrainConfig, steps: int) -> tuple[int, int]:
    """Positive pairs compared and clips encoded by a run."""
    timeline = cfg.data.timeline
    samples = steps * cfg.optim.batch * timeline.regions
    return (samples if cfg.method == "pal" else 0), samples * timeline.views * timeline.clips
