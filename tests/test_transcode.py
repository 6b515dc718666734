"""Copies for training: the same frames at the same seconds, from fewer bytes; whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

import videos
from uptal.cli import main
from uptal.errors import ConfigError, VideoError
from uptal.files import digest
from uptal.recipes.transcoding import measure_gain, read_manifest, transcode_folder
from uptal.video import probe, read, transcoding
from uptal.video.transcoding import TranscodeConfig, copy_size, transcode

SMALL = TranscodeConfig(short_side=32, gop=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("videos")
    (place / "inner").mkdir()
    videos.write(place / "plain.mp4", frames=30)
    videos.write(place / "inner" / "variable.mkv", stamps=videos.jittered_stamps(clock=1000), clock=1000)
    return place


@pytest.mark.parametrize("name", ["plain.mp4", "inner/variable.mkv"])
def test_a_copy_shows_the_same_frames_at_the_same_seconds(name, folder, tmp_path):
    source, copy = folder / name, tmp_path / "copy.mp4"
    before, after = probe(source), transcode(source, copy, SMALL)
    assert after.num_frames == before.num_frames
    assert np.abs(after.times - before.times).max() < 1e-3
    assert (after.height, after.width) == copy_size(before, 32) and min(after.height, after.width) == 32
    assert after.keyframes.tolist() == list(range(0, after.num_frames, 4))
    a = read(source, range(before.num_frames), (after.height, after.width)).float()
    b = read(copy, range(after.num_frames)).float()
    assert (a - b).abs().mean() < 6  # of 255 levels: x264 at crf 20 and colours at half the resolution
    order = [int((a[index] - b).abs().mean(dim=(1, 2, 3)).argmin()) for index in range(0, len(a), 5)]
    assert order == list(range(0, len(a), 5))


@pytest.mark.parametrize(
    "name", ["turned_90.mp4", "mirrored_turned.mp4", "odd_size.mp4", "ten_bit.mp4", "one_frame.mp4"]
)
def test_turned_and_odd_pictures_come_out_upright_and_even(name, tmp_path):
    source, copy = tmp_path / name, tmp_path / "copy.mp4"
    videos.HEALTHY[name](source)
    before, after = probe(source), transcode(source, copy, SMALL)
    assert after.height % 2 == after.width % 2 == after.rotation == 0 and after.num_frames == before.num_frames
    assert (after.height > after.width) == (before.height > before.width)
    a, b = (read(path, [0], (after.height, after.width)).float() for path in (source, copy))
    assert (a - b).abs().mean() < 6  # as above


def test_sound_is_dropped_or_kept(tmp_path):
    source = tmp_path / "sound.mp4"
    with av.open(str(source), "w") as file:
        picture = file.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream("aac", rate=16_000)
        for _ in range(10):
            file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        for number in range(15):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16_000, 1024 * number
            file.mux(track.encode(sound))
        for stream in (picture, track):
            file.mux(stream.encode(None))
    for audio, tracks in (("drop", 0), ("keep", 1)):
        copy = tmp_path / f"{audio}.mp4"
        assert transcode(source, copy, TranscodeConfig(short_side=32, audio=audio)).num_frames == 10
        with av.open(str(copy)) as file:
            assert len(file.streams.audio) == tracks
            if tracks:
                assert sum(frame.samples for frame in file.decode(audio=0)) >= 14 * 1024


def test_a_copy_that_came_out_different_is_not_kept(folder, tmp_path, monkeypatch):
    short = probe(folder / "inner" / "variable.mkv")
    plain = transcoding.probe
    monkeypatch.setattr(transcoding, "probe", lambda path: short if path.name.startswith(".") else plain(path))
    with pytest.raises(VideoError, match="its copy has"):
        transcode(folder / "plain.mp4", tmp_path / "copy.mp4", SMALL)
    assert list(tmp_path.iterdir()) == []


class TestFolder:
    def test_folders_are_kept_and_the_manifest_knows_every_byte(self, folder, tmp_path):
        assert transcode_folder(folder, tmp_path / "out", SMALL) == 2
        entries = {entry["copy"]: entry for entry in read_manifest(tmp_path / "out")}
        assert sorted(entries) == ["inner/variable.mp4", "plain.mp4"]
        for name, entry in entries.items():
            assert entry["copy_sha256"] == digest(tmp_path / "out" / name)
            assert entry["source_sha256"] == digest(folder / entry["source"])
            assert entry["frames"] == probe(tmp_path / "out" / name).num_frames

    def test_what_is_done_is_left_alone_and_what_is_not_is_done(self, folder, tmp_path):
        out = tmp_path / "out"
        transcode_folder(folder, out, SMALL)
        before = (out / "plain.mp4").stat().st_mtime_ns
        assert transcode_folder(folder, out, SMALL) == 0
        copy = out / "inner" / "variable.mp4"
        copy.write_bytes(copy.read_bytes()[:-10])
        (out / "manifest.jsonl").write_text((out / "manifest.jsonl").read_text() + '{"cop')  # a kill
        assert transcode_folder(folder, out, SMALL) == 1
        assert len(read_manifest(out)) == 2 and (out / "plain.mp4").stat().st_mtime_ns == before
        with pytest.raises(ConfigError, match="holds copies made with"):
            transcode_folder(folder, out, TranscodeConfig(short_side=64))

    def test_bad_videos_are_set_aside(self, folder, tmp_path):
        place = tmp_path / "videos"
        place.mkdir()
        (place / "good.mp4").write_bytes((folder / "plain.mp4").read_bytes())
        (place / "bad.mp4").write_text("no video")
        assert transcode_folder(place, tmp_path / "out", SMALL) == 1
        assert json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())["video"].endswith("bad.mp4")

    def test_copies_among_sources_are_refused(self, folder):
        with pytest.raises(ConfigError, match="copies would be taken for sources"):
            transcode_folder(folder, folder / "copies", SMALL)

    def test_the_gain_is_measured_and_said(self, folder, tmp_path, capsys):
        words = ["--videos", str(folder), "--out", str(tmp_path / "out"), "--short_side", "32", "--sample", "2"]
        assert main(["transcode", *words]) == 0
        text = capsys.readouterr().out
        assert "2 videos copied" in text and "ms of CPU" in text and "less" in text
        gain = measure_gain(folder, tmp_path / "out", 2)
        assert gain is not None and gain.videos == 2 and gain.before > 0 and gain.after > 0
