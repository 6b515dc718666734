"""From a feature store and annotations to a localizer that stands alone, and from there to detections.

RUN/localizer.safetensors/json  BMN, class-score classifier, labels, settings
RUN/encoder.safetensors/json    the encoder that the features came from
RUN/features.json               how features are laid on a video
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from uptal.annotations import match_ids, read_annotations
from uptal.distributed import World
from uptal.errors import AnnotationError, CheckpointError, ConfigError, UptalError
from uptal.features import Features, FeatureStore, resample
from uptal.files import atomic_write, digest
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.bmn_data import BMNData, BMNTask, known_videos
from uptal.localizers.classifier import SegmentClassifier, mean_feature
from uptal.postprocess import fuse
from uptal.recipes.settings import from_plain
from uptal.run import RunFolder, plain
from uptal.train import OptimConfig, Outcome, choose_device, fit
from uptal.types import Detections, Video


def _bmn_schedule() -> OptimConfig:
    return OptimConfig(
        lr=1e-3, lr_batch=16, weight_decay=1e-4, batch=16, epochs=9, schedule="multistep", milestones=(7,), log_every=5
    )


@dataclass(frozen=True, kw_only=True)
class LocalizeConfig:
    """Training of a BMN on stored features; the defaults are the published ActivityNet recipe's."""

    bmn: BMNConfig = field(default_factory=lambda: BMNConfig(in_channels=400))
    """The network; `in_channels` is taken from the store."""
    optim: OptimConfig = field(default_factory=_bmn_schedule)
    """Adam 1e-3, weight decay 1e-4, batch 16, 9 epochs, a tenth of the rate for the last two (public BMN code)."""
    subset: str = "training"
    """Subset of the annotations to train on."""
    class_scores: Literal["video", "segment"] = "video"
    """Classes of a whole video times proposal scores, as published numbers have it, or classes of each proposal."""
    top_classes: int = 2
    """Classes that every proposal is written out with."""
    classifier_decay: float = 1e-2
    """Weight decay of the class-score classifier."""
    seed: int = 0
    """Seed of initial weights, order and loss sampling."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""


def small(cfg: LocalizeConfig) -> LocalizeConfig:
    """A reduced BMN for short videos and two CPU cores: 32 steps, 8 samples, narrow layers, 20 epochs."""
    bmn = replace(cfg.bmn, num_steps=32, num_samples=8, hidden=(64, 32, 128))
    return replace(cfg, bmn=bmn, optim=replace(cfg.optim, epochs=20, milestones=(16,), log_every=2))


@dataclass(frozen=True)
class Localizer:
    """A trained localizer as it was read back."""

    model: BMN
    classifier: SegmentClassifier
    settings: LocalizeConfig
    features: dict[str, Any]
    """Description of the store that it was trained on: encoder digest, interval, width."""
    path: Path


def train_bmn(cfg: LocalizeConfig, features: Path, annotations: Path, run_path: Path) -> Outcome:
    """Trains BMN and the class-score classifier; leaves everything that `detect` needs in the run folder.

    Raises:
        AnnotationError: Annotations and store share no video. ConfigError: Settings that cannot be used.
    """
    device, store, run = choose_device(cfg.device), FeatureStore(features), RunFolder(run_path)
    videos, missing = labelled_videos(store, annotations, cfg.subset)
    cfg = replace(cfg, bmn=replace(cfg.bmn, in_channels=store.width))
    with run.locked():
        run.write_config(plain(cfg) | _origin(store, annotations))
        run.write_environment(device=str(device), videos=len(videos), missing=missing)
        torch.manual_seed(cfg.seed)
        task = BMNTask(BMN(cfg.bmn)).to(device)
        data = BMNData(store, videos, cfg.bmn, cfg.optim.part(1), cfg.seed)
        outcome = fit(task, data, cfg.optim, run, device=device, world=World(0, 1, 0))
        classifier = train_classifier(store, videos, cfg.classifier_decay)
        save_localizer(run_path, task.model.cpu(), classifier, cfg, store)
    return outcome


def _origin(store: FeatureStore, annotations: Path) -> dict[str, Any]:
    """Where features and annotations were, and what was in them: others would be another run."""
    return {
        "features": str(store.path.resolve()),
        "features_sha256": store.digest(),
        "annotations": str(annotations.resolve()),
        "annotations_sha256": digest(annotations),
    }


def labelled_videos(store: FeatureStore, annotations: Path, subset: str) -> tuple[list[Video], list[str]]:
    """Videos of a subset that have features, and the names of those that have none.

    Raises:
        AnnotationError: There are none; the message says what each side holds.
    """
    annotated = read_annotations(annotations)
    videos, missing = known_videos(store, annotated, subset)
    if not videos:
        subsets = ", ".join(sorted({video.subset for video in annotated.values()})) or "none"
        raise AnnotationError(
            f"{annotations}: no video of subset {subset!r} has features in {store.path}. Subsets there: {subsets}. "
            f"{match_ids([v.id for v in annotated.values()], store.ids).describe()}"
        )
    return videos, missing


def train_classifier(store: FeatureStore, videos: Sequence[Video], weight_decay: float) -> SegmentClassifier:
    """A linear classifier on the mean feature of every annotated segment."""
    rows, names = [], []
    for video in videos:
        read = store.read(video.id)
        for segment in video.segments:
            if segment.label is not None:
                rows.append(segment_feature(read, segment.start, segment.end))
                names.append(segment.label)
    labels = sorted(set(names))
    classifier = SegmentClassifier(store.width, labels)
    if len(labels) > 1:
        target = torch.tensor([labels.index(name) for name in names])
        classifier.learn(torch.stack(rows), target, weight_decay=weight_decay)
    return classifier.eval()


def segment_feature(features: Features, start: float, end: float) -> torch.Tensor:
    """Mean of the features whose centres lie between two seconds."""
    base = features.timebase
    return mean_feature(features.values, np.ceil(base.index(start)), np.floor(base.index(end)))


def save_localizer(
    path: Path, model: BMN, classifier: SegmentClassifier, cfg: LocalizeConfig, store: FeatureStore
) -> None:
    """Writes weights, labels, settings and a copy of the encoder into the run."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"classifier.{k}": v for k, v in classifier.state_dict().items()}
    with atomic_write(path / "localizer.safetensors", "wb") as out:
        out.write(save({name: value.detach().contiguous() for name, value in tensors.items()}))
    record = {"kind": "bmn", "settings": plain(cfg), "labels": classifier.labels}
    with atomic_write(path / "localizer.json") as out:
        json.dump(record | {"sha256": digest(path / "localizer.safetensors")}, out, indent=1)
    with atomic_write(path / "features.json") as out:
        json.dump(store.description, out, indent=1)
    for name in ("encoder.safetensors", "encoder.json"):
        if (store.path / name).is_file():
            with atomic_write(path / name, "wb") as out, open(store.path / name, "rb") as source:
                shutil.copyfileobj(source, out)


