"""G-TAD on the built-in corpus, from features to evaluated detections, through the commands that users type."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal.annotations import read_annotations, read_detections
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import AnnotationError, CheckpointError, ConfigError
from uptal.features import FeatureStore
from uptal.localizers.bmn import BMN
from uptal.localizers.gtad import GTAD
from uptal.localizers.samples import CutConfig, cut_video
from uptal.optim import learning_rate
from uptal.recipes import heads
from uptal.recipes.localize import train_localizer
from uptal.recipes.localizer_files import load_localizer

REDUCED = [
    f"--{name}"
    for name in ("optim.epochs=2", "gtad.num_steps=16", "gtad.max_duration=8", "gtad.inner=4", "gtad.context=4",
                 "gtad.hidden=[8,8,8]", "gtad.groups=4", "gtad.longest=7")
]  # fmt: skip


def uptal(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The corpus and its features by an encoder that learnt nothing."""
    folder = tmp_path_factory.mktemp("place")
    assert uptal("synthesize", "--out", folder, "--trimmed", 0, "--untrimmed", 4, "--size", 48, "--workers", 1) == 0
    torch.manual_seed(0)
    spec = ClipSpec(frames=4, stride=2, size=32, resize=36)
    save_encoder(folder / "weights", build("slim", width_multiplier=0.25), spec)
    assert uptal("extract", "--weights", folder / "weights", "--videos", folder / "untrimmed", "--out",
                 folder / "store", "--interval", 8) == 0  # fmt: skip
    return folder


@pytest.mark.parametrize("recipe", ["activitynet", "thumos14", "small"])
def test_every_recipe_trains_predicts_and_is_evaluated(recipe, place, tmp_path):
    data = ("--features", place / "store", "--annotations", place / "annotations.json")
    assert uptal("train", "gtad", "--recipe", recipe, *data, "--run", tmp_path / "run", *REDUCED) == 0
    assert uptal("predict", tmp_path / "run", *data, "--out", tmp_path / "found.json") == 0
    score = ("--truth", place / "annotations.json", "--found", tmp_path / "found.json", "--protocol", "activitynet")
    for task in ("detection", "proposals"):
        assert uptal("evaluate", task, *score, "--subset", "training", "--json", tmp_path / f"{task}.json") == 0
    numbers = json.loads((tmp_path / "detection.json").read_text())
    assert 0 <= numbers["average_mAP"] <= 1 and numbers["videos"]["missing"] == 0
    truth, found = read_annotations(place / "annotations.json"), read_detections(tmp_path / "found.json")
    known = {segment.label for video in truth.values() for segment in video.segments}
    for id, video in truth.items():
        assert len(found[id]) and set(found[id].labels or ()) <= known
        assert (found[id].segments[:, 0] < found[id].segments[:, 1]).all()
        assert found[id].segments.min() >= 0 and found[id].segments.max() <= video.duration + 0.05


def test_windows_cover_a_video_and_come_back_as_one_list(place):
    cfg = heads.fit_to(heads.recipe("gtad", "thumos14"), 8)
    store = FeatureStore(place / "store")
    read = store.read(store.ids[0])
    samples = cut_video(read, None, 8, cfg.cut)
    assert len(samples) > 1 and samples[-1].first + 8 >= len(read.values) - int(0.2 * 8)


