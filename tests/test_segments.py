"""Segments without labels: exact on videos that consist of blocks, whole on odd ones, and written as promised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from uptal.cli import main
from uptal.encoders import build, save_encoder
from uptal.recipes.segmenting import letters
from uptal.similarity import SegmentConfig, find_segments
from uptal.similarity.segments import boundaries, contrast, group_pieces, novelty
from workshop import make_corpus, tiny


def blocks(*parts: tuple[int, int], width: int = 16, noise: float = 0.0) -> np.ndarray:
    """Clips (kind, length) after each other; clips of a kind share a direction."""
    rng = np.random.default_rng(0)
    kinds = np.linalg.qr(rng.normal(size=(width, width)))[0]
    clips = np.concatenate([np.repeat(kinds[kind][None], length, 0) for kind, length in parts])
    return clips + noise * rng.normal(size=clips.shape)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_blocks_are_cut_exactly_and_what_comes_back_has_the_same_group(noise):
    found = find_segments(blocks((0, 12), (1, 8), (0, 15), (2, 9), noise=noise))
    singles = {tuple(bound): group for bound, group in zip(found.bounds.tolist(), found.groups.tolist(), strict=True)}
    assert {(0, 12), (12, 20), (20, 35), (35, 44)} <= singles.keys()
    assert singles[0, 12] == singles[20, 35] == 0
    assert (singles[12, 20], singles[35, 44]) == (1, 2)
    best = {tuple(bound) for bound in found.bounds[:4].tolist()}
    assert best == {(0, 12), (12, 20), (20, 35), (35, 44)}  # a piece is more alike than two different ones together
    assert (np.diff(found.scores) <= 0).all() and found.scores.max() <= 1 and found.scores.min() >= 0


def test_novelty_of_two_blocks_is_known():
    """Within a block cosine 1, across -1 (two kinds, centred): likeness within minus across is 2 at the border."""
    features = blocks((0, 6), (1, 6))
    centred = features - features.mean(0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    change = novelty(units @ units.T, (3,))
    assert change[6] == pytest.approx(2.0) and change[0] == 0
    assert change[[1, 2, 10, 11]] == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert boundaries(change, 0.5) == [6]
    assert contrast(units @ units.T, 0, 6) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_short_and_even_videos_give_the_whole(count):
    for features in (np.ones((count, 4)), np.zeros((count, 4))):
        found = find_segments(features)
        assert found.bounds.tolist() == [[0, count]] and np.isfinite(found.scores).all()


def test_groups_are_joined_by_likeness_only():
    means = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [-1.0, 0.0]])
    assert group_pieces(means, 0.5).tolist() == [0, 1, 0, 2]
    assert group_pieces(means, 1.0).tolist() == [0, 1, 2, 3]
    assert group_pieces(means, -1.0).tolist() == [0, 0, 0, 0]
    assert [letters(number) for number in (0, 25, 26, 52)] == ["A", "Z", "AA", "BA"]


def test_the_command_writes_what_detect_writes(tmp_path, capsys):
    corpus, cfg = make_corpus(tmp_path / "corpus", trimmed=0, untrimmed=3), tiny()
    save_encoder(tmp_path / "weights", build(cfg.encoder, **cfg.encoder_options), cfg.clip)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    videos = [*sorted(str(path) for path in (corpus / "untrimmed").glob("*.mp4")), str(tmp_path / "broken.mp4")]
    words = ["--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out"), "--interval", "2"]
    assert main(["segments", *videos, *words]) == 0
    said = capsys.readouterr()
    assert "u0: " in said.out and "broken.mp4" in said.err
    out = tmp_path / "out"
    results = json.loads((out / "detections.json").read_text())["results"]
    assert results.keys() == {"u0", "u1", "u2"}
    for id, rows in results.items():
        duration = 6.4 + 0.8 * int(id[1])
        assert all(0 <= row["segment"][0] < row["segment"][1] <= duration + 1e-6 for row in rows)
        assert {row["label"] for row in rows} <= set("ABCDEFGHIJKLMNOP")
        assert (out / f"{id}.csv").is_file() and (out / f"{id}.srt").is_file()
    assert "Segments found without labels" in (out / "report.html").read_text()


def test_what_cannot_be_cut_is_said(tmp_path, capsys):
    cfg = tiny()
    save_encoder(tmp_path / "weights", build(cfg.encoder, **cfg.encoder_options), cfg.clip)
    tail = ["--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")]
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    broken, absent = str(tmp_path / "broken.mp4"), str(tmp_path / "absent.mp4")
    shutil.copy(broken, other := str(tmp_path / "other.mp4"))
    for words, said in (
        ([str(tmp_path)], "is a folder"),
        ([broken, absent], f"Of 2 videos these do not exist: {absent}"),
        ([broken], f"{broken}: "),
        ([broken, other], "None of the 2 videos can be used"),
    ):
        assert main(["segments", *words, *tail]) == 1
        assert said in (text := capsys.readouterr().err)
        assert other not in words or other in text  # every one is named
    with pytest.raises(Exception, match="longest of at least 1"):
        SegmentConfig(longest=0)
    assert not (Path(tmp_path) / "out" / "detections.json").exists()


def test_a_low_level_cuts_finer_and_keeps_what_the_high_one_found():
    """Two kinds in pairs of blocks; inside each block a weak change that only a low level takes for a boundary."""
    rng = np.random.default_rng(1)
    clips = blocks((0, 8), (1, 8), (0, 8), (1, 8))
    clips[4:8] += 0.35 * rng.normal(size=16)
    clips[20:24] += 0.35 * rng.normal(size=16)
    coarse, both = (find_segments(clips, SegmentConfig(prominence=levels)) for levels in ((0.5,), (0.5, -1.0)))
    high, low = (set(map(tuple, found.bounds.tolist())) for found in (coarse, both))
    assert high < low and {0, 8, 16, 24, 32} == {edge for span in high for edge in span}
    assert {4, 20} & {edge for span in low for edge in span}
    with pytest.raises(Exception, match="need a prominence"):
        SegmentConfig(prominence=())
