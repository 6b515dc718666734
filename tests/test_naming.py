"""Segments get names from an encoder's own classifier: the mean over the clips inside, never over none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from uptal.annotations import read_detections
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import Classes, SavedEncoder, build, save_encoder
from uptal.errors import ConfigError
from uptal.features import Features
from uptal.localizers.bmn import BMNConfig
from uptal.recipes.bmn import BMNSettings
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.localize import train_localizer
from uptal.recipes.naming import check_vocabulary, inside, name_segments, segment_scores, table_rows, write_top
from uptal.train import OptimConfig
from uptal.types import Detections, Timebase
from workshop import make_corpus

NAMES = ("run", "jump", "wave", "clap", "sit", "throw")


@pytest.fixture
def saved() -> SavedEncoder:
    torch.manual_seed(0)
    encoder = build("tsm", depth=18, num_classes=len(NAMES)).eval()
    classes = Classes(vocabulary="gym", names=NAMES)
    return SavedEncoder(encoder=encoder, clip=ClipSpec(), digest="0", classes=classes)


@pytest.fixture
def features() -> Features:
    """Ten clips a second apart; clip i has its middle at i + 0.5 s."""
    values = torch.randn(10, 512, generator=torch.Generator().manual_seed(1)) * 8
    return Features("video", values, Timebase(fps=10.0, stride=10.0, window=10.0), 10.0)


FOUND = Detections(np.array([[2.0, 5.0], [0.0, 0.1], [9.9, 12.0]]), np.array([0.9, 0.5, 0.1]))


def test_a_segment_takes_the_clips_whose_middles_lie_inside_or_the_nearest(features):
    picked = [inside(features, start, end) for start, end in FOUND.segments.tolist()]
    assert [(each.start, each.stop) for each in picked] == [(2, 5), (0, 1), (9, 10)]


def test_scores_are_the_mean_of_the_clips_softmax(saved, features):
    with torch.no_grad():
        clips = saved.encoder.classify(features.values).softmax(1).numpy()
    scores = segment_scores(saved, features, FOUND)
    np.testing.assert_allclose(scores[0], clips[2:5].mean(0), rtol=1e-6)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)


def test_a_segment_is_called_by_its_likeliest_class_and_keeps_its_own_score(saved, features, tmp_path):
    named = name_segments(saved, features, FOUND)
    scores = segment_scores(saved, features, FOUND)
    assert named.detections.labels == tuple(NAMES[k] for k in scores.argmax(1))
    assert np.array_equal(named.detections.scores, FOUND.scores)
    assert [label for label, _ in named.top[0]] == [NAMES[k] for k in np.argsort(-scores[0])[:5]]
    write_top(tmp_path, "gym", {"video": named})
    written = json.loads((tmp_path / "classes.json").read_text())
    assert written["vocabulary"] == "gym"
    first = written["results"]["video"][0]
    assert first["segment"] == [2.0, 5.0]
    assert first["classes"][0] == {"label": named.top[0][0][0], "score": pytest.approx(float(scores[0].max()))}
    assert len(first["classes"]) == 5
    assert (tmp_path / "classes.csv").read_text().splitlines()[1].startswith(f"video,2.0,5.0,1,{named.top[0][0][0]},")
    assert str(table_rows([("video", named)])[0][3]).startswith(named.top[0][0][0])


def test_no_segments_have_no_names(saved, features):
    assert not len(name_segments(saved, features, Detections(np.zeros((0, 2)), np.zeros(0))).detections)


def test_detect_names_segments_with_the_encoders_own_classifier_or_says_that_it_has_none(saved, tmp_path, capsys):
    folder = make_corpus(tmp_path, trimmed=0, untrimmed=3)
    clip = ClipSpec(frames=2, stride=2, size=20, resize=24)
    save_encoder(folder / "weights", saved.encoder, clip, classes=saved.classes)
    extract_folder(folder / "weights", folder / "untrimmed", folder / "store", ExtractConfig(batch=8))
    optim = OptimConfig(batch=2, epochs=1, schedule="constant")
    net = BMNConfig(in_channels=8, num_steps=12, num_samples=4, hidden=(8, 8, 8), num_proposals=20)
    train_localizer(BMNSettings(bmn=net, optim=optim), folder / "store", folder / "annotations.json", folder / "run")
    words = ["detect", str(folder / "run"), str(folder / "untrimmed" / "u0.mp4"), "--out", str(tmp_path / "out")]
    assert main([*words, "--classes", "kinetics400"]) == 1
    assert "knows the 6 classes of gym" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    assert main([*words, "--classes", "gym"]) == 0
    found = read_detections(tmp_path / "out" / "detections.json")["u0"]
    top = json.loads((tmp_path / "out" / "classes.json").read_text())["results"]["u0"]
    assert found.labels == tuple(row["classes"][0]["label"] for row in top)
    assert set(found.labels) <= set(NAMES)
    assert "Likeliest classes" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "classes", "message"),
    [
        ({}, None, "this run's is TSM, and it has no classifier"),
        ({"num_classes": 6}, None, "its classifier has 6 classes without names"),
        ({"num_classes": 6}, Classes(vocabulary="gym", names=NAMES), "knows the 6 classes of gym"),
    ],
)
def test_an_encoder_without_that_classifier_is_refused(options, classes, message):
    saved = SavedEncoder(encoder=build("tsm", depth=18, **options), clip=ClipSpec(), digest="0", classes=classes)
    with pytest.raises(ConfigError, match=rf"runs/bmn: --classes kinetics400 needs .*{message}"):
        check_vocabulary(saved, "kinetics400", "runs/bmn")
