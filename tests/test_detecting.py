"""My own video in, named seconds out, with every localizer and with features of any width."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal.annotations import read_detections
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import ConfigError
from uptal.features import FeatureStore
from uptal.localizers.actionformer import ActionFormerConfig
from uptal.localizers.bmn import BMNConfig
from uptal.localizers.gtad import GTADConfig
from uptal.recipes import heads
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.head import LocalizeConfig
from uptal.recipes.localize import train_localizer
from uptal.recipes.localizer_files import load_localizer
from uptal.recipes.predicting import predict, read_all
from uptal.train import OptimConfig
from workshop import LABELS, make_corpus

WIDTH = 13
OPTIM = OptimConfig(lr=1e-3, lr_batch=4, batch=4, epochs=1, schedule="constant", log_every=1)
SETTINGS: dict[str, LocalizeConfig] = {
    "bmn": replace(
        heads.recipe("bmn"), bmn=BMNConfig(in_channels=4, num_steps=12, num_samples=4, hidden=(8, 8, 8)), optim=OPTIM
    ),
    "gtad": replace(
        heads.recipe("gtad"),
        gtad=GTADConfig(in_channels=4, num_steps=12, max_duration=12, inner=4, context=2, hidden=(8, 8, 8), groups=2),
        optim=OPTIM,
    ),
    "actionformer": replace(
        heads.recipe("actionformer"),
        actionformer=ActionFormerConfig(in_channels=4, width=8, num_levels=3, window=5, loss_norm=8.0, num_steps=64),
        optim=replace(OPTIM, algorithm="adamw"),
    ),
}


def encoder(folder: Path, multiplier: float, seed: int) -> Path:
    torch.manual_seed(seed)
    save_encoder(folder, build("slim", width_multiplier=multiplier), ClipSpec(frames=4, stride=1, size=20, resize=24))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`untrimmed/ annotations.json weights/`, and in `store/` features that are 13 wide."""
    folder = make_corpus(tmp_path_factory.mktemp("place"), trimmed=0, untrimmed=6)
    encoder(folder / "weights", WIDTH / 128, seed=0)
    extract_folder(folder / "weights", folder / "untrimmed", folder / "store", ExtractConfig(batch=8))
    assert FeatureStore(folder / "store").width == WIDTH
    return folder


@pytest.fixture(scope="module", params=list(SETTINGS))
def run(request, place) -> Path:
    path = place / request.param
    assert train_localizer(SETTINGS[request.param], place / "store", place / "annotations.json", path).finished
    return path


def words(*parts: object) -> list[str]:
    return [str(part) for part in parts]


def test_a_video_is_detected_as_its_stored_features_are(run, place, tmp_path):
    video = shutil.copy(place / "untrimmed" / "u4.mp4", tmp_path)
    shutil.copytree(run, tmp_path / "run")
    assert main(words("detect", tmp_path / "run", video, "--out", tmp_path / "out")) == 0
    found = read_detections(tmp_path / "out" / "detections.json")["u4"]
    store = FeatureStore(place / "store")
    stored = predict(load_localizer(run), read_all(store, ["u4"]))["u4"]
    assert len(found) and set(found.labels or ()) <= set(LABELS)
    assert found.segments.min() >= 0 and found.segments.max() <= store.read("u4").duration
    np.testing.assert_allclose(found.scores, stored.scores, rtol=1e-3, atol=1e-6)  # another batch size, and JSON
    header, *rows = (tmp_path / "out" / "u4.csv").read_text().splitlines()
    assert header == "video,start,end,label,score" and len(rows) == len(found)
    assert {"u4.srt", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_proposals_are_written_without_classes(run, place, tmp_path):
    out = tmp_path / "p.json"
    assert main(words("predict", run, "--features", place / "store", "--proposals", "--out", out)) == 0
    for found in read_detections(out).values():
        assert len(found) and found.labels is None


def test_the_network_is_as_wide_as_the_filled_features(run):
    settings = getattr(load_localizer(run).settings, run.name)
    assert settings.in_channels == (WIDTH if run.name == "actionformer" else 16)


def test_another_encoders_features_are_refused_with_both_sides(run, place, tmp_path, capsys):
    other = encoder(tmp_path / "weights", 10 / 128, seed=1)
    extract_folder(other, place / "untrimmed", tmp_path / "store", ExtractConfig(batch=8))
    mine = json.loads((run / "features.json").read_text())["encoder_digest"]
    theirs = FeatureStore(tmp_path / "store").encoder_digest
    out = tmp_path / "f.json"
    assert main(words("predict", run, "--features", tmp_path / "store", "--out", out)) == 1
    assert f"{mine}, {tmp_path / 'store'} has {theirs}" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(run, tmp_path / "run")
    for name in ("encoder.safetensors", "encoder.json"):
        shutil.copy(other / name, tmp_path / "run")
    assert main(words("detect", tmp_path / "run", place / "untrimmed" / "u4.mp4", "--out", tmp_path / "out")) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert theirs[:12] in error and mine[:12] in error and not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="features_sha256"):
        train_localizer(SETTINGS[run.name], tmp_path / "store", place / "annotations.json", tmp_path / "run")
    assert not out.exists()