class TestPublicWeights:
    """`--init FILE`: a checkpoint of a public code as the start of a run, or, with no epochs, as the run itself."""

    def test_without_epochs_the_run_holds_the_files_weights(self, place, tmp_path):
        store = FeatureStore(place / "store")
        cfg = heads.fit_to(heads.recipe("gtad", "small"), store.width)
        torch.manual_seed(7)
        network = heads.build(cfg, ())
        weights = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"epoch": 10, "state_dict": weights}, tmp_path / "best.pth.tar")
        run, data = tmp_path / "run", ("--features", place / "store", "--annotations", place / "annotations.json")
        words = ("--small", "--init", tmp_path / "best.pth.tar", "--optim.epochs", 0)
        assert uptal("train", "gtad", *data, "--run", run, *words) == 0
        model = load_localizer(run).model
        assert isinstance(model, GTAD)
        assert all(torch.equal(value, weights[f"module.{key}"]) for key, value in model.state_dict().items())
        assert "init_sha256" in (run / "config.yaml").read_text()

    def test_a_bmn_without_its_mask_is_taken_as_the_settings_say(self, tmp_path):
        cfg = heads.fit_to(heads.recipe("bmn", "small"), 16)
        torch.save(heads.build(cfg, ()).state_dict(), tmp_path / "bmn.pth")
        assert isinstance(heads.from_official(cfg, tmp_path / "bmn.pth"), BMN)

    def test_a_file_that_does_not_fit_is_named_and_leaves_no_run(self, place, tmp_path):
        cfg = heads.recipe("gtad", "small")
        torch.save({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=r"other\.pth: The checkpoint does not fit this G-TAD: .* is missing"):
            train_localizer(cfg, place / "store", place / "annotations.json", tmp_path / "run", tmp_path / "other.pth")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 cut"])
    def test_a_file_that_is_no_checkpoint_is_refused(self, content, tmp_path):
        if content is not None:
            (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"w\.pth: (cannot be read as weights|no such file)"):
            heads.from_official(heads.recipe("gtad"), tmp_path / "w.pth")

    def test_a_file_with_code_in_it_is_not_run(self, tmp_path):
        torch.save({"state_dict": Path("x")}, tmp_path / "w.pth")
        with pytest.raises(CheckpointError, match="holds more than tensors"):
            heads.from_official(heads.recipe("gtad"), tmp_path / "w.pth")


class TestBadInput:
    @pytest.fixture
    def data(self, place, tmp_path):
        """A copy of the store and a table of annotations that tests may spoil."""
        store = FeatureStore.create(tmp_path / "store", FeatureStore(place / "store").description)
        for id in FeatureStore(place / "store").ids:
            store.write(FeatureStore(place / "store").read(id))
        return store, tmp_path / "a.csv", tmp_path / "run"

    @pytest.mark.parametrize("kind", ["bmn", "gtad"])
    def test_features_that_are_not_numbers_are_named(self, kind, data):
        store, table, run = data
        read = store.read(store.ids[0])
        read.values[2] = float("nan")
        store.write(read)
        table.write_text(f"video,start,end,label\n{read.id},1,3,x\n")
        with pytest.raises(AnnotationError, match=rf"{read.id} are not finite numbers"):
            train_localizer(heads.recipe(kind, "small"), store.path, table, run)

    @pytest.mark.parametrize("kind", ["bmn", "gtad"])
    def test_one_snippet_no_truth_and_no_length_do_no_harm(self, kind, data):
        """A one-snippet video, a video whose only instance has no length, and another without any."""
        store, table, run = data
        short, zero, bare, whole = store.ids
        read = store.read(short)
        store.write(type(read)(short, read.values[:1].clone(), read.timebase, 0.5))
        table.write_text(f"video,start,end,label\n{short},0.1,0.4,x\n{zero},2,2,y\n{whole},1,4,x\n")
        cfg = heads.recipe(kind, "small")
        assert train_localizer(cfg, store.path, table, run).finished
        losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
        assert losses and np.isfinite(losses).all()
        model = load_localizer(run).model
        samples = [s for id in (short, zero, bare) for s in cut_video(store.read(id), None, 32, cfg.cut)]
        for part in model.localize(samples):
            assert np.isfinite(part.scores).all() and np.isfinite(part.segments).all()


@pytest.mark.parametrize(("kind", "rate", "falls"), [("bmn", 1e-3, 7), ("gtad", 4e-3, 5)])
def test_rates_fall_where_the_public_codes_meant_them_to(kind, rate, falls):
    """With the PyTorch of their time, which newer versions no longer do for them."""
    cfg = heads.recipe(kind).optim
    found = [learning_rate(cfg, float(epoch), float(cfg.epochs)) for epoch in range(cfg.epochs)]
    assert found == pytest.approx([rate] * falls + [rate / 10] * (cfg.epochs - falls))


@pytest.mark.parametrize("kind", ["bmn", "gtad"])
def test_videos_of_any_number_of_steps_are_refused(kind):
    with pytest.raises(ConfigError, match=r"cut\.mode must be resample or windows"):
        replace(heads.recipe(kind), cut=CutConfig(mode="whole"))


def test_a_localizer_without_public_weights_says_so(monkeypatch, tmp_path):
    from dataclasses import replace

    monkeypatch.setitem(heads.HEADS, "gtad", replace(heads.HEADS["gtad"], from_official=None))
    with pytest.raises(ConfigError, match="--init reads checkpoints of the public code of bmn, not of gtad"):
        heads.from_official(heads.recipe("gtad"), tmp_path / "w.pth")
