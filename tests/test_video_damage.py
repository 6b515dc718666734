"""Unusable videos give a `VideoError` that a user understands; nothing hangs, dies or is skipped unseen."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import videos
from uptal import video
from uptal.errors import ConfigError, UptalError, VideoError
from uptal.video import Quarantine, QuarantineError

pytestmark = pytest.mark.reliability

CORRUPTIONS = int(os.environ.get("UPTAL_FUZZ", "150"))
"""How many corrupted files the fuzz test makes; the nightly run takes 2000."""


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return videos.make_damaged(tmp_path_factory.mktemp("damaged"))


def read_all(path: Path) -> int:
    return len(video.read(path, range(video.probe(path).num_frames)))


def pass_through(path: Path) -> int:
    return sum(1 for _ in video.frames(path, 16))


@pytest.mark.parametrize("name", videos.DAMAGED)
@pytest.mark.parametrize("use", [read_all, pass_through])
def test_an_unusable_file_is_an_error_in_plain_words(damaged, name, use):
    began = time.monotonic()
    with pytest.raises(VideoError) as caught:
        use(damaged[name])
    assert time.monotonic() - began < 10
    assert caught.value.path == str(damaged[name])
    assert re.search(videos.DAMAGED[name][1], caught.value.reason)
    assert "Errno" not in caught.value.reason


@pytest.mark.parametrize("name", ["index_first_cut.mp4", "cut.mkv", "cut.avi"])
def test_a_cut_file_is_noticed_before_anything_is_decoded(damaged, name):
    with pytest.raises(VideoError, match="cut off"):
        video.probe(damaged[name])


def test_the_same_holds_for_torchcodec(damaged):
    pytest.importorskip("torchcodec", reason="torchcodec is not installed", exc_type=Exception)
    with pytest.raises(VideoError, match="damaged near"):
        video.read(damaged["hole.mp4"], range(120), backend="torchcodec")


def test_a_hole_behind_the_wanted_frames_does_not_matter(damaged):
    assert videos.numbers_in(video.read(damaged["hole.mp4"], [3, 5])) == [3, 5]


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        video.probe(tmp_path / "pipe.mp4")


def test_a_file_that_may_not_be_read_is_explained(tmp_path):
    path = tmp_path / "secret.mp4"
    videos.write(path, frames=3)
    path.chmod(0)
    for folder in [*reversed(tmp_path.parents[:3]), tmp_path]:
        folder.chmod(folder.stat().st_mode | 0o055)  # what is closed is the file, not the way to it
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # the super-user may read everything
    try:
        with pytest.raises(VideoError, match="no permission to read it"):
            video.probe(path)
    finally:
        os.seteuid(user)


def test_more_lost_frames_than_one_in_a_hundred_are_an_error(tmp_path):
    videos.with_spoilt_frames(tmp_path / "spoilt.avi", frames=200, spoilt=[50, 51, 120])
    with pytest.raises(VideoError, match=r"damaged near 4\.00 s: more than 1 % of its 200 frames are lost"):
        read_all(tmp_path / "spoilt.avi")


def test_a_file_that_changes_after_the_probe_is_an_error(tmp_path):
    path = tmp_path / "changing.mp4"
    videos.write(path, frames=60, container={"movflags": "faststart"})
    info = video.probe(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(VideoError, match="lost"):
        video.read(path, [0, 59], info=info)
    path.unlink()
    with pytest.raises(VideoError, match="does not exist"):
        video.read(path, [0, 59], info=info)


def test_nothing_is_printed_about_damaged_files(damaged):
    code = (
        "import sys\nfrom uptal import video\nfrom uptal.errors import VideoError\n"
        "for path in sys.argv[1:]:\n"
        "    try: list(video.frames(path, 16))\n"
        "    except VideoError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, damaged.values())], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


FUZZ = """
import signal, sys
from pathlib import Path
from uptal import video
from uptal.errors import VideoError
usable = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    signal.alarm(10)
    try:
        info = video.probe(path)
        assert len(video.read(path, [info.num_frames - 1, 0], (16, 24), info=info)) == 2
        assert sum(1 for _ in video.frames(path, 16, info=info)) == info.num_frames
        usable += 1
    except VideoError:
        pass
    signal.alarm(0)
