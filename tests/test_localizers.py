"""What every localizer promises, whichever it is: the layers of its published model, narrower.

Widths: BMN (32, 16, 32) on 24 steps with 8 samples, G-TAD (32, 16, 32) on 24 steps with 8 + 2 samples and 8 paths,
ActionFormer 32 with all six levels; features are 16 wide.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uptal.errors import AnnotationError
from uptal.features import Features, FeatureStore
from uptal.localizers.actionformer import ActionFormerConfig
from uptal.localizers.bmn import BMNConfig
from uptal.localizers.gtad import GTADConfig
from uptal.localizers.samples import CutConfig, Sample, cut_video
from uptal.localizers.training import LocalizerTask, SampleData
from uptal.metrics import detection_map
from uptal.recipes import heads
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.localize import train_classifier
from uptal.recipes.localizer_files import load_localizer, save_localizer
from uptal.recipes.predicting import predict
from uptal.train import OptimConfig, learning_rate
from uptal.types import Segment, Timebase, Video

WIDTH, LABELS = 16, ("jump", "run", "throw")
BASE = Timebase(fps=10.0, stride=4.0, window=4.0)
OPTIM = OptimConfig(lr=4e-3, lr_batch=4, batch=4, epochs=80, schedule="cosine", warmup_epochs=4.0)
SETTINGS: dict[str, LocalizeConfig] = {
    "bmn": replace(
        heads.recipe("bmn"),
        bmn=BMNConfig(in_channels=WIDTH, num_steps=24, num_samples=8, hidden=(32, 16, 32)),
        class_scores="segment",
        top_classes=1,
        optim=OPTIM,
    ),
    "gtad": replace(
        heads.recipe("gtad"),
        gtad=GTADConfig(
            in_channels=WIDTH, num_steps=24, max_duration=24, inner=8, context=2, hidden=(32, 16, 32), groups=8
        ),
        class_scores="segment",
        top_classes=1,
        optim=replace(OPTIM, lr=2e-3, epochs=200),
    ),
    "actionformer": replace(
        heads.recipe("actionformer"),
        actionformer=ActionFormerConfig(in_channels=WIDTH, width=32, window=9, loss_norm=20.0, num_steps=64),
        optim=replace(OPTIM, algorithm="adamw", weight_decay=0.05),
    ),
}

every_localizer = pytest.mark.parametrize("name", list(SETTINGS))


def a_video(seed: int, count: int = 24, empty: bool = False) -> tuple[Features, Video]:
    """A video whose features show, besides noise, which of three actions is going on."""
    rng = np.random.default_rng([7, seed])
    values = rng.normal(size=(count, WIDTH))
    middle = np.array([BASE.centre(index) for index in range(count)])
    segments: list[Segment] = []
    second = float(rng.uniform(0.4, 1.2))
    while not empty and second + 1.2 < 0.4 * count - 0.4:  # no proposal of BMN and G-TAD ends with the video
        end = min(second + float(rng.uniform(1.6, 3.2)), 0.4 * count - 0.4)
        label = int(rng.integers(3))
        segments.append(Segment(second, end, LABELS[label]))
        values[(middle > second) & (middle < end), label] += 5
        second = end + float(rng.uniform(0.8, 1.6))
    name = f"video{seed}"
    features = Features(name, torch.from_numpy(values).float(), BASE, 0.4 * count)
    return features, Video(id=name, duration=0.4 * count, subset="training", segments=tuple(segments))


@functools.cache
def four_videos() -> tuple[tuple[Features, Video], ...]:
    return tuple(a_video(seed) for seed in range(4))


def build(name: str, labels: tuple[str, ...] = LABELS) -> Any:
    torch.manual_seed(0)
    return heads.build(SETTINGS[name], labels)


def samples_of(name: str, videos: tuple[tuple[Features, Video], ...]) -> list[Sample]:
    cfg = SETTINGS[name]
    return [s for read, video in videos for s in cut_video(read, video, heads.num_steps(cfg), cfg.cut)]


def loss_of(model: Any, samples: list[Sample], seed: int = 0) -> dict[str, torch.Tensor]:
    return model.loss(model.collate(samples), np.random.default_rng(seed))


def trained(name: str) -> Any:
    """The localizer after some hundred steps on four videos, by its own loss."""
    cfg, model = SETTINGS[name], build(name)
    task = LocalizerTask(model)
    data = SampleData(samples_of(name, four_videos()), model, 4, 0)
    kind = torch.optim.AdamW if cfg.optim.algorithm == "adamw" else torch.optim.Adam
    optimiser = kind(model.parameters(), lr=cfg.optim.lr)
    for epoch in range(cfg.optim.epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(cfg.optim, float(epoch), float(cfg.optim.epochs))
        for batch in data.batches(epoch):
            loss = task.loss(batch)["loss"]
            assert loss.isfinite()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
    return model.eval()


@dataclass(frozen=True)
class Place:
    run: Path
    store: FeatureStore


@pytest.fixture(scope="module", params=list(SETTINGS))
def learnt(request, tmp_path_factory) -> tuple[str, Place]:
    """A localizer that has learnt four videos by heart, with their features, on disk."""
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    store = FeatureStore.create(
        folder / "store", {"encoder_digest": "0" * 64, "width": WIDTH, "interval": 4, "preprocessing": {}}
    )
    for read, _ in four_videos():
        store.write(read)
    classifier = train_classifier(store, [video for _, video in four_videos()], 1e-2)
    (folder / "run").mkdir()
    save_localizer(folder / "run", trained(name), classifier, SETTINGS[name], store)
    return name, Place(folder / "run", store)


def test_four_videos_are_learnt_by_heart(learnt):
    """Through loss, localize, files, class names and the official metric."""
    _, place = learnt
    found = predict(load_localizer(place.run), [read for read, _ in four_videos()])
    truth = {video.id: video for _, video in four_videos()}
    assert sum(len(video.segments) for video in truth.values()) >= 8
    assert detection_map(truth, found).to_json()["mAP"]["0.50"] > 0.9


def test_what_is_saved_comes_back(learnt):
    name, place = learnt
    again = load_localizer(place.run)
    assert again.settings == SETTINGS[name]
    state = again.model.state_dict()
    resaved = build(name)
    resaved.load_state_dict(state)
    samples = samples_of(name, four_videos()[:2])
    for mine, theirs in zip(again.model.localize(samples), resaved.eval().localize(samples), strict=True):
        assert np.array_equal(mine.segments, theirs.segments) and np.array_equal(mine.scores, theirs.scores)


@every_localizer
class TestPromises:
    def test_the_order_of_a_batch_does_not_matter(self, name):
        model, samples = build(name).eval(), samples_of(name, four_videos())
        order = [2, 0, 3, 1]
        straight, mixed = model.localize(samples), model.localize([samples[i] for i in order])
        for place, found in zip(order, mixed, strict=True):
            np.testing.assert_allclose(found.segments, straight[place].segments, atol=1e-4)  # float32 kernels
            np.testing.assert_allclose(found.scores, straight[place].scores, rtol=1e-4)
            assert found.labels == straight[place].labels

    def test_what_fills_a_short_video_does_not_matter(self, name):
        """Alone or beside a longer one, filled on the way or in the store: the same detections, inside the video."""
        model, cfg = build(name).eval(), SETTINGS[name]
        windows = cfg.cut if cfg.cut.mode == "whole" else CutConfig(mode="windows")
        read, _ = a_video(6, count=15)
        longer, _ = a_video(7, count=40 if windows.mode == "whole" else 24)
        short, other = (cut_video(each, None, heads.num_steps(cfg), windows)[0] for each in (read, longer))
        assert short.num_valid == 15
        (alone,) = model.localize([short])
        assert len(alone) and alone.segments.max() <= read.duration
        others = [model.localize([other, short])[1]]
        filled = replace(short, values=torch.nn.functional.pad(short.values[:, :15], (0, 40 - 15)))
        if windows.mode == "windows":
            filled = cut_video(replace(read, values=short.values.T.clone()), None, 24, windows)[0]
            assert filled.num_valid == 24
        others += model.localize([filled])
        for found in others:
            np.testing.assert_allclose(found.segments, alone.segments, atol=1e-4)  # float32 kernels
            np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-4)
            assert found.labels == alone.labels

    def test_gradients_reach_all_parameters(self, name):
        model = build(name)
        if name == "actionformer":  # a short action for the first levels, a long one for the last
            videos = tuple(
                (read, replace(video, segments=tuple(Segment(4.8 - r, 4.8 + r, LABELS[0]) for r in (0.6, 1.2, 4.6))))
                for read, video in (a_video(0), a_video(1, count=200))
            )
            videos = (*videos, (a_video(2, count=600)[0], Video(id="video2", duration=240.0, subset="", segments=tuple(
                Segment(120.0 - r, 120.0 + r, LABELS[1]) for r in (4.0, 9.0, 20.0, 100.0)))))  # fmt: skip
            model = heads.build(replace(SETTINGS[name], actionformer=replace(
                SETTINGS[name].actionformer, num_steps=600, crop=1.0, drop_path=0.0)), LABELS)  # fmt: skip
        else:
            videos = four_videos()
        loss_of(model, samples_of(name, videos))["loss"].backward()
        still = [key for key, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert not still
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_the_same_draws_give_the_same_loss(self, name):
        model, samples = build(name), samples_of(name, four_videos())
        losses = [
            float(loss_of(model_, samples, seed=3)["loss"].detach()) for model_ in (model, copy.deepcopy(build(name)))
        ]
        assert losses[0] == losses[1]

    def test_bf16_is_close(self, name):
        model, samples = build(name).eval(), samples_of(name, four_videos())
        exact = loss_of(model, samples)["loss"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = loss_of(model, samples)["loss"]
        assert rough.isfinite() and rough.dtype == torch.float32
        assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.05)  # 8 bits of mantissa

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_videos_of_hardly_any_features(self, name, count):
        model = build(name)
        (sample,) = samples_of(name, ((replace(a_video(0, count)[0]), Video(
            id="v", duration=0.4 * count, subset="", segments=(Segment(0.0, 0.3 * count, "run"),))),))  # fmt: skip
        assert loss_of(model, [sample])["loss"].isfinite()
        (found,) = model.eval().localize([sample])
        assert np.isfinite(found.segments).all() and found.segments.clip(0, sample.duration).tolist() == (
            found.segments.tolist()
        )

    def test_a_video_in_which_nothing_happens(self, name):
        model, samples = build(name), samples_of(name, (a_video(0, empty=True), a_video(1, empty=True)))
        loss = loss_of(model, samples)["loss"]
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_an_action_of_no_length_teaches_nothing_wrong(self, name):
        read, video = a_video(0)
        odd = replace(video, segments=(*video.segments, Segment(2.0, 2.0, "run"), Segment(0.0, 0.0, "run")))
        loss = loss_of(build(name), samples_of(name, ((read, odd),)))["loss"]
        assert loss.isfinite()
        if name == "actionformer":
            assert float(loss.detach()) == float(
                loss_of(build(name), samples_of(name, ((read, video),)))["loss"].detach()
            )

    def test_features_that_are_no_numbers_are_refused(self, name):
        read, video = a_video(0)
        read.values[3, 2] = float("nan")
        with pytest.raises(AnnotationError, match="video0 are not finite numbers in 1 of 24 clips"):
            samples_of(name, ((read, video),))

    def test_windows_give_one_list_a_video(self, name):
        cfg = SETTINGS[name]
        model = build(name).eval()
        read, video = a_video(5, count=70)
        samples = cut_video(read, video, min(24, heads.num_steps(cfg)), CutConfig(mode="windows"))
        assert len(samples) > 2
        merged = model.merge(samples, model.localize(samples))
        assert len(merged) and (np.diff(merged.scores) <= 0).all() and merged.segments.max() <= read.duration
