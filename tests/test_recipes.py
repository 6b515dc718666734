"""The paper's runs have names, differ where its tables differ, and every one of them can be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from uptal.clipspec import ClipSpec
from uptal.encoders import load_encoder
from uptal.errors import ConfigError
from uptal.recipes.pretrain import PretrainConfig, paper, recipe, recipes, small, with_optim
from uptal.recipes.running import pretrain
from uptal.recipes.settings import from_plain
from uptal.run import RunFolder, plain
from videos import write

TABLE_3 = [f"t3_{row}" for row in range(5)]
TABLE_4 = [f"t4_{layers}" for layers in range(4)]
TABLE_5 = ["t5_hard", "t5_0_04", "t5_04_06", "t5_06_1", "t5_0_1"]
PINNED = ["paper", "demo", "moco", "moco_matched", "tac", "random", *TABLE_3, *TABLE_4, *TABLE_5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six videos of 40 to 90 frames."""
    path = tmp_path_factory.mktemp("videos")
    for index in range(6):
        write(path / f"video{index}.mp4", frames=40 + 10 * index, size=(32, 32))
    return path


@pytest.mark.parametrize("changes", [{"data": {"resize": 10}}, {"extraction_stride": 0}])
def test_clips_that_no_encoder_could_be_saved_with_are_refused_before_training(changes):
    values = plain(small(paper()))
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=r"data\.resize .*aug\.size .*extraction_stride"):
        from_plain(PretrainConfig, values)


def test_every_pinned_name_is_there():
    assert set(PINNED) <= set(recipes())


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"no recipe 't3_9'.*t3_4"):
        recipe("t3_9")


def test_the_defaults_are_the_papers():
    cfg = paper()
    line, region = cfg.data.timeline, cfg.data.timeline.region
    assert (cfg.encoder, line.clips, line.frames, cfg.aug.size) == ("i3d", 8, 8, 112)
    assert (region.max_clips, region.min_stride, region.max_stride) == (6, 1, 4)
    assert (cfg.paste.source, cfg.paste.beta) == ("diff", (0.6, 1.0))
    assert (cfg.head.ft_layers, cfg.head.ft_kernel) == (2, 3)
    assert (cfg.contrast.queue, cfg.contrast.tau, cfg.contrast.negatives) == (16384, 0.07, "queue")
    optim = cfg.optim
    assert (optim.algorithm, optim.lr, optim.weight_decay, optim.batch, optim.epochs) == ("adam", 1e-4, 1e-5, 512, 200)
    assert (optim.schedule, optim.gamma) == ("plateau", 0.1)
    assert cfg.aug.grey == 0 and cfg.init is None


def test_a_plateau_needs_validation_videos_and_has_them():
    for name in PINNED:
        cfg = recipe(name)
        assert cfg.optim.schedule != "plateau" or cfg.data.val_videos >= cfg.optim.batch


def test_ablations_run_half_as_long_as_the_main_result():
    assert all(recipe(name).optim.epochs == 100 for name in (*TABLE_3, *TABLE_4, *TABLE_5))


def test_rows_of_table_3_add_one_thing_each():
    rows = [recipe(name) for name in TABLE_3]
    assert rows[0].data.timeline.clips == 1 and rows[0].head.ft_layers == 0 and rows[0].paste.source == "none"
    assert rows[0].data.timeline.region.max_stride == 1
    dense, scale, same, diff = rows[1:]
    assert dense.data.timeline.region.max_stride == 1
    assert replace(dense, data=scale.data) == scale and scale.data.timeline.region.max_stride == 4
    assert replace(scale, paste=same.paste) == same and same.paste.source == "same"
    assert replace(same, paste=diff.paste) == diff and diff.paste.source == "diff"
    assert replace(dense, data=replace(dense.data, timeline=rows[0].data.timeline), head=rows[0].head) == rows[0]


def test_rows_of_table_4_differ_in_the_number_of_temporal_layers_only():
    for layers, name in enumerate(TABLE_4):
        cfg = recipe(name)
        assert cfg.head.ft_layers == layers and replace(cfg, head=recipe("t4_2").head) == recipe("t3_4")


def test_rows_of_table_5_differ_in_the_range_of_beta_only():
    ranges = [(1.0, 1.0), (0.0, 0.4), (0.4, 0.6), (0.6, 1.0), (0.0, 1.0)]
    for name, expected in zip(TABLE_5, ranges, strict=True):
        cfg = recipe(name)
        assert cfg.paste.beta == expected and replace(cfg, paste=recipe("t3_4").paste) == recipe("t3_4")


def test_recipes_are_distinct_but_for_the_rows_that_the_paper_repeats():
    repeated = {"t3_4", "t4_2", "t5_06_1"}
    assert len({str(plain(recipe(name))) for name in repeated}) == 1
    others = [str(plain(recipe(name))) for name in PINNED if name not in repeated - {"t3_4"}]
    assert len(set(others)) == len(others)