print("usable", usable)
"""


def corrupted(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: cut off, bits flipped, a hole, a scrambled header, a stretch left out."""
    changed, kind = bytearray(data), rng.integers(5)
    start = int(rng.integers(len(data)))
    if kind == 0:
        return bytes(changed[:start])
    if kind == 1:
        for place in rng.integers(0, len(data), 2 ** int(rng.integers(11))):
            changed[place] ^= 1 << int(rng.integers(8))
    if kind == 2:
        changed[start : start + 1000] = bytes(min(1000, len(data) - start))
    if kind == 3:
        for place in rng.integers(0, min(2000, len(data)), 20):
            changed[place] = int(rng.integers(256))
    if kind == 4:
        del changed[start : start + int(rng.integers(1, 2000))]
    return bytes(changed)


def test_no_corruption_hangs_or_kills_the_process(tmp_path):
    seeds = ["plain.mp4", "index_first.mp4", "odd_size.webm", "b_frames.avi", "broadcast.ts", "motion_jpeg.avi"]
    rng = np.random.default_rng(8)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "corrupted").mkdir()
    for name in seeds:
        videos.HEALTHY[name](tmp_path / "seeds" / name)
    for number in range(CORRUPTIONS):
        seed = tmp_path / "seeds" / seeds[number % len(seeds)]
        (tmp_path / "corrupted" / f"{number:05d}{seed.suffix}").write_bytes(corrupted(seed.read_bytes(), rng))
    command = [sys.executable, "-W", "error", "-c", FUZZ, str(tmp_path / "corrupted")]
    done = subprocess.run(command, capture_output=True, text=True)
    *files, last = done.stdout.splitlines()
    assert done.returncode == 0, f"{files[-1:]} ended with {done.returncode}\n{done.stderr[-2000:]}"
    assert done.stderr == ""
    usable = int(last.removeprefix("usable "))
    assert len(files) == CORRUPTIONS
    assert 0 < usable < CORRUPTIONS  # otherwise the corruptions test nothing


def test_a_video_error_survives_the_way_from_a_worker(damaged):
    with pytest.raises(VideoError) as caught:
        video.probe(damaged["page.mp4"])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.path, copy.reason, str(copy)) == (caught.value.path, caught.value.reason, str(caught.value))


def failures(count: int) -> list[VideoError]:
    return [VideoError(f"{number}.mp4", f"reason {number}") for number in range(count)]


def test_each_bad_video_is_written_down_once(tmp_path):
    quarantine = Quarantine(total=1000, folder=tmp_path)
    for error in failures(5) + failures(5):
        quarantine.add(error)
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"video": e.path, "reason": e.reason} for e in failures(5)]
    assert len(quarantine) == 5


def test_a_continued_run_adds_to_the_list_and_repeats_nothing(tmp_path):
    Quarantine(total=1000, folder=tmp_path).add(failures(1)[0])
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"video": "torn')  # the machine died while it wrote
    again = Quarantine(total=1000, folder=tmp_path)
    assert len(again) == 0
    for error in failures(2):
        again.add(error)
    lines = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["video"] for line in (lines[0], lines[2])] == ["0.mp4", "1.mp4"]
    assert len(lines) == 3
    assert [error.path for error in failures(2)] == list(again.failures)


@pytest.mark.parametrize(
    ("total", "limit", "allowed"), [(200, 0.01, 2), (100, 0.01, 1), (10, 0.01, 1), (1, 0.01, 1), (300, 0.07, 21)]
)
def test_a_run_bears_with_a_share_of_bad_videos_but_at_least_with_one(total, limit, allowed):
    quarantine = Quarantine(total=total, limit=limit)
    for error in failures(allowed) * 3:
        quarantine.add(error)
    with pytest.raises(QuarantineError) as caught:
        quarantine.add(VideoError("last.mp4", "the file is empty (0 bytes)"))
    assert isinstance(caught.value, UptalError)
    assert list(caught.value.failures) == [*(error.path for error in failures(allowed)), "last.mp4"]
    assert f"{allowed + 1} of {total} videos cannot be used" in str(caught.value)
    assert "last.mp4: the file is empty (0 bytes)" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).failures == caught.value.failures


def test_the_summary_names_every_bad_video_and_says_nothing_when_all_is_well():
    quarantine = Quarantine(total=1000)
    assert quarantine.summary() == ""
    for error in failures(2):
        quarantine.add(error)
    assert quarantine.summary() == (
        "2 of 1000 videos could not be used and were left out:\n  0.mp4: reason 0\n  1.mp4: reason 1\n"
    )


def test_a_list_that_cannot_be_written_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        Quarantine(total=10, folder=tmp_path / "nowhere").add(failures(1)[0])


def test_a_limit_is_a_share():
    with pytest.raises(ConfigError, match=r"0\.01 means 1 %"):
        Quarantine(total=10, limit=5.0)