def load_localizer(path: Path) -> Localizer:
    """Reads a localizer back.

    Raises:
        CheckpointError: The run holds none, or its files are damaged or do not fit each other.
    """
    weights = path / "localizer.safetensors"
    try:
        record = json.loads((path / "localizer.json").read_text("utf-8"))
        description = json.loads((path / "features.json").read_text("utf-8"))
        lacking = {"encoder_digest", "interval", "width"} - description.keys()
        if lacking:
            raise ValueError(f"features.json lacks {', '.join(sorted(lacking))}")
        if record["kind"] != "bmn" or digest(weights) != record["sha256"]:
            raise CheckpointError(
                f"{weights}: damaged, or not a BMN ({record['kind']}). Train it again or copy it again."
            )
        settings = from_plain(LocalizeConfig, record["settings"])
        tensors = load_file(weights)
        model = BMN(settings.bmn)
        classifier = SegmentClassifier(settings.bmn.in_channels, record["labels"])
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        classifier.load_state_dict({k[11:]: v for k, v in tensors.items() if k.startswith("classifier.")})
    except CheckpointError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
        UptalError,
    ) as error:
        reason = " ".join(str(error).split()[:40])
        raise CheckpointError(
            f"{path}: holds no usable localizer ({reason}). Make one with `uptal train bmn --features STORE "
            "--annotations FILE --run RUN`."
        ) from error
    return Localizer(model.eval(), classifier.eval(), settings, description, path)


def predict(
    localizer: Localizer, features: Sequence[Features], *, proposals_only: bool = False
) -> dict[str, Detections]:
    """Detections (or class-agnostic proposals) of each video, in seconds, best first."""
    settings, found = localizer.settings, {}
    for begin in range(0, len(features), 16):
        part = features[begin : begin + 16]
        steps = torch.stack([resample(read, settings.bmn.num_steps) for read in part])
        durations = torch.tensor([read.duration for read in part])
        for read, proposals in zip(part, localizer.model.predict(steps, durations), strict=True):
            found[read.id] = proposals if proposals_only else name_proposals(localizer, read, proposals)
    return found


def name_proposals(localizer: Localizer, features: Features, proposals: Detections) -> Detections:
    """Gives proposals their classes; score = proposal's score times class score (see `LocalizeConfig.class_scores`)."""
    settings, labels = localizer.settings, localizer.classifier.labels
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


def check_store(localizer: Localizer, store: FeatureStore) -> None:
    """Refuses features of another encoder.

    Raises:
        CheckpointError: Saying both sides.
    """
    mine = localizer.features
    for key in ("encoder_digest", "width", "interval", "preprocessing"):
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