def test_the_rivals_are_the_baseline_for_longer_and_with_labels():
    assert recipe("moco") == with_optim(recipe("t3_0"), epochs=200)
    matched = recipe("moco_matched").optim.epochs * recipe("t3_0").data.timeline.clips
    assert matched == paper().optim.epochs * paper().data.timeline.clips
    assert recipe("tac").method == "supervised" and recipe("random").optim.max_steps == 0


def test_pal_plus_is_pal_and_a_boundary_loss():
    cfg = recipe("pal_plus")
    assert cfg.head.boundary > 0 and replace(cfg, head=paper().head) == paper()
    assert cfg.head == replace(paper().head, boundary=cfg.head.boundary)


def test_one_gpu_makes_the_papers_step_in_parts():
    cfg = recipe("paper_one_gpu")
    assert with_optim(cfg, accumulate=1) == paper() and cfg.optim.part(1) == 64


@pytest.mark.parametrize("name", ["paper_one_gpu", "small_files", "untrimmed"])
def test_recipes_for_other_machines_and_corpora_are_pal(name):
    cfg = recipe(name)
    assert cfg.method == "pal" and cfg.paste == paper().paste and cfg.head == paper().head
    assert cfg.optim.schedule != "plateau" or cfg.data.val_videos >= cfg.optim.batch


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_survives_being_written_down(name):
    assert from_plain(PretrainConfig, plain(recipe(name))) == recipe(name)


@pytest.mark.parametrize("name", [*TABLE_3, *TABLE_4, *TABLE_5, "moco"])
def test_the_small_twin_takes_two_steps(name, folder, tmp_path):
    cfg = tiny(recipe(name), max_steps=2)
    outcome = pretrain(cfg, folder, tmp_path / "run")
    lines = [line for line in RunFolder(tmp_path / "run").read_log() if "loss" in line]
    assert outcome.steps == 2 and outcome.finished and len(lines) == 2
    assert torch.tensor([line["loss"] for line in lines]).isfinite().all()
    loaded = load_encoder(tmp_path / "run")
    assert loaded.clip == cfg.clip == ClipSpec(frames=8, stride=2, size=32, resize=36)


def test_the_small_twin_of_supervised_training_takes_two_steps(folder, tmp_path):
    labels = {f"video{index}": "odd" if index % 2 else "even" for index in range(6)}
    outcome = pretrain(tiny(recipe("tac"), max_steps=2), folder, tmp_path / "run", labels)
    assert outcome.steps == 2


def test_supervised_training_without_labels_says_what_to_give(folder, tmp_path):
    with pytest.raises(ConfigError, match="--labels"):
        pretrain(tiny(recipe("tac"), max_steps=2), folder, tmp_path / "run")


def test_a_random_encoder_takes_no_step_and_is_kept(folder, tmp_path):
    outcome = pretrain(tiny(recipe("random")), folder, tmp_path / "run")
    assert outcome.steps == 0
    first = load_encoder(tmp_path / "run").encoder.state_dict()
    pretrain(tiny(recipe("random")), folder, tmp_path / "again")
    again = load_encoder(tmp_path / "again").encoder.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_a_run_begins_where_another_encoder_ended(folder, tmp_path):
    pretrain(tiny(recipe("random")), folder, tmp_path / "start")
    cfg = replace(tiny(recipe("random")), init=str(tmp_path / "start"), seed=7)
    pretrain(cfg, folder, tmp_path / "run")
    first, second = (load_encoder(tmp_path / name).encoder.state_dict() for name in ("start", "run"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_same_run_twice_gives_the_same_losses(folder, tmp_path):
    losses = []
    for name in ("first", "second"):
        pretrain(tiny(recipe("t3_4"), max_steps=3), folder, tmp_path / name)
        losses.append([line["loss"] for line in RunFolder(tmp_path / name).read_log() if "loss" in line])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_one_broken_video_does_not_stop_a_run(folder, tmp_path, capfd):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in folder.glob("*.mp4"):
        (videos / path.name).symlink_to(path)
    (videos / "broken.mp4").write_text("not a video")
    assert pretrain(tiny(recipe("t3_4"), max_steps=6), videos, tmp_path / "run").steps == 6
    assert "broken.mp4" in "".join(capfd.readouterr())


def tiny(cfg: PretrainConfig, **optim) -> PretrainConfig:
    """The small twin, smaller still: three videos a step, pictures of 32 pixels, no loader process."""
    cfg = small(cfg)
    data = replace(cfg.data, resize=36, workers=0)
    cfg = replace(cfg, data=data, aug=replace(cfg.aug, size=32), contrast=replace(cfg.contrast, queue=8))
    return with_optim(cfg, batch=3, log_every=1, **optim)
