"""Sizing a run: the numbers are of the recipe that was asked for, and what saves memory changes no number."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build
from uptal.encoders.cost import count_macs
from uptal.pretext.batch import synthesise
from uptal.pretext.recompute import recompute_blocks
from uptal.recipes import pretrain as recipes
from uptal.recipes.measuring import _loader, _model_flops, measure
from uptal.recipes.running import new_task
from uptal.recipes.waiting import describe_wait
from workshop import ALONE, CPU, make_corpus, tiny


def test_operations_are_those_of_the_networks_forward_and_backward():
    """An encoder costs its multiply-adds once forward for the key, and three times for the query."""
    cfg = tiny(recipes.moco(), batch=4, schedule="cosine")
    found = measure(cfg, None, 1)
    encoder = build("slim", width_multiplier=0.25)
    macs = count_macs(encoder, ClipSpec(frames=4, size=20, resize=24))
    # heads come on top, and the first layer's input needs no gradient
    assert found["gflops_per_sample"] == pytest.approx(2 * 4 * macs / 1e9, rel=0.1)
    assert found["batch"] == 4 and found["clips_per_s"] == pytest.approx(2 * found["samples_per_s"], rel=1e-2)
    assert 0 < found["share_of_matmul"] < 1 and 0 <= found["data_wait"] < 1 and 0 < found["synthesis_share"] < 1


@pytest.mark.parametrize("base", [recipes.paper(), recipes.tac()], ids=["pal", "tac"])
def test_operations_are_those_of_a_step_that_does_nothing_twice(base):
    cfg = tiny(base, batch=4, schedule="cosine")
    loader = _loader(cfg, None, ALONE, None)
    batch = next(loader.batches(0))
    task, shown = new_task(cfg, CPU, ALONE, classes=loader.labels), replace(batch, views=synthesise(batch))
    with FlopCounterMode(display=False) as counter:
        task.loss(shown)["loss"].backward()
    for recompute in (False, True):
        assert _model_flops(replace(cfg, recompute=recompute), batch, loader.labels) == counter.get_total_flops()


def test_the_ceiling_is_of_the_arithmetic_of_the_run(monkeypatch):
    asked = []
    monkeypatch.setattr("uptal.recipes.measuring._ceiling", lambda dtype, device: asked.append(dtype) or 1e12)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        found = measure(tiny(batch=4, schedule="cosine", precision=precision), None, 1)
        assert asked.pop() == dtype and f"torch.{found['matmul_arithmetic']}" == str(dtype)


def test_the_command_measures_a_folder_and_writes_what_it_found(tmp_path, capsys):
    videos: Path = make_corpus(tmp_path, trimmed=8, untrimmed=0) / "trimmed"
    words = ["--videos", str(videos), "--steps", "2", "--json", str(tmp_path / "found.json"), "--optim.batch=4"]
    sizes = ["--aug.size=20", "--data.resize=24", "--data.workers=0", "--optim.accumulate=1"]
    assert main(["bench", "pretrain", "demo", *words, *sizes]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["recipe"] == "demo" and found["steps"] == 2 and found["environment"]["machine"]
    said = capsys.readouterr().out
    assert f"{found['samples_per_s']}" in said and describe_wait(found["data_wait"]) in said


def test_of_a_folder_the_videos_of_a_list_are_measured(tmp_path, capsys):
    videos = make_corpus(tmp_path, trimmed=8, untrimmed=0) / "trimmed"
    names = sorted(path.name for path in videos.glob("*.mp4"))[:3]
    (tmp_path / "some.txt").write_text("\n".join(names))
    words = ["bench", "pretrain", "demo", "--list", str(tmp_path / "some.txt"), "--optim.batch=4", "--steps", "1"]
    sizes = ["--aug.size=20", "--data.resize=24", "--data.workers=0"]
    assert main([*words, *sizes, "--videos", str(videos)]) == 1
    said = capsys.readouterr().err
    assert "3 of 3 listed videos" in said and "3 are left of 3" in said
    assert main([*words, *sizes, "--videos", str(videos), "--optim.batch=3"]) == 0
    assert main([*words, *sizes]) == 1 and main([*words[:3], "--split", "train"]) == 1


def test_a_missing_subject_is_answered_with_those_there_are(capsys):
    assert main(["bench", "nothing"]) == 1
    assert "pretrain" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["slim"])
def test_recomputing_changes_no_gradient_and_no_statistic(name):
    torch.manual_seed(0)
    plain = build(name, width_multiplier=0.25)
    sparing = copy.deepcopy(plain)
    recompute_blocks(sparing)
    clips = torch.randn(3, 3, 4, 20, 20)
    for encoder in (plain, sparing):
        encoder(clips).square().sum().backward()
    for (key, value), other in zip(plain.state_dict().items(), sparing.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    for mine, other in zip(plain.parameters(), sparing.parameters(), strict=True):
        assert mine.grad is not None and torch.equal(mine.grad, other.grad)


def test_what_pytorch_cannot_do_at_once_is_refused(capsys):
    asked = ["bench", "pretrain", "demo", "--small", "--steps", "1", "--compile", "true", "--recompute", "true"]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert "do not go together" in said and "Traceback" not in said


def test_a_profile_names_the_operations_of_a_step(tmp_path, capsys):
    words = ["--small", "--steps", "1", "--optim.batch", "4", "--profile", "--json", str(tmp_path / "found.json")]
    assert main(["bench", "pretrain", "demo", *words]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["operations"]
    shares = [one["share"] for one in found]
    assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1.001
    assert any("conv" in one["name"] for one in found[:5])
    assert "x  aten::" in capsys.readouterr().out
