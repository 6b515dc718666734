"""From features to named actions: training on a store, class scores, and a run folder that stands alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal.annotations import read_annotations, read_detections
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import AnnotationError, CheckpointError, ConfigError, VideoError
from uptal.features import Features, FeatureStore
from uptal.localizers.bmn import BMNConfig
from uptal.localizers.bmn_data import BMNData, known_videos
from uptal.localizers.classifier import SegmentClassifier, mean_feature
from uptal.recipes.detecting import detect, visible
from uptal.recipes.extracting import extract_folder
from uptal.recipes.localize import (
    LocalizeConfig,
    Localizer,
    check_store,
    load_localizer,
    name_proposals,
    predict,
    read_all,
    segment_feature,
    train_bmn,
)
from uptal.train import OptimConfig
from uptal.types import Detections, Timebase
from workshop import LABELS, make_corpus

SMALL = LocalizeConfig(
    bmn=BMNConfig(in_channels=8, num_steps=12, num_samples=4, hidden=(8, 8, 8), num_proposals=20),
    optim=OptimConfig(lr=1e-3, lr_batch=4, batch=4, epochs=2, schedule="constant", log_every=1),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A corpus, an encoder, its feature store and a trained run: `videos/ weights/ store/ run/`."""
    folder = make_corpus(tmp_path_factory.mktemp("place"), trimmed=0, untrimmed=6)
    torch.manual_seed(0)
    save_encoder(
        folder / "weights", build("slim", width_multiplier=0.25), ClipSpec(frames=4, stride=1, size=20, resize=24)
    )
    extract_folder(folder / "weights", folder / "untrimmed", folder / "store", batch=8)
    train_bmn(SMALL, folder / "store", folder / "annotations.json", folder / "run")
    return folder


@pytest.fixture(scope="module")
def localizer(place) -> Localizer:
    return load_localizer(place / "run")


def ramp(duration: float = 8.0) -> Features:
    """Twenty features whose first number is the second of their centre."""
    base = Timebase(fps=10.0, stride=4.0, window=4.0)
    values = torch.zeros(20, 4)
    values[:, 0] = torch.tensor([base.centre(index) for index in range(20)])
    return Features("ramp", values, base, duration)


class TestClassifier:
    def test_separable_classes_are_learnt(self):
        rng = torch.Generator().manual_seed(0)
        target = torch.arange(60) % 3
        features = torch.nn.functional.one_hot(target, 6) * 5 + torch.randn(60, 6, generator=rng) + 100
        classifier = SegmentClassifier(6, ("a", "b", "c"))
        assert classifier.learn(features, target) == 1.0
        chances = classifier(features)
        assert torch.equal(chances.argmax(1), target)
        assert torch.allclose(chances.sum(1), torch.ones(60), atol=1e-6)  # float32 sums

    def test_learning_is_repeatable_and_leaves_the_random_state_alone(self):
        features, target = torch.randn(20, 4), torch.arange(20) % 2
        before = torch.get_rng_state()
        weights = []
        for _ in range(2):
            torch.set_rng_state(before)
            classifier = SegmentClassifier(4, LABELS)
            drawn = torch.get_rng_state()
            classifier.learn(features, target)
            assert torch.equal(torch.get_rng_state(), drawn)
            weights.append(classifier.linear.weight)
        assert torch.equal(*weights)

    def test_scale_and_offset_of_the_features_do_not_matter(self):
        features, target = torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), torch.arange(30) % 2
        chances = []
        for scaled in (features, features * 1000 - 7):
            classifier = SegmentClassifier(4, LABELS)
            classifier.learn(scaled, target)
            chances.append(classifier(scaled).detach())
        assert torch.allclose(*chances, atol=1e-3)  # L-BFGS stops at a gradient of 1e-7, float32 inputs

    @pytest.mark.parametrize(
        ("first", "last", "picked"),
        [(2, 4, [2, 3, 4]), (-3, 0, [0]), (2.4, 2.45, [2]), (7, 99, [7, 8, 9]), (50, 60, [9]), (5, 3, [5])],
    )
    def test_the_mean_is_over_what_lies_inside_and_never_over_nothing(self, first, last, picked):
        values = torch.arange(10.0)[:, None]
        assert mean_feature(values, float(first), float(last)).item() == np.mean(picked)

    def test_a_segments_feature_is_of_its_seconds(self):
        features = ramp()
        for start, end in ((1.0, 3.0), (0.0, 8.0), (4.1, 5.3)):
            inside = [c for c in features.values[:, 0].tolist() if start <= c <= end]
            assert segment_feature(features, start, end)[0].item() == pytest.approx(np.mean(inside), rel=1e-6)


