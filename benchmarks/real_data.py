"""Localizers on real untrimmed videos: per-second class scores of a spatial CNN with a linear SVM, 50 Salads and GTEA.

    python benchmarks/real_data.py --data untrimmed-scores --work /tmp/real --out benchmarks/results/real-data.json

`--data` is a copy of the folders `predictions` and `splits` of github.com/colincsl/TemporalConvolutionalNetworks. The
scores (11 or 18 numbers a step) serve as features, runs of equal labels as annotated instances, label 0 as background.
What is finished is skipped: the command may be repeated with more `--seeds`, `--splits` or `--datasets`.

Time: 50 Salads has one score a second. Its annotations, which are in the same repository in microseconds, say so: in
06-1 the first three activities begin 0, 23.0 and 31.3 seconds after the first of all, and the last ends after 280.3;
the labels change at steps 0, 23 and 32, and there are 281. GTEA has none there; five frames a step at 15 frames a
second fit the lengths of its videos, so three steps a second. mAP does not depend on the unit.
Each video's scores are from an SVM that had not seen that video, but an SVM behind a training video's scores may have
seen the test videos. Needs scipy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch

from uptal.annotations import read_annotations
from uptal.features import Features, FeatureStore
from uptal.files import atomic_write
from uptal.localizers.samples import CutConfig
from uptal.metrics import detection_map, proposal_recall
from uptal.recipes import heads
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.localize import train_localizer
from uptal.recipes.localizer_files import load_localizer
from uptal.recipes.predicting import predict, read_all
from uptal.run import environment, plain
from uptal.types import Detections, Timebase, Video

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Dataset:
    """Where a data set's scores are, and how fast they follow each other."""

    scores: str
    splits: str
    rate: float
    """Steps a second."""


