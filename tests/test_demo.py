"""The demo from end to end, at a size at which nothing can be learnt: what it writes, and what a second start does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from uptal.clipspec import ClipSpec
from uptal.encoders import Classes, SavedEncoder, build, save_encoder
from uptal.errors import ConfigError
from uptal.recipes import demo as story
from uptal.recipes import demo_page
from uptal.recipes import pretrain as recipes
from uptal.recipes.demo_external import title_of
from uptal.synthetic import CorpusConfig

CORPUS = CorpusConfig(num_trimmed=8, num_untrimmed=8, size=32, trimmed_frames=64, untrimmed_frames=96, num_classes=2)


def _tiny(cfg: recipes.PretrainConfig) -> recipes.PretrainConfig:
    """One step of four videos at 24 pixels."""
    optim = replace(cfg.optim, batch=4, max_steps=min(1, cfg.optim.max_steps or 0))
    contrast = replace(cfg.contrast, queue=8)
    data = replace(cfg.data, resize=28, workers=0)
    return replace(cfg, optim=optim, contrast=contrast, data=data, aug=replace(cfg.aug, size=24))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished demo and its results."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        methods = tuple(replace(m, recipe=lambda m=m: _tiny(m.recipe())) for m in demo_page.METHODS)
        patch.setattr(story, "METHODS", methods)
        patch.setattr(story, "demo_corpus", lambda: CORPUS)
        yield out, story.demo(out, device="cpu")


def test_the_demo_leaves_its_numbers_and_a_page(made):
    out, results = made
    assert json.loads((out / "results.json").read_text()) == results
    assert list(results) == ["random", "frame_difference", "moco", "pal", "tac", "shipped"]
    for row in results.values():
        assert {"average_mAP", "AUC", "AR", "pairs", "clips", "seconds", "class_accuracy"} <= row.keys()
    assert sum(demo_page.SECOND in row for row in results.values()) == 2
    page = (out / "report.html").read_text()
    assert "Which features localise?" in page and "Does another localizer agree?" in page
    assert "slim-v1 (comes with uptal)" in page and "label-free segments, encoder of the package" in page
    assert "Can it be asked in words?" in page and 'class="card grounded"' in page


def test_a_second_start_takes_what_is_finished(made, capsys):
    out, results = made
    before = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    assert story.demo(out, device="cpu") == results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "Average mAP" in capsys.readouterr().out


def test_a_folder_of_another_demo_is_refused(made):
    with pytest.raises(ConfigError, match="holds a demo made with"):
        story.demo(made[0], seed=7)


def test_an_encoder_from_elsewhere_gets_an_extra_row_and_leaves_the_others(made, tmp_path):
    out, results = made
    clip = ClipSpec(frames=2, stride=2, size=24, resize=28)
    names = tuple(f"action {i}" for i in range(400))
    encoder = build("tsm", depth=18, num_classes=400)
    save_encoder(tmp_path, encoder, clip, classes=Classes(vocabulary="kinetics400", names=names))
    again = story.demo(out, device="cpu", weights=tmp_path)
    row = again.pop("external")
    assert again == results
    assert row["title"] == "TSM Kinetics-400 (supervised, external weights)"
    assert {"average_mAP", "AUC", "AR", "class_accuracy"} <= row.keys()
    assert row["title"] in (out / "report.html").read_text()
    save_encoder(tmp_path, build("slim"), clip)
    with pytest.raises(ConfigError, match=r"external\.json is the row of weights with SHA-256"):
        story.demo(out, device="cpu", weights=tmp_path)


def test_an_encoder_without_classes_is_called_by_its_file():
    saved = SavedEncoder(encoder=build("slim"), clip=ClipSpec(), digest="0", source={"file": "byol.pt"})
    assert title_of(saved, Path("weights/x")) == "Slim byol.pt (external weights)"
    assert title_of(replace(saved, source=None), Path("weights/x")) == "Slim x (external weights)"