class TestData:
    def test_every_video_comes_once_an_epoch_whatever_the_position(self, place):
        store = FeatureStore(place / "store")
        videos, _ = known_videos(store, read_annotations(place / "annotations.json"), "training")
        data = BMNData(store, videos, replace(SMALL.bmn, in_channels=store.width), batch=3, seed=0)
        assert data.steps_per_epoch == 2
        for epoch in range(3):
            batches = list(data.batches(epoch))
            assert sorted(name for batch in batches for name in batch.names) == sorted(video.id for video in videos)
            rest = list(data.batches(epoch, batches[0].position))
            assert [batch.names for batch in rest] == [batch.names for batch in batches[1:]]
            assert [batch.seed for batch in rest] == [batch.seed for batch in batches[1:]]
        orders = {tuple(name for batch in data.batches(epoch) for name in batch.names) for epoch in range(8)}
        assert len(orders) > 1

    def test_videos_without_features_are_named(self, place):
        annotated = read_annotations(place / "annotations.json")
        store = FeatureStore.create(place / "empty", {"encoder_digest": "0" * 64, "width": 8, "interval": 4})
        present, missing = known_videos(store, annotated, "training")
        assert (present, missing) == ([], ["u0", "u1", "u2", "u3"])

    def test_annotations_without_subsets_are_used_whole(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nu0,1,2,left\nu5,3,4,right\n")
        present, _ = known_videos(FeatureStore(place / "store"), read_annotations(tmp_path / "a.csv"), "training")
        assert [video.id for video in present] == ["u0", "u5"]


class TestRun:
    def test_the_run_alone_is_enough(self, place, tmp_path):
        """Copied elsewhere, without store, corpus or the encoder's own run."""
        shutil.copytree(place / "run", tmp_path / "elsewhere")
        video = shutil.copy(place / "untrimmed" / "u4.mp4", tmp_path)
        found = detect(tmp_path / "elsewhere", [video], tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "detections.json", "report.html", "u4.csv", "u4.srt",
        ]  # fmt: skip
        assert len(found["u4"]) == len(read_detections(tmp_path / "out" / "detections.json")["u4"])
        header, *rows = (tmp_path / "out" / "u4.csv").read_text().splitlines()
        assert header == "video,start,end,label,score" and len(rows) == len(found["u4"])

    def test_detecting_is_predicting_on_the_stored_features(self, place, localizer, tmp_path):
        """My own video gets the features that the store would have held."""
        stored = predict(localizer, read_all(FeatureStore(place / "store"), ["u1"]))["u1"]
        found = detect(place / "run", [place / "untrimmed" / "u1.mp4"], tmp_path)["u1"]
        assert found.labels == stored.labels
        assert np.allclose(found.segments, stored.segments)
        assert np.allclose(found.scores, stored.scores, rtol=1e-4)  # the same batch size is not promised

    def test_predictions_are_sound(self, place, localizer):
        store = FeatureStore(place / "store")
        features = read_all(store, store.ids)
        for id, found in predict(localizer, features).items():
            duration = store.read(id).duration
            assert len(found) and set(found.labels or ()) <= set(LABELS)
            assert (found.segments[:, 0] < found.segments[:, 1]).all()
            assert found.segments.min() >= 0 and found.segments.max() <= duration
            assert (np.diff(found.scores) <= 0).all() and found.scores.min() >= 0 and found.scores.max() <= 1
        proposals = predict(localizer, features, proposals_only=True)
        assert all(found.labels is None for found in proposals.values())

    def test_the_company_of_other_videos_changes_nothing_but_rounding(self, place, localizer):
        store = FeatureStore(place / "store")
        together, alone = predict(localizer, read_all(store, store.ids)), predict(localizer, read_all(store, ["u3"]))
        assert np.allclose(together["u3"].scores, alone["u3"].scores, rtol=1e-4)  # another batch size

    @pytest.mark.parametrize("mode", ["video", "segment"])
    def test_scores_are_products(self, mode, place, localizer):
        features = FeatureStore(place / "store").read("u0")
        proposals = Detections(np.array([[0.5, 2.0], [3.0, 5.0]]), np.array([0.5, 0.25]))
        chosen = replace(localizer, settings=replace(localizer.settings, class_scores=mode, top_classes=2))
        named = name_proposals(chosen, features, proposals)
        assert len(named) == 4
        for segment, score in zip(proposals.segments, proposals.scores, strict=True):
            mine = (named.segments == segment).all(1)
            assert named.scores[mine].sum() == pytest.approx(score, rel=1e-5)  # two classes: probabilities sum to one
        again = name_proposals(replace(chosen, settings=replace(chosen.settings, top_classes=1)), features, proposals)
        assert set(again.scores.tolist()) <= set(named.scores.tolist()) and len(again) == 2

    def test_no_proposals_are_no_detections(self, place, localizer):
        nothing = Detections(np.zeros((0, 2)), np.zeros(0))
        assert len(name_proposals(localizer, FeatureStore(place / "store").read("u0"), nothing)) == 0
        assert len(visible(nothing, None)) == 0

    def test_settings_labels_and_store_come_back(self, place, localizer):
        store = FeatureStore(place / "store")
        assert localizer.classifier.labels == LABELS
        assert localizer.settings == replace(SMALL, bmn=replace(SMALL.bmn, in_channels=store.width))
        assert localizer.features == store.description
        check_store(localizer, store)

    def test_one_class_needs_no_classifier(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nu0,1,2,left\nu1,3,4,left\nu2,3,4,left\nu3,1,5,left\n")
        train_bmn(SMALL, place / "store", tmp_path / "a.csv", tmp_path / "run")
        found = predict(load_localizer(tmp_path / "run"), read_all(FeatureStore(place / "store"), ["u4"]))["u4"]
        assert set(found.labels or ()) == {"left"}


class TestRefusals:
    def test_features_of_another_encoder(self, place, localizer, tmp_path):
        other = FeatureStore.create(tmp_path, FeatureStore(place / "store").description | {"encoder_digest": "f" * 64})
        with pytest.raises(CheckpointError, match=r"features with encoder_digest .* has ffff.*uptal extract"):
            check_store(localizer, other)

    def test_another_store_under_the_same_run(self, place, tmp_path):
        shutil.copytree(place / "store", tmp_path / "store")
        shutil.copytree(place / "run", tmp_path / "run")
        assert train_bmn(SMALL, tmp_path / "store", place / "annotations.json", tmp_path / "run").new_steps == 0
        FeatureStore(tmp_path / "store").file("u5").unlink()
        with pytest.raises(ConfigError, match="features_sha256"):
            train_bmn(SMALL, tmp_path / "store", place / "annotations.json", tmp_path / "run")

    def test_annotations_of_other_videos(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nv_u0,1,2,left\n")
        with pytest.raises(AnnotationError, match=r"no video of subset 'training' has features .*prefix 'v_'"):
            train_bmn(SMALL, place / "store", tmp_path / "a.csv", tmp_path / "run")
        with pytest.raises(AnnotationError, match=r"Subsets there: training, validation"):
            train_bmn(replace(SMALL, subset="trianing"), place / "store", place / "annotations.json", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("name", ["localizer.json", "localizer.safetensors", "features.json"])
    @pytest.mark.parametrize("damage", ["gone", "cut", "foreign"])
    def test_a_damaged_run(self, name, damage, place, tmp_path):
        shutil.copytree(place / "run", tmp_path / "run")
        file = tmp_path / "run" / name
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-20] if damage == "cut" else b'{"kind": "bmn"}')
        with pytest.raises(CheckpointError, match=r"Make one with `uptal train bmn|Train it again or copy it again"):
            load_localizer(tmp_path / "run")

    def test_an_encoder_that_was_exchanged(self, place, tmp_path):
        shutil.copytree(place / "run", tmp_path / "run")
        torch.manual_seed(5)
        save_encoder(tmp_path / "run", build("slim", width_multiplier=0.25), ClipSpec(frames=4, size=20, resize=24))
        with pytest.raises(CheckpointError, match=r"its encoder is .*, its localizer was trained on features of"):
            detect(tmp_path / "run", [place / "untrimmed" / "u0.mp4"], tmp_path / "out")

    def test_videos_that_cannot_be_read(self, place, tmp_path):
        bad = tmp_path / "bad.mp4"
        bad.write_text("text")
        with pytest.raises(VideoError, match=r"none of the 1 videos could be used"):
            detect(place / "run", [bad], tmp_path / "out")
        assert not (tmp_path / "out").exists()
        with pytest.raises(ConfigError, match="is a folder; give video files"):
            detect(place / "run", [place / "untrimmed"], tmp_path / "out")
        assert list(detect(place / "run", [bad, place / "untrimmed" / "u0.mp4"], tmp_path / "out")) == ["u0"]
        assert "bad.mp4" in json.dumps((tmp_path / "out" / "report.html").read_text())
