"""The benchmark of extraction measures what it says it measures; its numbers on a real machine are not for tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from uptal.commands.bench.extract import main
from uptal.recipes.measuring_extract import make_video, memory_over_a_long_video
from uptal.video import probe


def test_every_number_is_there_and_ratios_are_those_of_the_costs(tmp_path, capsys):
    words = ["--encoder", "slim", "--size", "32", "--seconds", "3", "--rounds", "1", "--batch", "2", "--videos", "1"]
    words += ["--stored", "1"]
    main([*words, "--json", str(tmp_path / "found.json"), "--device", "cpu"])
    found = json.loads((tmp_path / "found.json").read_text())
    bound = found["decode_ms"] + found["encode_ms"]
    assert abs(found["share_of_bound"] - bound / found["extract_ms"]) < 0.02  # rounded to hundredths of a millisecond
    assert abs(found["times_faster_than_plain"] - found["plain_ms"] / found["extract_ms"]) < 0.02
    assert found["store_mb_per_s"] > 0 and found["disk_mb_per_s"] > 0 and found["clips_a_video"] == 5
    assert "share_of_bound" in capsys.readouterr().out


def test_the_made_video_is_what_the_claims_are_about(tmp_path):
    info = probe(make_video(tmp_path / "made.mp4", 1))
    assert (info.width, info.height, info.fps, info.num_frames) == (640, 360, 25.0, 25)


def test_memory_is_watched_over_the_whole_video(tmp_path: Path):
    found = memory_over_a_long_video(0.02, tmp_path)
    assert found["clips"] == 44 and found["growth_mb"] >= found["growth_second_half_mb"]


@pytest.mark.slow
def test_two_hours_of_video_do_not_grow_the_process(tmp_path: Path):
    """V6, with 5 frames a second: what grows would grow with the clips."""
    found = memory_over_a_long_video(2.0, tmp_path)
    assert found["clips"] == 4499
    assert found["growth_mb"] < 300 and found["growth_second_half_mb"] < 30
