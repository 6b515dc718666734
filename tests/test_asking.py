"""`uptal ground`: sentences about a video file to JSON lines, CSV, SRT and a page, by a run folder alone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import videos
from uptal.annotations import read_groundings
from uptal.cli import main as uptal
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.features import Features
from uptal.recipes import lgi as recipes
from uptal.recipes.asking import ground, replies_to
from uptal.recipes.extracting import extract_folder
from uptal.recipes.grounder_files import load_grounder
from uptal.recipes.grounding import train_grounder
from uptal.report import Grounded
from uptal.report.words import grounded_html
from uptal.types import Query, Timebase
from workshop import make_corpus

SHOWN = Grounded(
    video="v<1>", sentence="a <b> waves & sits", interval=(1.0, 3.0), duration=8.0, words=("a", "b", "waves", "sits"),
    over_words=[[0.1, 0.0, 0.8, 0.1], [0.0, 0.0, 0.2, 0.8]], seconds=np.arange(8) + 0.5, over_time=np.full(8, 0.125),
    unknown=("b",), truth=(1.0, 2.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`untrimmed/ run/`: videos and a run; the store that it was trained on is gone."""
    folder = make_corpus(tmp_path_factory.mktemp("asking"), trimmed=0, untrimmed=3)
    torch.manual_seed(0)
    spec = ClipSpec(frames=4, stride=1, size=20, resize=24)
    save_encoder(folder / "weights", build("slim", width_multiplier=0.25), spec)
    extract_folder(folder / "weights", folder / "untrimmed", folder / "store")
    rows = [
        f"u{n},{start},{end},it moves {way}"
        for n in range(3)
        for start, end, way in ((0.8, 2.4, "left"), (3, 5, "right"))
    ]
    (folder / "queries.csv").write_text("video,start,end,sentence\n" + "\n".join(rows) + "\n")
    cfg = recipes.small()
    net = replace(cfg.lgi, num_segments=12, word_width=8, lstm_width=8, attention_width=8, regression_width=16)
    cfg = replace(cfg, lgi=net, select="last", optim=replace(cfg.optim, epochs=1, batch=3, lr_batch=3))
    train_grounder(cfg, folder / "store", folder / "queries.csv", folder / "run")
    shutil.rmtree(folder / "store")
    return folder


def test_several_sentences_about_several_videos(place, tmp_path, capsys):
    videos = [str(place / "untrimmed" / f"u{n}.mp4") for n in (0, 1)]
    words = ["it moves left", "a zebra – naïvely – moves" + " and moves" * 100]
    assert uptal(["ground", str(place / "run"), *videos, "--query", *words, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "(unknown: a, zebra, –, naïvely" in said
    assert said.count("(the last 194 words were not read)") == 2  # 206 words, of which 12 count
    answers = read_groundings(tmp_path / "groundings.jsonl")
    assert [(a.video, a.sentence) for a in answers] == [(v, w) for v in ("u0", "u1") for w in words]
    for each in answers:
        assert (each.found.segments[:, 0] <= each.found.segments[:, 1]).all()
        assert (each.found.segments >= 0).all() and (each.found.segments <= 7.3).all()
    assert "it moves left" in (tmp_path / "u0.srt").read_text("utf-8")
    assert (tmp_path / "u1.csv").read_text("utf-8").startswith("video,start,end,label,score\n")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count('class="card grounded"') == 4
    assert not re.search(r'(src|href)="https?:', page)


def test_a_video_of_one_clip_and_words_that_nobody_knows_have_an_answer(place, tmp_path, capsys):
    videos.write(tmp_path / "short.mp4", frames=3)
    words = ["ground", str(place / "run"), str(tmp_path / "short.mp4"), "--query", "käfer ## öffnet", "--out"]
    assert uptal([*words, str(tmp_path / "found")]) == 0
    assert "(unknown: käfer, öffnet)" in capsys.readouterr().out
    (answer,) = read_groundings(tmp_path / "found" / "groundings.jsonl")
    assert answer.sentence == "käfer ## öffnet"
    assert np.isfinite(answer.found.segments).all() and len(answer.found.segments) >= 1


def test_an_empty_query_is_refused_before_any_decoding(place, tmp_path, capsys):
    words = ["ground", str(place / "run"), "no_such_video.mp4", "--query", "...", "--out", str(tmp_path)]
    assert uptal(words) == 1
    assert "has no word" in capsys.readouterr().err


def test_a_video_that_cannot_be_read_is_named(place, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    words = ["ground", str(place / "run"), str(tmp_path / "broken.mp4"), "--query", "it moves", "--out", str(tmp_path)]
    assert uptal(words) == 1
    assert "broken.mp4" in capsys.readouterr().err


def test_a_detection_run_is_not_asked(tmp_path, capsys):
    assert uptal(["ground", str(tmp_path), "v.mp4", "--query", "it moves", "--out", str(tmp_path)]) == 1
    assert "uptal train lgi" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["ground", "predict"])
def test_an_unfinished_run_says_so_and_how_to_go_on(place, tmp_path, capsys, command):
    shutil.copy(place / "run" / "config.yaml", tmp_path)
    words = {
        "ground": ["ground", str(tmp_path), "v.mp4", "--query", "it moves"],
        "predict": ["predict", str(tmp_path), "--features", "store", "--annotations", "queries.csv"],
    }
    assert uptal([*words[command], "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "has not come to its end" in said and "uptal train lgi" in said and "bmn" not in said


def test_attention_of_a_reply_belongs_to_its_words_and_seconds(place):
    replies = ground(place / "run", [place / "untrimmed" / "u0.mp4"], ["it moves left"], place / "out")
    (reply,) = replies
    assert reply.shown.words == ("it", "moves", "left")
    assert np.sum(reply.shown.over_words, 1) == pytest.approx([1, 1, 1], abs=1e-5)  # float32 softmax
    assert np.sum(reply.shown.over_time) == pytest.approx(1, abs=1e-5)
    assert 0 <= reply.trust <= 1
    assert json.loads((place / "out" / "groundings.jsonl").read_text("utf-8"))["segments"][0] == list(
        reply.shown.interval
    )


def test_annotated_queries_keep_their_truth(place):
    grounder = load_grounder(place / "run")
    read = one_clip(int(grounder.features["width"]))
    query = Query(id="0", video="v", sentence="it moves", start=1.0, end=2.0)
    (reply,) = replies_to(grounder, read, (), [query])
    assert reply.shown.truth == (1.0, 2.0)
    assert len(reply.shown.over_time) == 1


def one_clip(width: int) -> Features:
    return Features("v", torch.zeros(1, width), Timebase(fps=10.0, stride=4.0, window=4.0), 1.2)


class TestSection:
    def test_text_from_outside_stays_text(self):
        html = grounded_html(SHOWN)
        assert "<b>" not in html and "v<1>" not in html
        assert "Not in the vocabulary: b." in html

    def test_every_phrase_shows_every_word_and_its_weight(self):
        html = grounded_html(SHOWN)
        assert html.count('class="word"') == 8
        assert html.count("--weight:80%") == 2

    def test_the_bars_lie_where_the_intervals_are(self):
        found = re.search(r'class="found" x="([\d.]+)" y="\d+" width="([\d.]+)"', grounded_html(SHOWN))
        assert found and [float(v) for v in found.groups()] == [112.5, 225.0]
        assert 'class="true"' in grounded_html(SHOWN)
        assert 'class="true"' not in grounded_html(replace(SHOWN, truth=None))
