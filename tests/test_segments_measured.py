"""Recall of label-free segments: the official curve's numbers, intervals that hold them, and the command's file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from uptal.cli import main
from uptal.encoders import DEFAULT, load_encoder
from uptal.evidence.segments import AT, Row, differences, evenly, hits, summarise
from uptal.metrics import proposal_recall
from uptal.types import Detections, Segment, Video
from workshop import make_corpus


def made(videos: int = 9) -> tuple[dict[str, Video], dict[str, Detections]]:
    """Random truth and segments; the better ones score higher."""
    rng, truth, found = np.random.default_rng(3), {}, {}
    for number in range(videos):
        id, begin = f"v{number}", np.sort(rng.uniform(0, 9, 2))
        spans = [Segment(float(at), float(at + rng.uniform(0.5, 3)), "a") for at in begin]
        truth[id] = Video(id=id, duration=12.0, subset="", segments=tuple(spans))
        near = np.array([(s.start, s.end) for s in spans]).repeat(6, 0) + rng.normal(0, 0.3, (12, 2))
        found[id] = Detections(np.sort(near, 1), rng.uniform(0.1, 1, 12))
    return truth, found


def test_recall_is_that_of_the_official_curve():
    truth, found = made()
    total = sum(len(video.segments) for video in truth.values())
    mine = hits(truth, found).sum(0) / total
    for column, count in enumerate(AT):
        best = {id: some.top(count) for id, some in found.items()}
        theirs = proposal_recall(truth, best, max_proposals=None).average_recall[-1]
        assert mine[column] == pytest.approx(theirs) and 0 < theirs < 1


def test_intervals_hold_the_value_and_pairs_are_compared():
    truth, found = made()
    worse = {id: Detections(some.segments + 5, some.scores) for id, some in found.items()}
    rows = [Row("good", found), Row("bad", worse), Row("same", found)]
    good, bad, same = summarise(rows, truth, against="good")
    for row in (good, bad, same):
        low, high = row["AR@10"]["interval"]
        assert low <= row["AR@10"]["value"] <= high
    assert good["AR@10"]["interval"][0] < good["AR@10"]["interval"][1]
    assert bad["AR@10"]["minus good"][1] < 0 and same["AR@10"]["minus good"] == [0, 0]
    assert summarise(rows, truth, against="good") == [good, bad, same]  # the draws are seeded


def test_a_video_without_segments_counts_as_missed():
    truth, found = made(2)
    assert hits(truth, {"v0": found["v0"]})[1].tolist() == [0, 0, 0]


def test_windows_cover_the_video_evenly():
    windows = evenly(12.0).segments
    assert windows[0].tolist() == [0, 12] and sorted(map(tuple, windows[1:3].tolist())) == [(0, 6), (6, 12)]
    assert len(evenly(12.0, 4)) == 4 and len(evenly(12.0, 23)) == 23
    assert windows[3].tolist() == [4, 8] and len(windows) == 10


def test_differences_are_of_the_same_clips_as_features(tmp_path):
    corpus = make_corpus(tmp_path, trimmed=1, untrimmed=1)
    read = differences(corpus / "untrimmed" / "u0.mp4")  # 64 frames: clips of 16 from 0, 8 … 48
    assert read.values.shape == (7, 9) and (read.timebase.stride, read.timebase.window) == (8, 16)
    assert len(differences(corpus / "trimmed" / "t00.mp4").values) == 2


def test_the_command_measures_encoders_and_controls(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "c", trimmed=0, untrimmed=3)
    words = ["reproduce", "segments", "--data", str(corpus), "--untrained", "1", "--json", str(tmp_path / "o.json")]
    assert main(words) == 0
    record = json.loads((tmp_path / "o.json").read_text())
    names = [row["row"] for row in record["rows"]]
    assert names == [
        "windows laid evenly",
        f"windows, as many as of {DEFAULT}",
        "frame differences",
        "untrained, seed 0",
        DEFAULT,
    ]
    assert record["rows"][-1]["encoder_digest"] == load_encoder(DEFAULT).digest and record["videos"] == 3
    assert main([*words[:4], "--subset", "none"]) == 1
    assert "annotated instance" in capsys.readouterr().err
