"""Frames come out exactly, whatever the file looks like."""

from __future__ import annotations

import builtins
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

import videos
from uptal import video
from uptal.errors import ConfigError, VideoError
from uptal.video import decoding, with_torchcodec

ODD = [name for name in videos.HEALTHY if not name.startswith("hevc") or "libx265" in videos.av.codecs_available]


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return videos.make_healthy(tmp_path_factory.mktemp("healthy"))


def numbers_of(name: str, count: int) -> list[int]:
    """The painted numbers that a file shows, frame by frame."""
    if name == "edited.mp4":
        return list(range(20, 20 + count))
    if name == "hidden.webm":
        return [number for number in range(count + 1) if number != 11]
    if name == "unchanged.avi":
        return [number - (number % 5 == 3) for number in range(count)]
    return list(range(count))


def as_stored(name: str, pictures: torch.Tensor) -> torch.Tensor:
    """Takes back what the display matrix of the turned files does."""
    if name == "mirrored.mp4":
        return pictures.flip(-1)
    if name == "mirrored_turned.mp4":  # mirrored, then a quarter turn: exchanged about the rising diagonal
        return pictures.flip(-1, -2).transpose(-1, -2)
    turns = {"turned_90.mp4": -1, "turned_180.mp4": 2, "turned_270.mp4": 1}
    return torch.rot90(pictures, turns.get(name, 0), (-2, -1))


@pytest.mark.parametrize("name", ODD)
def test_frames_are_numbered_in_the_order_in_which_they_are_shown(healthy, name):
    info = video.probe(healthy[name])
    pictures = video.read(healthy[name], range(info.num_frames), info=info)
    assert pictures.shape == (info.num_frames, 3, info.height, info.width)
    assert videos.numbers_in(as_stored(name, pictures)) == numbers_of(name, info.num_frames)


@pytest.mark.parametrize("name", ODD)
def test_a_frame_is_the_same_whichever_frames_are_read_with_it(healthy, name):
    info = video.probe(healthy[name])
    whole = torch.stack([picture for _, _, picture in video.frames(healthy[name], info=info)])
    for index in range(0, info.num_frames, 3):
        assert torch.equal(video.read(healthy[name], [index], info=info)[0], whole[index])
    rng = np.random.default_rng(1)
    for _ in range(5):
        indices = rng.integers(0, info.num_frames, 6).tolist()
        assert torch.equal(video.read(healthy[name], indices, info=info), whole[indices])


@pytest.mark.parametrize("name", [name for name in ODD if name not in ("unchanged.avi", "odd_matrix.mkv")])
def test_pixels_are_those_of_a_plain_decoder(healthy, name):
    expected = videos.plainly_decoded(healthy[name])
    found = as_stored(name, video.read(healthy[name], range(len(expected))))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [name for name in ODD if not name.startswith("grey")])
def test_colours_are_those_that_were_painted(healthy, name):
    first = numbers_of(name, 1)[0]
    found = as_stored(name, video.read(healthy[name], [0]))[0]
    painted = torch.from_numpy(videos.paint(first, found.shape[2], found.shape[1])).permute(2, 0, 1)
    # Coding noise is 2 to 5 levels. A wrong range shifts by 9 and more, exchanged channels by 40. Writing a BT.709 or
    # YCgCo tag without converting (the encoder's side of these two tests) costs more, 256 colours as well.
    allowed = {"bt709.mp4": 6, "odd_matrix.mkv": 6, "palette.gif": 20}.get(name, 5)
    assert (found.float() - painted.float()).abs().mean() < allowed


def test_order_and_repeats_of_the_indices_are_kept(healthy):
    pictures = video.read(healthy["plain.mp4"], [40, 3, 3, 59, 0, 40])
    assert videos.numbers_in(pictures) == [40, 3, 3, 59, 0, 40]
    assert pictures.is_contiguous()
    assert videos.numbers_in(video.read(healthy["plain.mp4"], np.array([7, 2]))) == [7, 2]


