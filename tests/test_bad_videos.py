"""V2 at its full size, through the command: 200 videos, some of which cannot be read."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from uptal.cli import main
from videos import DAMAGED
from workshop import paint

pytestmark = pytest.mark.reliability

VIDEOS = 200
KINDS = ("index_first_cut.mp4", "index_last_cut.mp4", "empty.mp4", "noise.mp4", "text.mp4")
TINY = ["--aug.size=12", "--data.resize=16", "--data.timeline.clips=2", "--data.timeline.frames=2", "--optim.batch=20"]
TINY += ["--data.timeline.region.max_clips=2", '--encoder_options={"width_multiplier": 0.125}', "--optim.log_every=1"]


@pytest.fixture(scope="module")
def patterns(tmp_path_factory) -> list[Path]:
    """Ten small videos that differ, and one file of every kind that cannot be read."""
    folder = tmp_path_factory.mktemp("patterns")
    for number in range(10):
        paint(folder / f"{number}.mp4", number, 16)
    for kind in KINDS:
        DAMAGED[kind][0](folder / kind)
    return [folder / f"{number}.mp4" for number in range(10)]


def fill(folder: Path, patterns: list[Path], bad: int) -> set[str]:
    """Writes 200 files; the names of those that cannot be read, which are spread by chance."""
    names = [f"v{number:03}.mp4" for number in range(VIDEOS)]
    chosen = random.Random(bad).sample(names, bad)
    sources = {name: patterns[0].parent / KINDS[number % len(KINDS)] for number, name in enumerate(chosen)}
    for number, name in enumerate(names):
        shutil.copyfile(sources.get(name, patterns[number % len(patterns)]), folder / name)
    return set(chosen)


def listed(run: Path) -> Counter[str]:
    lines = (run / "quarantine.jsonl").read_text().splitlines()
    return Counter(Path(json.loads(line)["video"]).name for line in lines)


def test_one_bad_video_in_ten_is_borne_and_listed_once(patterns, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    bad = fill(tmp_path / "videos", patterns, VIDEOS // 10)
    words = ["pretrain", "demo", "--videos", tmp_path / "videos", "--run", tmp_path / "run", *TINY]
    assert main([*map(str, words), "--optim.epochs=2", "--data.max_bad=0.1"]) == 0
    said = capsys.readouterr()
    assert f"{len(bad)} of {VIDEOS} videos could not be used" in said.out + said.err
    assert listed(tmp_path / "run") == Counter(bad)  # once, although each was met in two epochs
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * VIDEOS // 20 + 1))  # and every epoch is as long as if all were well
    assert (tmp_path / "run" / "encoder.safetensors").is_file()


def test_more_bad_videos_than_allowed_stop_the_run_with_the_list(patterns, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    bad = fill(tmp_path / "videos", patterns, VIDEOS // 50)
    words = ["pretrain", "demo", "--videos", tmp_path / "videos", "--run", tmp_path / "run", *TINY]
    assert main([*map(str, words), "--optim.epochs=2", "--data.max_bad=0.01"]) == 1
    said = capsys.readouterr().err
    found = listed(tmp_path / "run")
    assert len(found) == 3 and set(found) < bad and set(found.values()) == {1}  # at the third, where two are allowed
    assert f"3 of {VIDEOS} videos cannot be used, 2 would be tolerated" in said
    assert all(said.count(name) == 1 for name in found)
