"""Transfer to classification (Table 7): nearest neighbours, a linear classifier, or fine-tuning, on labelled clips.

A video's score is the mean of its clips' scores, 10 clips spread evenly. Frozen features are the encoder's; fine-tuning
is supervised training that begins with its weights, on the one loop. Letters: N clips, V videos, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uptal import checkpoint
from uptal.annotations.cliplists import match_files, read_clip_list
from uptal.clipspec import ClipSpec
from uptal.device import Precision, choose_device
from uptal.encoders import SavedEncoder, load_encoder, name_of
from uptal.errors import AnnotationError, ConfigError
from uptal.features import encode, make_ready
from uptal.localizers.classifier import SegmentClassifier
from uptal.metrics.classification import top_k, wilson
from uptal.pretext.supervised import Supervised
from uptal.recipes.pretrain import PretrainConfig, tac
from uptal.recipes.running import pretrain
from uptal.recipes.spread_clips import VideoClips, through
from uptal.run import RunFolder, environment
from uptal.video import Quarantine, find_videos


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How an encoder is judged by classification."""

    clips: int = 10
    """Clips of a video whose scores are averaged (Table 7 follows the usual protocol of 10)."""
    frame_stride: int | None = None
    """Frames from one frame of a clip to the next. None: the encoder's."""
    neighbours: int = 5
    """Training videos that vote, in `knn`. The paper has no such row."""
    temperature: float = 0.07
    """Votes are weighed by exp(cosine / temperature), in `knn`."""
    weight_decay: float = 1e-2
    """L2 penalty of the linear classifier, which is fitted to convergence; nothing is drawn."""
    epochs: int = 30
    """Passes over the training videos, in `finetune`. The paper does not say."""
    batch: int = 16
    """Videos a step, in `finetune`. The paper does not say."""
    lr: float = 1e-3
    """Learning rate (Adam, cosine), in `finetune`. The paper does not say."""
    seeds: tuple[int, ...] = (0,)
    """Runs of `finetune`; its score is their mean."""
    precision: Precision = "auto"
    """Arithmetic of the encoder."""
    workers: int = 1
    """Loader processes, in `finetune`."""
    cache_mib: int = 512
    """Memory in which each of them keeps decoded videos, in `finetune`."""
    max_bad: float = 0.01
    """Share of videos (at least one) that may be unreadable."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1."""

    def __post_init__(self) -> None:
        if min(self.clips, self.neighbours, self.epochs, self.batch) < 1 or not self.seeds:
            raise ConfigError("A probe needs clips, neighbours, epochs and batch of at least 1, and a seed.")


@dataclass(frozen=True)
class LabelledVideos:
    """Videos of a training and a test list that are there."""

    train: list[tuple[Path, str]]
    test: list[tuple[Path, str]]
    missing: dict[str, list[str]]
    """Names without a file, by list."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the training list, sorted."""
        return tuple(sorted({label for _, label in self.train}))


def probe_encoder(
    method: Literal["knn", "linear", "finetune"],
    weights: Path,
    videos: Path,
    lists: tuple[Path, Path],
    cfg: ProbeConfig,
    run: Path | None = None,
) -> dict[str, Any]:
    """Top-1 and top-5 on the second list after learning from the first, and all that the numbers depend on.

    Raises:
        AnnotationError: The lists name no video that is there. ConfigError: Fine-tuning without a run folder.
    """
    found = labelled_videos(videos, *lists)
    saved = load_encoder(weights)
    spec = saved.clip if cfg.frame_stride is None else replace(saved.clip, stride=cfg.frame_stride)
    if method == "finetune":
        if run is None:
            raise ConfigError("Fine-tuning trains: give it a folder with --run RUN.")
        results = [_finetuned(saved, weights, spec, videos, found, cfg, run, seed) for seed in cfg.seeds]
    else:
        results = [_frozen(method, saved, spec, found, cfg)]
    top1 = [result[0] for result in results]
    count = results[0][2]
    mean = sum(top1) / len(top1)
    return {
        "method": method,
        "top1": mean,
        "top5": sum(result[1] for result in results) / len(results) if len(found.classes) > 5 else None,
        "interval": wilson(mean, count),
        "by_seed": dict(zip(map(str, cfg.seeds), top1, strict=False)),
        "chance": max(_shares(found)),
        "classes": len(found.classes),
        "videos": {"train": len(found.train), "test": count, "missing": sum(map(len, found.missing.values()))},
        "encoder_digest": saved.digest,
        "clip": asdict(spec),
        "settings": asdict(cfg),
        "environment": environment(),
    }


def labelled_videos(videos: Path, train_list: Path, test_list: Path) -> LabelledVideos:
    """The videos of both lists that are in the folder.

    Raises:
        AnnotationError: A list has none, both share some, or the test list has a class that cannot be learnt.
    """
    paths = find_videos(videos)
    train, no_train = match_files(read_clip_list(train_list), paths)
    test, no_test = match_files(read_clip_list(test_list), paths)
    for name, some, missing in ((train_list, train, no_train), (test_list, test, no_test)):
        if not some:
            raise AnnotationError(f"{name}: none of its videos is in {videos} (looked for: {missing[:3]}).")
    both = {path for path, _ in train} & {path for path, _ in test}
    if both:
        raise AnnotationError(f"{test_list}: {len(both)} videos are also trained on, such as {min(both)}.")
    unknown = {label for _, label in test} - {label for _, label in train}
    if unknown:
        raise AnnotationError(
            f"{test_list}: class {min(unknown)!r} has no training video ({len(unknown)} such classes)."
        )
    return LabelledVideos(train, test, {"train": no_train, "test": no_test})