def test_no_frames_are_an_empty_tensor(healthy):
    assert video.read(healthy["plain.mp4"], [], size=(20, 30)).shape == (0, 3, 20, 30)


def test_each_distinct_frame_is_converted_once(healthy, monkeypatch):
    converted = []
    convert = decoding._to_rgb
    monkeypatch.setattr(decoding, "_to_rgb", lambda *args: converted.append(args) or convert(*args))
    video.read(healthy["plain.mp4"], [5, 50, 5, 5, 50, 6])
    assert len(converted) == 3


def test_decoding_begins_at_the_nearest_keyframe_and_ends_with_the_last_wanted_frame(healthy, monkeypatch):
    decoded = []
    decode = decoding._decode
    monkeypatch.setattr(decoding, "_decode", lambda packet: decoded.append(packet) or decode(packet))
    video.read(healthy["plain.mp4"], [39])  # keyframes are 12 apart: 36, 37, 38, 39 and up to 5 to fill the reordering
    assert len(decoded) <= 9
    decoded.clear()
    video.read(healthy["plain.mp4"], [1, 50])
    assert len(decoded) <= 16


def test_frames_are_decoded_only_when_they_are_asked_for(healthy, monkeypatch):
    converted = []
    convert = decoding._to_rgb
    monkeypatch.setattr(decoding, "_to_rgb", lambda *args: converted.append(args) or convert(*args))
    source = video.frames(healthy["plain.mp4"])
    for expected in range(3):
        index, _, picture = next(source)
        assert (index, videos.number_in(picture)) == (expected, expected)
    assert len(converted) == 3


def test_chosen_frames_come_once_and_ascending(healthy):
    found = [(index, videos.number_in(p)) for index, _, p in video.frames(healthy["plain.mp4"], indices=[50, 7, 7, 30])]
    assert found == [(7, 7), (30, 30), (50, 50)]


@given(
    wanted=st.lists(st.integers(0, 400), min_size=1, unique=True).map(sorted),
    keyframes=st.lists(st.integers(1, 400), unique=True).map(lambda some: [0, *sorted(some)]),
)
def test_a_plan_covers_every_wanted_frame_and_never_decodes_more_than_reading_on(wanted, keyframes):
    runs = decoding.plan(wanted, keyframes)
    assert [index for _, run in runs for index in run] == wanted
    for begin, run in runs:
        assert begin == max(keyframe for keyframe in keyframes if keyframe <= run[0])
    straight_on = wanted[-1] + 1 - runs[0][0]
    assert sum(run[-1] + 1 - begin for begin, run in runs) <= straight_on


def test_times_of_a_variable_rate_are_exact(healthy):
    written = np.array(videos.jittered_stamps()) / 9000
    for name, rounding in (("variable.mp4", 1e-9), ("variable.mkv", 1e-3)):  # Matroska keeps whole milliseconds
        info = video.probe(healthy[name])
        assert not info.constant_rate
        assert np.abs(info.times - written).max() <= rounding
        assert info.fps == pytest.approx(59 / written[-1], rel=1e-3)
        assert info.duration == pytest.approx(info.num_frames / info.fps)
        assert [seconds for _, seconds, _ in video.frames(healthy[name], 8)] == info.times.tolist()


