"""From features to named actions: training on a store, class scores, and a run folder that stands alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal.annotations import read_detections, read_submission
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import AnnotationError, CheckpointError, ConfigError, VideoError
from uptal.features import Features, FeatureStore
from uptal.localizers.bmn import BMN, BMNConfig
from uptal.localizers.classifier import SegmentClassifier, mean_feature
from uptal.localizers.samples import CutConfig, cut_store
from uptal.localizers.training import SampleData
from uptal.recipes.bmn import BMNSettings
from uptal.recipes.detecting import detect, visible
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.localize import labelled_videos, segment_feature, train_localizer
from uptal.recipes.localizer_files import Localizer, load_localizer
from uptal.recipes.predicting import check_store, name_proposals, predict, read_all
from uptal.train import OptimConfig
from uptal.types import Detections, Timebase
from workshop import LABELS, make_corpus

SMALL = BMNSettings(
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
    extract_folder(folder / "weights", folder / "untrimmed", folder / "store", ExtractConfig(batch=8))
    train_localizer(SMALL, folder / "store", folder / "annotations.json", folder / "run")
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
        videos, _ = labelled_videos(store, place / "annotations.json", "training")
        samples = cut_store(store, videos, SMALL.bmn.num_steps, CutConfig(), training=True)
        data = SampleData(samples, BMN(replace(SMALL.bmn, in_channels=store.width)), batch=3, seed=0)
        assert data.steps_per_epoch == 2
        for epoch in range(3):
            batches = list(data.batches(epoch))
            assert sorted(name for batch in batches for name in batch.names) == sorted(video.id for video in videos)
            rest = list(data.batches(epoch, batches[0].position))
            assert [batch.names for batch in rest] == [batch.names for batch in batches[1:]]
            assert [batch.seed for batch in rest] == [batch.seed for batch in batches[1:]]
        orders = {tuple(name for batch in data.batches(epoch) for name in batch.names) for epoch in range(8)}
        assert len(orders) > 1

    def test_videos_without_features_are_named(self, place, tmp_path):
        shutil.copytree(place / "store", tmp_path / "store")
        store = FeatureStore(tmp_path / "store")
        store.file("u1").unlink()
        present, missing = labelled_videos(store, place / "annotations.json", "training")
        assert ([video.id for video in present], missing) == (["u0", "u2", "u3"], ["u1"])

    def test_annotations_without_subsets_are_used_whole(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nu0,1,2,left\nu5,3,4,right\n")
        present, _ = labelled_videos(FeatureStore(place / "store"), tmp_path / "a.csv", "training")
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

    def test_class_scores_from_elsewhere_take_the_place_of_our_own_and_the_file_says_so(self, place, tmp_path):
        ids = FeatureStore(place / "store").ids
        rows = [
            f"v_{id},{label},{score}" for id in ids for label, score in (("swim", 0.25), ("fly", 0.5), ("run", 0.1))
        ]
        (tmp_path / "scores.csv").write_text("\n".join(["video,label,score", *rows]) + "\n")
        words = ["predict", str(place / "run"), "--features", str(place / "store"), "--out", str(tmp_path / "f.json")]
        assert main([*words, "--proposals"]) == 0
        proposals = read_submission(tmp_path / "f.json")
        assert proposals.about["class_scores"] is None
        assert main([*words, "--class-scores", str(tmp_path / "scores.csv")]) == 0
        named = read_submission(tmp_path / "f.json")
        assert named.about["class_scores"]["file"] == str(tmp_path / "scores.csv")
        assert named.about["store_sha256"] == FeatureStore(place / "store").digest()
        assert json.loads((tmp_path / "f.json").read_text())["external_data"]["used"] is True
        for id, each in named.found.items():
            count = len(proposals.found[id])
            assert each.labels == ("fly",) * count + ("swim",) * count
            assert np.array_equal(each.scores[:count], proposals.found[id].scores * 0.5)
        assert main([*words, "--class-scores", str(tmp_path / "scores.csv"), "--top-classes", "1"]) == 0
        assert {label for each in read_detections(tmp_path / "f.json").values() for label in each.labels or ()} == {
            "fly"
        }

    def test_class_scores_that_lack_a_video_are_refused(self, place, tmp_path, capsys):
        (tmp_path / "scores.csv").write_text("video,label,score\nu0,swim,0.5\n")
        words = ["predict", str(place / "run"), "--features", str(place / "store"), "--out", str(tmp_path / "f.json")]
        assert main([*words, "--class-scores", str(tmp_path / "scores.csv")]) == 1
        assert "class scores lack 5 of 6 videos, u1 among them" in capsys.readouterr().err
        assert main([*words, "--class-scores", str(tmp_path / "scores.csv"), "--proposals"]) == 1
        assert main([*words, "--top-classes", "0"]) == 1
        assert not (tmp_path / "f.json").exists()

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

    def test_annotations_may_be_a_folder_of_one_file_a_class(self, place, tmp_path):
        """THUMOS'14's own layout; that a file of it has changed makes it another run."""
        folder = tmp_path / "annotations"
        folder.mkdir()
        for label, start in (("Diving", 1), ("Shotput", 3)):
            lines = (f"{id}  {start}.0 {start + 1}.5\n" for id in FeatureStore(place / "store").ids)
            (folder / f"{label}_val.txt").write_text("".join(lines))
        cfg = replace(SMALL, subset="validation")
        train_localizer(cfg, place / "store", folder, tmp_path / "run")
        assert load_localizer(tmp_path / "run").classifier.labels == ("Diving", "Shotput")
        assert train_localizer(cfg, place / "store", folder, tmp_path / "run").new_steps == 0
        (folder / "Shotput_val.txt").write_text("u0  3.0 4.0\n")
        with pytest.raises(ConfigError, match="annotations_sha256"):
            train_localizer(cfg, place / "store", folder, tmp_path / "run")

    def test_ambiguous_stretches_are_spoken_of_where_they_are_learnt_and_where_they_stop_the_score(
        self, place, tmp_path, capsys
    ):
        rows = [
            f"{id},{start},{start + 1.5},{label},test"
            for id in FeatureStore(place / "store").ids
            for start, label in ((1, "Diving"), (3, "Ambiguous"))
        ]
        truth = str(tmp_path / "a.csv")
        Path(truth).write_text("\n".join(["video,start,end,label,subset", *rows]) + "\n")
        train_localizer(replace(SMALL, subset="test"), place / "store", Path(truth), tmp_path / "run")
        assert f"doctor annotations {truth} --drop-labels Ambiguous" in capsys.readouterr().err
        found = str(tmp_path / "f.json")
        assert main(["predict", str(tmp_path / "run"), "--features", str(place / "store"), "--out", found]) == 0
        score = ["evaluate", "detection", "--truth", truth, "--found", found, "--protocol", "thumos14"]
        assert main(score) == 1
        assert "--drop-labels Ambiguous" in capsys.readouterr().err
        assert main([*score, "--unknown-labels", "false-positive"]) == 0

    def test_what_detect_writes_says_by_what_it_was_made(self, place, tmp_path):
        detect(place / "run", [place / "untrimmed" / "u1.mp4"], tmp_path)
        about = read_submission(tmp_path / "detections.json").about
        words = ["predict", str(place / "run"), "--features", str(place / "store"), "--out", str(tmp_path / "f.json")]
        assert main(words) == 0
        predicted = read_submission(tmp_path / "f.json").about
        assert about.pop("environment").keys() == predicted.pop("environment").keys()  # they hold the time
        assert about == predicted | {"store": None, "store_sha256": None}

    def test_one_class_needs_no_classifier(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nu0,1,2,left\nu1,3,4,left\nu2,3,4,left\nu3,1,5,left\n")
        train_localizer(SMALL, place / "store", tmp_path / "a.csv", tmp_path / "run")
        found = predict(load_localizer(tmp_path / "run"), read_all(FeatureStore(place / "store"), ["u4"]))["u4"]
        assert set(found.labels or ()) == {"left"}


class TestRefusals:
    def test_settings_that_only_prediction_would_trip_over_are_refused_before_training(self):
        for wrong in ({"top_classes": 0}, {"ema": 1.0}, {"ema": -0.1}, {"classifier_decay": -1.0}):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                replace(SMALL, **wrong)

    def test_a_localizer_that_does_not_come_first(self, place, tmp_path, capsys):
        """Else BMN would be trained with BMN's options, whatever was asked for."""
        data = ["--features", str(place / "store"), "--annotations", str(place / "annotations.json")]
        assert main(["train", *data, "gtad", "--run", str(tmp_path / "run")]) == 1
        assert "The localizer comes first: uptal train gtad" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_annotations_in_which_nothing_happens(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nu0,,,\nu1,,,\n")
        with pytest.raises(AnnotationError, match=r"none of the 2 videos .* holds an annotated instance"):
            train_localizer(SMALL, place / "store", tmp_path / "a.csv", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--proposals", "--top-classes", "1"], "written without classes"),
            (["--last"], "are for runs of `uptal train lgi`"),
            (["--durations", "d.csv"], "are for runs of `uptal train lgi`"),
        ],
    )
    def test_options_of_prediction_that_would_do_nothing(self, words, message, place, tmp_path, capsys):
        data = ["--features", str(place / "store"), "--out", str(tmp_path / "f.json")]
        assert main(["predict", str(place / "run"), *data, *words]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "f.json").exists()

    def test_class_scores_have_nothing_to_name_where_the_localizer_tells_classes_apart(self, place, tmp_path, capsys):
        data = ["--features", str(place / "store"), "--annotations", str(place / "annotations.json")]
        tiny = ["--small", "--optim.epochs", "1", "--actionformer.width", "16", "--actionformer.num_levels", "2"]
        train = ["train", "actionformer", *data, *tiny, "--run"]
        for words in (["--class_scores", "segment"], ["--top_classes", "1"]):
            assert main([*train, str(tmp_path / "run"), *words]) == 1
            said = " ".join(capsys.readouterr().err.split())
            assert f"leave {words[0]} out" in said and "--actionformer.class_agnostic true" in said
        assert not (tmp_path / "run").exists()
        assert main([*train, str(tmp_path / "any"), "--actionformer.class_agnostic", "true", *words]) == 0
        assert main([*train, str(tmp_path / "run")]) == 0
        capsys.readouterr()
        for run, code in (("run", 1), ("any", 0)):
            out = tmp_path / f"{run}.json"
            words = ["predict", str(tmp_path / run), "--features", str(place / "store"), "--out", str(out)]
            assert main([*words, "--top-classes", "2"]) == code
            assert ("leave --top-classes out" in capsys.readouterr().err.replace("\n", " ")) == bool(code)
            assert out.exists() != bool(code)
            assert main(words) == 0
        assert read_submission(tmp_path / "run.json").about["class_scores"] == {"from": "the localizer"}
        rows = "".join(f"{id},swim,0.5\n{id},fly,0.25\n" for id in FeatureStore(place / "store").ids)
        (tmp_path / "scores.csv").write_text("video,label,score\n" + rows)
        words = [
            "predict",
            str(tmp_path / "run"),
            "--features",
            str(place / "store"),
            "--out",
            str(tmp_path / "f.json"),
        ]
        assert main([*words, "--class-scores", str(tmp_path / "scores.csv"), "--top-classes", "1"]) == 0
        named = read_detections(tmp_path / "f.json").values()
        assert {label for each in named for label in each.labels or ()} == {"swim"}

    def test_a_device_that_is_not_there(self, place, tmp_path, capsys):
        words = ["predict", str(place / "run"), "--features", str(place / "store"), "--out", str(tmp_path / "f.json")]
        assert main([*words, "--device", "gpu"]) == 1
        assert "gpu" in capsys.readouterr().err and not (tmp_path / "f.json").exists()

    def test_features_of_another_encoder(self, place, localizer, tmp_path):
        other = FeatureStore.create(tmp_path, FeatureStore(place / "store").description | {"encoder_digest": "f" * 64})
        with pytest.raises(CheckpointError, match=r"features with encoder_digest .* has ffff.*uptal extract"):
            check_store(localizer, other)

    def test_another_store_under_the_same_run(self, place, tmp_path):
        shutil.copytree(place / "store", tmp_path / "store")
        shutil.copytree(place / "run", tmp_path / "run")
        assert train_localizer(SMALL, tmp_path / "store", place / "annotations.json", tmp_path / "run").new_steps == 0
        FeatureStore(tmp_path / "store").file("u5").unlink()
        with pytest.raises(ConfigError, match="features_sha256"):
            train_localizer(SMALL, tmp_path / "store", place / "annotations.json", tmp_path / "run")

    def test_annotations_of_other_videos(self, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nv_u0,1,2,left\n")
        with pytest.raises(AnnotationError, match=r"no video of subset 'training' has features .*prefix 'v_'"):
            train_localizer(SMALL, place / "store", tmp_path / "a.csv", tmp_path / "run")
        with pytest.raises(AnnotationError, match=r"Subsets there: training, validation"):
            train_localizer(
                replace(SMALL, subset="trianing"), place / "store", place / "annotations.json", tmp_path / "run"
            )
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
        with pytest.raises(
            CheckpointError,
            match=r"Make one with `uptal train bmn\|gtad\|actionformer |Train it again or copy it again",
        ):
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
        with pytest.raises(VideoError, match=r"bad\.mp4: it is a text file"):
            detect(place / "run", [bad], tmp_path / "out")
        shutil.copy(bad, worse := tmp_path / "worse.mp4")
        with pytest.raises(ConfigError, match=r"None of the 2 videos can be used(?s:.*)bad\.mp4(?s:.*)worse\.mp4"):
            detect(place / "run", [bad, worse], tmp_path / "out")
        with pytest.raises(ConfigError, match=r"Of 2 videos these do not exist: .*absent\.mp4"):
            detect(place / "run", [bad, tmp_path / "absent.mp4"], tmp_path / "out")
        assert not (tmp_path / "out").exists()
        with pytest.raises(ConfigError, match="is a folder; give video files"):
            detect(place / "run", [place / "untrimmed"], tmp_path / "out")
        assert list(detect(place / "run", [bad, place / "untrimmed" / "u0.mp4"], tmp_path / "out")) == ["u0"]
        assert "bad.mp4" in json.dumps((tmp_path / "out" / "report.html").read_text())
