"""What the tables measure on an encoder: the toolkit's own localizers, trained as `uptal train` does, and classes.

Letters: N clips of a video, D feature width.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uptal.annotations import read_queries, write_annotations
from uptal.clipspec import ClipSpec
from uptal.errors import ConfigError
from uptal.evidence.films import Films, Material
from uptal.evidence.methods import EXTRACTION_STRIDE, tiny
from uptal.evidence.profiles import PROFILES, Profile, grounder, localizer
from uptal.evidence.scores import INTERVAL, encode_videos, recalibrated, told
from uptal.evidence.scores import Features as ClipFeatures
from uptal.evidence.study import Trainer
from uptal.features import Features, FeatureStore
from uptal.metrics import detection_map, proposal_recall
from uptal.pretext.supervised import Supervised
from uptal.recipes.grounding import train_grounder
from uptal.recipes.localize import train_localizer
from uptal.recipes.localizer_files import load_localizer
from uptal.recipes.predicting import predict, read_all
from uptal.recipes.pretrain import PretrainConfig, tac, with_optim, with_region
from uptal.run import RunFolder, plain
from uptal.types import Timebase, Video

STRICT = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
LOOSE = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One row with one seed, encoded, and the folder in which it is measured."""

    films: Material
    trimmed: list[np.ndarray]
    """Features (N, D) of every trimmed video."""
    untrimmed: list[np.ndarray]
    encoder: nn.Module | None
    """None for what is not a network."""
    training: PretrainConfig | None
    spec: ClipSpec
    size: Profile
    seed: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A group of numbers that one training of a head gives."""

    name: str
    columns: Mapping[str, str]
    """Names of the numbers, in percent, and their headings."""
    settings: Callable[[Profile, int], Any]
    """All that decides the numbers beside the features."""
    run: Callable[[Subject], dict[str, float]]


def store_of(subject: Subject) -> FeatureStore:
    """Features, annotations and sentences of the untrimmed videos as files, as users have them."""
    folder, films, spec = subject.folder, subject.films, subject.spec
    facts = {"width": subject.untrimmed[0].shape[1], "interval": INTERVAL, "fps": films.fps, "preprocessing": {}}
    weights = hashlib.sha256(b"".join(each.tobytes() for each in subject.untrimmed)).hexdigest()
    store = FeatureStore.create(folder / "store", facts | {"encoder_digest": weights})
    videos = _videos(films)
    base = Timebase(fps=films.fps, stride=float(INTERVAL), window=float(spec.frames * spec.stride))
    for video, values in zip(videos, subject.untrimmed, strict=True):
        store.write(Features(video.id, torch.from_numpy(values), base, video.duration))
    write_annotations(folder / "annotations.json", {video.id: video for video in videos})
    return store


def _videos(films: Material) -> list[Video]:
    """The untrimmed videos with the subsets of the experiment."""
    cut = films.split.untrimmed
    return [replace(v, subset="training" if i < cut else "validation") for i, v in enumerate(films.videos)]


def _localized(subject: Subject, head: str) -> Any:
    """Trains a localizer on the videos to learn from; gives a function that predicts on the others, and their truth."""
    store, run = store_of(subject), subject.folder / head
    cfg = localizer(head, subject.size, subject.seed)
    train_localizer(cfg, store.path, subject.folder / "annotations.json", run)
    truth = {video.id: video for video in _videos(subject.films) if video.subset == "validation"}
    return partial(predict, load_localizer(run), read_all(store, list(truth))), truth


def detection(subject: Subject, head: str, tious: tuple[float, ...]) -> dict[str, float]:
    """Mean average precision of G-TAD at some thresholds and on average, in percent."""
    find, truth = _localized(subject, head)
    # a class may lack test videos, and predictions of it are wrong wherever they are
    found = detection_map(truth, find(), tious=tious, unknown_labels="false-positive").to_json()
    return {f"mAP_{at}": 100 * value for at, value in found["mAP"].items()} | {"mAP": 100 * found["average_mAP"]}


def proposals(subject: Subject) -> dict[str, float]:
    """Average recall of BMN's proposals, in percent."""
    find, truth = _localized(subject, "bmn")
    found = proposal_recall(truth, find(proposals_only=True)).to_json()
    return {f"AR_{n}": 100 * found["AR"][str(n)] for n in (1, 10, 100)} | {"AUC": 100 * found["AUC"]}


def by_heads(features: ClipFeatures, films: Films, spec: ClipSpec, seed: int) -> dict[str, float]:
    """The numbers of `HEADS`: BMN and G-TAD as in the `cpu` profile of the tables, trained on a corpus' features."""
    with tempfile.TemporaryDirectory(prefix="uptal-heads-") as folder:
        subject = Subject(
            films=films, trimmed=list(features.trimmed), untrimmed=list(features.untrimmed), encoder=None,
            training=None, spec=spec, size=PROFILES["cpu"], seed=seed, folder=Path(folder),
        )  # fmt: skip
        return {"bmn_auc": proposals(subject)["AUC"], "gtad_map": detection(subject, "gtad", STRICT)["mAP"]}