def test_gaps_of_dropped_frames_are_in_the_times(healthy):
    info = video.probe(healthy["gaps.avi"])
    written = np.array([number + number // 7 * 3 for number in range(60)]) / 30
    np.testing.assert_allclose(info.times, written, atol=1e-9)


def test_what_a_probe_says(healthy):
    plain = video.probe(healthy["plain.mp4"])
    assert (plain.num_frames, plain.fps, plain.duration, plain.constant_rate) == (60, 30.0, 2.0, True)
    assert (plain.width, plain.height, plain.rotation, plain.codec) == (96, 64, 0, "h264")
    assert plain.path == str(healthy["plain.mp4"])
    assert plain.keyframes.tolist() == [0, 12, 24, 36, 48]
    assert video.probe(healthy["edited.mp4"]).num_frames == 40
    assert video.probe(healthy["odd_size.webm"]).fps == 30.0  # no count and rounded times in the header
    one = video.probe(healthy["one_frame.mp4"])
    assert (one.num_frames, one.fps, one.times.tolist()) == (1, 30.0, [0.0])
    turned = [video.probe(healthy[f"turned_{angle}.mp4"]) for angle in (90, 180, 270)]
    assert [(info.rotation, info.width, info.height) for info in turned] == [(90, 64, 96), (180, 96, 64), (270, 64, 96)]


def test_a_probe_travels_between_processes(healthy):
    info = pickle.loads(pickle.dumps(video.probe(healthy["plain.mp4"])))
    assert videos.numbers_in(video.read(healthy["plain.mp4"], [33], info=info)) == [33]


def test_turned_pictures_are_upright_at_any_size(healthy):
    for size in (None, (40, 50)):
        plain = video.read(healthy["plain.mp4"], [9], size)[0]
        turned = video.read(healthy["turned_270.mp4"], [9], size and (50, 40))[0]
        mirrored = video.read(healthy["mirrored.mp4"], [9], size)[0]
        assert torch.equal(turned, torch.rot90(plain, -1, (1, 2)))
        assert torch.equal(mirrored, plain.flip(2))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, (64, 96)), (32, (32, 48)), (128, (128, 192)), ((50, 50), (50, 50)), ((64, 96), (64, 96)), (1, (1, 2))],
)
def test_sizes(healthy, size, expected):
    assert video.read(healthy["plain.mp4"], [0], size=size).shape[2:] == expected
    assert next(video.frames(healthy["plain.mp4"], size))[2].shape[1:] == expected


def test_a_short_side_is_the_shown_one(healthy):
    assert video.read(healthy["turned_90.mp4"], [0], size=32).shape == (1, 3, 48, 32)


def test_scaling_is_bilinear_without_aliasing(healthy):
    native = video.read(healthy["odd_size.mp4"], [4])  # chroma at full resolution, so only the filter can differ
    scaled = video.read(healthy["odd_size.mp4"], [4], size=(30, 44)).float()
    smooth = interpolate(native.float(), (30, 44), mode="bilinear", antialias=True)
    rough = interpolate(native.float(), (30, 44), mode="nearest")
    assert (scaled - smooth).abs().mean() < 1  # rounding in YUV, one level
    assert (scaled - rough).abs().mean() > 3


def test_a_size_of_nothing_is_refused(healthy):
    for size in (0, -3, (0, 10)):
        with pytest.raises(ConfigError, match="must be positive"):
            video.read(healthy["plain.mp4"], [0], size=size)


@pytest.mark.parametrize("index", [5, 100, -1])
def test_a_frame_that_does_not_exist_is_an_error_with_the_count(healthy, index):
    with pytest.raises(VideoError, match=f"frame {index} was asked for, but it has 5 frames, 0 to 4"):
        video.read(healthy["five_frames.mp4"], [0, index])
    with pytest.raises(VideoError, match="has 5 frames"):
        next(video.frames(healthy["five_frames.mp4"], indices=[index]))


def test_decoder_threads_change_nothing(healthy):
    for name in ("plain.mp4", "odd_size.webm"):
        one, two = (video.read(healthy[name], [3, 20, 59], threads=threads) for threads in (1, 2))
        assert torch.equal(one, two)


def test_time_stamps_that_contradict_the_order_are_an_error_and_never_wrong_frames(healthy):
    info = video.probe(healthy["h264.avi"])
    assert info.stamps is None  # so frames are counted
    believed = replace(info, stamps=np.arange(1, 61), keyframes=np.array([0, 12, 24, 36, 48]))
    with pytest.raises(VideoError, match="frames are lost"):
        video.read(healthy["h264.avi"], range(60), info=believed)


def test_one_lost_frame_in_a_hundred_shows_the_picture_before_it(tmp_path):
    videos.with_spoilt_frames(tmp_path / "spoilt.avi", frames=200, spoilt=[50, 51])
    numbers = videos.numbers_in(video.read(tmp_path / "spoilt.avi", range(200)))
    assert numbers == [49 if number in (50, 51) else number for number in range(200)]


