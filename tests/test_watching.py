"""Watching a run: transfer on the way that changes nothing, how embeddings lie, and the summary of a run's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from test_train import assert_same_run, log_of
from uptal.cli import main
from uptal.errors import ConfigError
from uptal.pretext.contrast import geometry
from uptal.recipes.running import pretrain
from uptal.recipes.transfer import Transfer
from uptal.recipes.waiting import WAITING, describe_wait
from uptal.recipes.watching import describe_runs, run_report, watch
from workshop import CPU, make_corpus, tiny

ROWS = [f"t{number:02},{('left', 'right')[number % 2]}" for number in range(12)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = make_corpus(tmp_path_factory.mktemp("corpus"), trimmed=12, untrimmed=0)
    (folder / "train.csv").write_text("\n".join(["video,label", *ROWS[:8]]) + "\n")
    (folder / "test.csv").write_text("\n".join(["video,label", *ROWS[8:]]) + "\n")
    return folder


def transfer(corpus: Path, cfg, every: int) -> Transfer:
    return Transfer.of(corpus / "trimmed", (corpus / "train.csv", corpus / "test.csv"), every, cfg, CPU)


def test_looking_at_transfer_changes_no_bit_of_the_run(corpus, tmp_path):
    cfg = tiny(max_steps=12, epochs=4)  # three steps an epoch
    pretrain(cfg, corpus / "trimmed", tmp_path / "plain")
    pretrain(cfg, corpus / "trimmed", tmp_path / "watched", look=transfer(corpus, cfg, 2).measure)
    looks = [line for line in log_of(tmp_path / "watched") if "probe_knn" in line]
    assert [line["step"] for line in looks] == [6, 12]
    for line in looks:
        assert {0.0, 0.25, 0.5, 0.75, 1.0} >= {line["probe_knn"], line["probe_linear"]}
        assert 0 <= line["probe_warp"] < 3
    file = tmp_path / "watched" / "log.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in log_of(tmp_path / "watched") if line not in looks))
    assert_same_run(tmp_path / "plain", tmp_path / "watched")


def test_transfer_needs_lists_and_a_period(corpus, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--probe-every"):
        transfer(corpus, tiny(), 0)
    words = ["pretrain", "demo", "--videos", str(corpus / "trimmed"), "--run", str(tmp_path / "r")]
    assert main([*words, "--probe-videos", str(corpus)]) == 1
    assert "--probe-train" in capsys.readouterr().err


def test_geometry_of_known_embeddings():
    same = F.normalize(torch.ones(4, 8), dim=1)
    flat = geometry(same, same)
    assert flat["spread"] == 0 and flat["alignment"] == 0 and flat["uniformity"] == 0
    axes = torch.eye(4)
    apart = geometry(axes, axes.roll(1, 0))
    assert apart["alignment"] == pytest.approx(2.0)  # orthogonal unit vectors are sqrt(2) apart
    assert apart["uniformity"] == pytest.approx(-4.0)
    assert apart["spread"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "watched"
    pretrain(tiny(max_steps=6), corpus / "trimmed", folder)
    return folder


def test_a_run_waits_for_data_or_data_for_the_run():
    assert "training sets the pace" in describe_wait(WAITING)
    for advice in ("11% of the time", "--data.workers", "uptal transcode", "--data.cache_mib", "--data.resize"):
        assert advice in describe_wait(WAITING + 0.01)


def test_a_runs_summary_names_where_it_is(run, tmp_path, capsys):
    assert main(["report", "--run", str(run), "--out", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    for word in ("watched: step 6", "loss", "alignment", "uniformity", "spread", "0 unreadable"):
        assert word in said
    page = (tmp_path / "page.html").read_text()
    for word in ("Alignment", "Uniformity", "Spread of embeddings", "Videos a second", "waiting for data"):
        assert word in page


def test_what_should_be_looked_at_is_said(run, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    lines = [line | {"spread": 0.001, "data_wait": 0.6} for line in log_of(run)]
    (bad / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (bad / "quarantine.jsonl").write_text('{"video": "a.mp4", "reason": "cut short"}\n{"video": "half')
    watched = watch(bad)
    assert "collapsed" in watched.alarms()[0] and "60% of the time" in watched.alarms()[1]
    assert "1 unreadable" in describe_runs([watched])
    report = run_report([watch(run), watched], {})
    assert sum(line.startswith("bad: ") for line in report.summary) == 2
    assert report.sections[-1].rows == [["bad", "a.mp4", "cut short"]]


@pytest.mark.parametrize("words", [["--out", "x.html"], ["--run", "a", "--videos", "b"], ["--videos", "b"]])
def test_report_needs_one_thing_to_report(words, capsys):
    assert main(["report", *words]) == 1
    assert "--run RUN" in capsys.readouterr().err


def test_an_empty_folder_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="no run has logged a step"):
        watch(tmp_path)