def grounding(subject: Subject) -> dict[str, float]:
    """Recall of LGI's intervals for sentences about videos that it has not seen, in percent."""
    store, folder = store_of(subject), subject.folder
    cut = {video.id: video.subset for video in _videos(subject.films)}
    if not subject.films.queries:
        raise ConfigError("Grounding needs sentences: queries.csv beside annotations.json (docs/grounding.md).")
    for subset in ("training", "validation"):
        with open(folder / f"{subset}.csv", "w", newline="", encoding="utf-8") as out:
            table = csv.writer(out, lineterminator="\n")
            table.writerow(("video", "start", "end", "sentence", "duration"))
            for q in subject.films.queries:
                if cut[q.video] == subset:
                    table.writerow((q.video, q.start, q.end, q.sentence, q.duration))
    cfg = replace(grounder(subject.size, subject.seed), subset=None)
    asked = len(read_queries(folder / "training.csv"))
    if asked < cfg.optim.batch:
        cfg = replace(cfg, optim=replace(cfg.optim, batch=asked, lr_batch=asked))
    train_grounder(cfg, store.path, folder / "training.csv", folder / "lgi", test=folder / "validation.csv")
    found = json.loads((folder / "lgi" / "selection.json").read_text("utf-8"))["test"]["last"]
    return {f"R_{at}": 100 * found["R@1"][at] for at in ("0.3", "0.5", "0.7")} | {"mIoU": 100 * found["mIoU"]}


def classes(subject: Subject) -> dict[str, float]:
    """Classes of trimmed videos by nearest neighbours and linearly, from the mean of a video's clips, in percent."""
    return told(np.stack([video.mean(axis=0) for video in subject.trimmed]), subject.films)


def finetune_config(size: Profile, training: PretrainConfig, videos: int, seed: int) -> PretrainConfig:
    """Supervised training of all layers on single clips at the stride of extraction, one constant rate."""
    data, batch = training.data, min(64, videos)
    cfg = tiny(tac(), data.resize, batch, training.optim.lr)
    cfg = with_region(cfg, min_stride=EXTRACTION_STRIDE, max_stride=EXTRACTION_STRIDE)
    timeline = replace(cfg.data.timeline, frames=data.timeline.frames)
    cfg = replace(cfg, data=replace(cfg.data, timeline=timeline), seed=seed, device=size.device)
    return with_optim(cfg, max_steps=size.finetune_steps)


def finetuned(subject: Subject) -> dict[str, float]:
    """Classes of trimmed videos after all layers have been trained with labels, in percent; nothing for no network."""
    if subject.encoder is None or subject.training is None:
        return {}
    films, size = subject.films, subject.size
    cfg = finetune_config(size, subject.training, films.split.trimmed, subject.seed)
    trainer = Trainer(cfg, films, RunFolder(subject.folder / "finetune"))
    task = trainer.task
    assert isinstance(task, Supervised)
    task.backbone.load_state_dict(subject.encoder.state_dict())
    trainer.advance(size.finetune_steps, None)
    network = recalibrated(_Chances(task), films, subject.spec)
    cut, labels = films.split.trimmed, films.labels
    chances = [each.mean(axis=0) for each in encode_videos(network, films.trimmed[cut:], subject.spec)]
    return {"finetune": float(100 * (np.stack(chances).argmax(1) == labels[cut:]).mean())}


class _Chances(nn.Module):
    """Class probabilities of clips."""

    def __init__(self, task: Supervised):
        super().__init__()
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        return self.task.classifier(self.task.backbone(x)).softmax(1)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            name="gtad",
            columns={"mAP_0.50": "mAP@.5", "mAP_0.75": "@.75", "mAP_0.95": "@.95", "mAP": "mAP"},
            settings=lambda size, seed: plain(localizer("gtad", size, seed)),
            run=partial(detection, head="gtad", tious=STRICT),
        ),
        Measure(
            name="gtad_windows",
            columns={f"mAP_{at:.2f}": f"{'mAP' * (at == LOOSE[0])}@.{round(10 * at)}" for at in LOOSE} | {"mAP": "mAP"},
            settings=lambda size, seed: plain(localizer("gtad_windows", size, seed)),
            run=partial(detection, head="gtad_windows", tious=LOOSE),
        ),
        Measure(
            name="bmn",
            columns={"AR_1": "AR@1", "AR_10": "@10", "AR_100": "@100", "AUC": "AUC"},
            settings=lambda size, seed: plain(localizer("bmn", size, seed)),
            run=proposals,
        ),
        Measure(
            name="lgi",
            columns={"R_0.3": "R@.3", "R_0.5": "R@.5", "R_0.7": "R@.7", "mIoU": "mIoU"},
            settings=lambda size, seed: plain(grounder(size, seed)),
            run=grounding,
        ),
        Measure(
            name="classes",
            columns={"knn": "kNN", "linear": "linear"},
            settings=lambda size, seed: None,
            run=classes,
        ),
        Measure(
            name="finetune",
            columns={"finetune": "fine-tuned"},
            settings=lambda size, seed: {"steps": size.finetune_steps},
            run=finetuned,
        ),
    )
}
"""Everything that is measured, by name."""