def nearest(bank: VideoClips, clips: Float[Tensor, "V N D"], cfg: ProbeConfig) -> Float[Tensor, "V K"]:
    """Scores by the cosine to the mean features of training videos: the nearest ones vote for their class."""
    means = torch.nn.functional.normalize(bank.values.mean(1), dim=1)
    cosine = torch.nn.functional.normalize(clips, dim=2) @ means.T
    value, index = cosine.topk(min(cfg.neighbours, len(means)), dim=2)
    votes = torch.nn.functional.one_hot(bank.target[index], int(bank.target.max()) + 1)
    return ((value / cfg.temperature).exp()[..., None] * votes).sum(2).mean(1)


def _frozen(
    method: str, saved: SavedEncoder, spec: ClipSpec, found: LabelledVideos, cfg: ProbeConfig
) -> tuple[float, float, int]:
    device = choose_device(cfg.device)
    encoder = make_ready(saved.encoder, device)

    def features(clips: Tensor) -> Tensor:
        return encode(encoder, clips, spec, device, cfg.clips, cfg.precision)

    quarantine = Quarantine(total=len(found.train) + len(found.test), limit=cfg.max_bad)
    train = through(features, found.train, found.classes, spec, cfg.clips, quarantine)
    test = through(features, found.test, found.classes, spec, cfg.clips, quarantine)
    return frozen_scores(method, train, test, saved.encoder.width, found.classes, cfg)


def frozen_scores(
    method: str, train: VideoClips, test: VideoClips, width: int, classes: Sequence[str], cfg: ProbeConfig
) -> tuple[float, float, int]:
    """Top-1, top-5 and number of test videos, by neighbours (`knn`) or a linear classifier on features of clips."""
    if method == "knn":
        scores = nearest(train, test.values, cfg)
    else:
        count = train.values.shape[1]
        classifier = SegmentClassifier(width, tuple(classes))
        classifier.learn(
            train.values.flatten(0, 1), train.target.repeat_interleave(count), weight_decay=cfg.weight_decay
        )
        with torch.no_grad():
            scores = classifier(test.values.flatten(0, 1)).unflatten(0, (-1, count)).mean(1)
    return _judged(scores, test.target)


def _finetuned(
    saved: SavedEncoder,
    weights: Path,
    spec: ClipSpec,
    videos: Path,
    found: LabelledVideos,
    cfg: ProbeConfig,
    run: Path,
    seed: int,
) -> tuple[float, float, int]:
    labels = {path.stem: label for path, label in found.train}
    if len(labels) < len(found.train) or labels.keys() & {path.stem for path, _ in found.test}:
        raise ConfigError("Two of the videos share a file name; fine-tuning tells them apart by it. Rename one.")
    pretrain(finetune_config(saved, weights, spec, cfg, seed), videos, run / f"seed{seed}", labels)
    task = Supervised(saved.encoder, saved.encoder.width, len(found.classes))
    trained, _ = checkpoint.newest_valid(RunFolder(run / f"seed{seed}").checkpoints)
    assert trained is not None
    task.load_state_dict(trained.weights)
    device = choose_device(cfg.device)
    model = make_ready(_Scores(task), device)

    def scores(clips: Tensor) -> Tensor:
        return encode(model, clips, spec, device, cfg.clips, cfg.precision).softmax(1)

    quarantine = Quarantine(total=len(found.test), limit=cfg.max_bad)
    test = through(scores, found.test, found.classes, spec, cfg.clips, quarantine)
    return _judged(test.values.mean(1), test.target)


def finetune_config(saved: SavedEncoder, weights: Path, spec: ClipSpec, cfg: ProbeConfig, seed: int) -> PretrainConfig:
    """Supervised training of all layers, on clips like those that the encoder was trained on."""
    base = tac()
    region = replace(base.data.timeline.region, min_stride=spec.stride, max_stride=spec.stride)
    background = replace(base.data.timeline.background, stride=spec.stride)
    timeline = replace(base.data.timeline, frames=spec.frames, region=region, background=background)
    data = replace(
        base.data, timeline=timeline, resize=spec.resize, mean=spec.mean, std=spec.std,
        val_videos=0, workers=cfg.workers, max_bad=cfg.max_bad, cache_mib=cfg.cache_mib,
    )  # fmt: skip
    optim = replace(
        base.optim, lr=cfg.lr, lr_batch=cfg.batch, batch=cfg.batch, epochs=cfg.epochs, schedule="cosine",
        warmup_epochs=1.0, checkpoint_every=10**9, keep=1, precision=cfg.precision,
    )  # fmt: skip
    return replace(
        base,
        encoder=name_of(saved.encoder),
        encoder_options=asdict(saved.encoder.config),
        init=str(weights),
        extraction_stride=spec.stride,
        data=data,
        aug=replace(base.aug, size=spec.size),
        optim=optim,
        seed=seed,
        device=cfg.device,
    )


class _Scores(torch.nn.Module):
    """A fine-tuned network as something that `encode` can run: class scores in place of features."""

    def __init__(self, task: Supervised):
        super().__init__()
        self.task = task

    def forward(self, x: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N K"]:
        """Class scores of clips."""
        return self.task.classifier(self.task.backbone(x))


def _judged(scores: Float[Tensor, "V K"], target: Int[Tensor, " V"]) -> tuple[float, float, int]:
    """Top-1, top-5 and the number of videos."""
    values, classes = scores.numpy(), target.numpy()
    return top_k(values, classes), top_k(values, classes, 5), len(classes)


def _shares(found: LabelledVideos) -> list[float]:
    labels = [label for _, label in found.test]
    return [labels.count(label) / len(labels) for label in found.classes]