DATASETS = {
    "50salads": Dataset(
        "predictions/50Salads/mid/mid_video_SVM/Split_{}.mat", "splits/50Salads/Split_{}/test.txt", 1.0
    ),
    "gtea": Dataset("predictions/GTEA/video_SVM/{}.mat", "splits/GTEA/Split_{}/test.txt", 3.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file with all results")
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--localizers", nargs="+", default=["bmn", "gtad", "actionformer"])
    parser.add_argument("--splits", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    for dataset in options.datasets:
        videos = list(read_videos(options.data, DATASETS[dataset]))
        for split in options.splits:
            place = convert(videos, split, options.work / f"{dataset}-{split}")
            done |= {f"{dataset}/{split}/svm": baseline(videos, place)}
            for localizer in options.localizers:
                for seed in options.seeds:
                    key = f"{dataset}/{split}/{localizer}/{seed}"
                    if key not in done:
                        done[key] = run(settings(localizer, seed), place, f"{localizer}-{seed}")
                        print(key, {name: round(done[key][name], 4) for name in ("average_mAP", "AUC", "seconds")})
                    with atomic_write(options.out) as file:
                        json.dump(done, file, indent=1)


@dataclass(frozen=True)
class Scored:
    """One video of the data."""

    features: Features
    labels: np.ndarray
    split: int
    """The split that tests on it."""


def read_videos(data: Path, dataset: Dataset) -> Iterator[Scored]:
    """All videos that some split tests on and that the data hold."""
    base = Timebase(fps=dataset.rate, stride=1.0, window=1.0)
    for split in range(1, 6):
        file = data / dataset.scores.format(split)
        if not file.exists():
            continue
        content = scipy.io.loadmat(file)
        names = (data / dataset.splits.format(split)).read_text("utf-8").split()
        for name, scores, labels in zip(names, content["S"][0], content["Y"][0], strict=True):
            if len(scores) != labels.size:
                raise ValueError(f"{file}: {name} has {len(scores)} scores and {labels.size} labels")
            values = torch.from_numpy(scores.astype(np.float32))
            yield Scored(Features(name, values, base, len(scores) / dataset.rate), labels.ravel(), split)


def runs(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """First step, step after the last, and label of every stretch of equal labels.

    >>> runs(np.array([0, 2, 2, 1]))
    [(0, 1, 0), (1, 3, 2), (3, 4, 1)]
    """
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [(a, b, int(labels[a])) for a, b in itertools.pairwise(edges)]


def convert(videos: list[Scored], split: int, place: Path) -> Path:
    """`store/` and `annotations.json` of one split, in `place`."""
    width = videos[0].features.values.shape[1]
    facts = {"encoder_digest": "0" * 64, "width": width, "interval": 1, "preprocessing": {}, "decoder": "imported"}
    store = FeatureStore.create(place / "store", facts)
    database = {}
    for video in videos:
        store.write(video.features)
        rate = video.features.timebase.fps
        database[video.features.id] = {
            "duration": video.features.duration,
            "subset": "validation" if video.split == split else "training",
            "annotations": [
                {"segment": [a / rate, b / rate], "label": f"class_{label}"}
                for a, b, label in runs(video.labels)
                if label
            ],
        }
    with atomic_write(place / "annotations.json") as file:
        json.dump({"database": database}, file)
    return place


def settings(localizer: str, seed: int) -> LocalizeConfig:
    """The `small` recipes with windows of 64 steps for the two that need a fixed length, and classes by segment."""
    cfg: Any = heads.recipe(localizer, "small")
    if localizer == "actionformer":
        optim = replace(cfg.optim, batch=4, lr_batch=4, lr=1e-3, epochs=40, warmup_epochs=4.0, log_every=100)
    else:
        net = replace(getattr(cfg, localizer), num_steps=64) if localizer == "bmn" else replace(
            cfg.gtad, num_steps=64, max_duration=64
        )  # fmt: skip
        optim = replace(cfg.optim, epochs=10, milestones=(8,), log_every=100)
        cfg = replace(cfg, **{localizer: net}, cut=CutConfig(mode="windows"), class_scores="segment")
    return replace(cfg, optim=optim, seed=seed, device="cpu")


def run(cfg: LocalizeConfig, place: Path, name: str) -> dict[str, Any]:
    """Trains on the split's training part and scores its test part."""
    clock = time.process_time()
    if not train_localizer(cfg, place / "store", place / "annotations.json", place / name).finished:
        raise KeyboardInterrupt
    seconds = time.process_time() - clock
    truth = read_annotations(place / "annotations.json", "validation")
    localizer, features = load_localizer(place / name), read_all(FeatureStore(place / "store"), list(truth))
    found, proposals = predict(localizer, features), predict(localizer, features, proposals_only=True)
    recall = proposal_recall(truth, proposals).to_json()
    versions = {"uptal": environment()["packages"]["uptal"], "torch": torch.__version__}
    facts = {"seconds": seconds, "seed": cfg.seed, "config": plain(cfg), "versions": versions}
    return score(truth, found) | {"AUC": recall["AUC"], "AR": recall["AR"]} | facts


def baseline(videos: list[Scored], place: Path) -> dict[str, Any]:
    """What the SVM says by itself: stretches of its best class, scored by the mean margin over the second best."""
    truth, found = read_annotations(place / "annotations.json", "validation"), {}
    for video in videos:
        if video.features.id in truth:
            scores = video.features.values.numpy()
            margin = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
            parts = [part for part in runs(scores.argmax(1)) if part[2]]
            rate = video.features.timebase.fps
            found[video.features.id] = Detections(
                np.array([[a / rate, b / rate] for a, b, _ in parts]).reshape(-1, 2),
                np.array([margin[a:b].mean() for a, b, _ in parts]),
                tuple(f"class_{label}" for _, _, label in parts),
            )
    return score(truth, found)


def score(truth: dict[str, Video], found: dict[str, Detections]) -> dict[str, Any]:
    """mAP at tIoU 0.3 to 0.7."""
    return detection_map(truth, found, tious=TIOUS, unknown_labels="false-positive").to_json()


if __name__ == "__main__":
    main()