def test_real_videos_decode_the_same_alone_and_in_one_pass(real_videos):
    paths = [path for path in video.find_videos(real_videos) if path.stat().st_size < 1_000_000][::60]
    for path in paths:
        info = video.probe(path)
        middle = info.num_frames // 2
        wanted = [middle, info.num_frames - 1]
        passed = [picture for index, _, picture in video.frames(path, 64, info=info) if index in wanted]
        assert torch.equal(video.read(path, wanted, 64, info=info), torch.stack(passed))


@pytest.fixture
def torchcodec():
    try:
        with_torchcodec.video_decoder()
    except ConfigError:
        pytest.skip("torchcodec is not installed, or finds no system FFmpeg; it is an option")


@pytest.mark.parametrize("name", ODD)
def test_both_decoders_give_identical_frames(torchcodec, healthy, name):
    info = video.probe(healthy[name])
    indices = [*range(info.num_frames), 0]
    by_pyav, by_torchcodec = (
        video.read(healthy[name], indices, info=info, backend=backend) for backend in ("pyav", "torchcodec")
    )
    assert torch.equal(by_pyav, by_torchcodec)
    times = [[t for _, t, _ in video.frames(healthy[name], backend=backend)] for backend in ("pyav", "torchcodec")]
    assert times[0] == times[1]


@pytest.mark.parametrize("name", ["plain.mp4", "variable.mp4", "turned_90.mp4", "mirrored.mp4", "odd_size.webm"])
def test_torchcodec_itself_reads_the_usual_files(torchcodec, healthy, name, monkeypatch):
    left_over = []
    monkeypatch.setattr(with_torchcodec, "by_pyav", lambda info, wanted, *rest: left_over.extend(wanted) or iter(()))
    assert len(video.read(healthy[name], range(20), backend="torchcodec")) == 20
    assert left_over == []


def test_scaled_frames_of_both_decoders_differ_in_rounding_only(torchcodec, healthy):
    by_pyav, by_torchcodec = (
        video.read(healthy["plain.mp4"], range(20), (40, 56), backend=backend).float()
        for backend in ("pyav", "torchcodec")
    )
    assert (by_pyav - by_torchcodec).abs().mean() < 2  # of 255: chroma is interpolated before or after scaling


def test_a_missing_torchcodec_is_explained(healthy, monkeypatch):
    load = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("torchcodec"):
            raise ImportError("No module named 'torchcodec'")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'uptal\[torchcodec\]'.*'pyav'"):
        video.read(healthy["plain.mp4"], [0], backend="torchcodec")


def test_an_unknown_decoder_is_refused(healthy):
    with pytest.raises(ConfigError, match=r"no decoder 'opencv'.*pyav, torchcodec"):
        video.read(healthy["plain.mp4"], [0], backend="opencv")


def test_torchcodec_is_imported_only_when_it_is_asked_for():
    code = "import sys, uptal.video; print('torchcodec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_videos_are_found_in_subfolders_sorted_and_whatever_the_case(tmp_path):
    names = ["b/two.MP4", "a.mkv", "b/.hidden.mp4", ".cache/x.mp4", "notes.txt", "b/c/three.webm"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "again").symlink_to(tmp_path)  # a circle of links ends
    assert video.find_videos(tmp_path) == [tmp_path / name for name in ("a.mkv", "b/c/three.webm", "b/two.MP4")]


def test_a_folder_without_videos_says_what_is_there_instead(tmp_path):
    with pytest.raises(ConfigError, match=r"No videos found in .*: it holds no files at all\. .*\.mp4"):
        video.find_videos(tmp_path)
    for number in range(14):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "one.csv").touch()
    with pytest.raises(ConfigError, match=r"it holds 14 \.txt files, 1 \.csv file\."):
        video.find_videos(tmp_path)


def test_a_folder_that_cannot_be_used_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        video.find_videos(tmp_path / "nowhere")
    (tmp_path / "film.mp4").touch()
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        video.find_videos(tmp_path / "film.mp4")
