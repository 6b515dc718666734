"""Extraction in many ways: other rates and windows, several processes, kills, damaged files; the store is the same."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import videos
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import CheckpointError, ConfigError
from uptal.features import FeatureStore, Sampling, decode_clips, lay_grid, writing
from uptal.features.encoding import shrink
from uptal.progress import Progress
from uptal.recipes.extracting import ExtractConfig, described, extract_folder
from uptal.types import Timebase
from uptal.video import find_videos, probe
from workshop import CPU, forked, make_corpus, paint, wait_for

SPEC = ClipSpec(frames=4, stride=2, size=20, resize=24)
COMMAND = "import torch, sys; torch.set_num_threads(1); from uptal.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_encoder(folder, build("slim", width_multiplier=0.25), SPEC)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("few"), trimmed=0, untrimmed=3) / "untrimmed"


@pytest.fixture(scope="module")
def fifty(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fifty")
    for number in range(50):
        paint(folder / f"v{number:02}.mp4", number, 10 + number % 7)
    return folder


def extracted(weights: Path, folder: Path, out: Path, **options) -> FeatureStore:
    extract_folder(weights, folder, out, ExtractConfig(**{"interval": 4, "batch": 8, **options}))
    return FeatureStore(out)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestGrid:
    @pytest.mark.parametrize(("fps", "first"), [(10.0, [0, 2, 4, 6]), (5.0, [0, 4, 8, 12]), (20.0, [0, 1, 2, 3])])
    def test_frames_are_counted_at_the_rate_asked_for(self, fps, first, few):
        """The videos have 10 frames a second."""
        info = probe(few / "u0.mp4")
        grid = lay_grid(info, SPEC, 4, fps)
        assert grid.frames[0].tolist() == first
        assert grid.timebase == Timebase(fps=fps, stride=4.0, window=8.0)
        assert abs(grid.timebase.span(len(grid.frames) - 1)[1] - info.duration) <= 2 / fps  # half an interval
        for index in range(len(grid.frames) - 1):
            wanted = grid.timebase.span(index)[0] + 2 * np.arange(4) / fps
            assert np.abs(info.times[grid.frames[index]] - wanted).max() <= 0.5 / info.fps + 1e-9

    def test_a_variable_rate_stays_right_at_another_rate(self, tmp_path):
        """V4, at 12 frames a second."""
        path, clock = tmp_path / "variable.mp4", 9000
        videos.write(path, stamps=videos.jittered_stamps(clock=clock), clock=clock)
        info = probe(path)
        grid = lay_grid(info, SPEC, 3, 12.0)
        for index, clip in enumerate(grid.frames[:-1]):
            for frame, second in zip(clip, grid.timebase.span(index)[0] + 2 * np.arange(4) / 12, strict=True):
                assert np.abs(info.times - second).min() == pytest.approx(abs(info.times[frame] - second), abs=1e-12)

    def test_window_and_frame_stride_make_the_clip(self, weights, few, tmp_path):
        store = extracted(weights, few, tmp_path, fps=20.0, frame_stride=3, window=15)
        features = store.read("u0")
        assert features.timebase == Timebase(fps=20.0, stride=4.0, window=15.0)
        assert len(features.values) == round((128 - 15) / 4) + 1
        clip, sampling = described(store.description)
        assert (clip.frames, clip.stride, sampling.fps, sampling.interval) == (5, 3, 20.0, 4)
        with pytest.raises(ConfigError, match="A window of 16 frames is not a number of frames 3 apart"):
            extracted(weights, few, tmp_path, frame_stride=3, window=16)
        with pytest.raises(ConfigError, match=r"made differently .*fps: 20\.0 there, None here"):
            extracted(weights, few, tmp_path, frame_stride=3, window=15)

    @pytest.mark.parametrize("bad", [{"interval": 0}, {"interval": 4, "fps": 0.0}, {"interval": 4, "fps": -1.0}])
    def test_impossible_grids_are_refused(self, bad):
        with pytest.raises(ConfigError, match=r"must be"):
            Sampling(**bad)

    @pytest.mark.parametrize("place", ["decoder", "device"])
    def test_dense_clips_are_the_frames_they_name(self, place, few):
        path = few / "u1.mp4"
        info = probe(path)
        grid = lay_grid(info, SPEC, 1)
        clips = list(decode_clips(path, SPEC, grid, resize_on=place))
        assert len(clips) == info.num_frames - 7
        for first, second in zip(clips, clips[2:], strict=False):
            assert torch.equal(first[1:], second[:-1])  # two frames on, three of four frames are the same


class TestPictures:
    def test_shrinking_on_the_device_is_shrinking_in_the_decoder_up_to_rounding(self, few):
        """Grey levels of 0 to 255; swscale and torch differ in how they round and treat colour at edges."""
        path = few / "u0.mp4"
        grid = lay_grid(probe(path), SPEC, 16)
        both = zip(decode_clips(path, SPEC, grid), decode_clips(path, SPEC, grid, resize_on="device"), strict=True)
        for small, whole in both:
            assert whole.shape[-2:] == (32, 32)
            other = shrink(whole, SPEC, CPU)
            assert other.shape == small.shape
            assert (other.float() - small.float()).abs().mean() < 2

    def test_the_place_is_noted_and_kept_to(self, weights, few, tmp_path):
        store = extracted(weights, few, tmp_path, resize_on="device")
        again = extracted(weights, few, tmp_path.with_name("again"), resize_on="device", batch=8, threads=1)
        assert files_of(store.path) == files_of(again.path)
        with pytest.raises(ConfigError, match="resize_on: device there, decoder here"):
            extracted(weights, few, tmp_path)


class TestArithmetic:
    def test_half_the_bits_are_near_and_never_mixed(self, weights, few, tmp_path):
        whole = extracted(weights, few, tmp_path / "whole", precision="fp32")
        half = extracted(weights, few, tmp_path / "half", precision="bf16")
        for id in whole.ids:
            a, b = whole.read(id).values, half.read(id).values
            assert (a - b).norm() < 0.02 * a.norm()  # bf16 keeps 8 bits: each rounding is off by up to 0.4 %
        with pytest.raises(ConfigError, match="precision: bfloat16 there, float32 here"):
            extracted(weights, few, tmp_path / "half", precision="fp32")

    @pytest.mark.slow
    def test_a_compiled_encoder_gives_the_same_up_to_rounding(self, weights, few, tmp_path):
        """In a process of its own: the compiler cannot look into functions whose shapes are checked."""
        plain = extracted(weights, few, tmp_path / "plain")
        words = ["extract", "--weights", weights, "--videos", few, "--out", tmp_path / "compiled", "--interval", "4"]
        command = [sys.executable, "-W", "error", "-c", COMMAND, *map(str, words), "--batch", "8", "--compile"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr  # warnings are errors; progress is shown where compiling takes long
        for id in plain.ids:
            a, b = plain.read(id).values, FeatureStore(tmp_path / "compiled").read(id).values
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))

    def test_features_that_are_no_numbers_stop_the_work(self, few, tmp_path):
        encoder = build("slim", width_multiplier=0.25)
        with torch.no_grad():
            next(encoder.parameters()).fill_(float("nan"))
        save_encoder(tmp_path / "run", encoder, SPEC)
        with pytest.raises(CheckpointError, match=r"u\d\.mp4: .* contain NaN or infinity"):
            extracted(tmp_path / "run", few, tmp_path / "store")
        assert FeatureStore(tmp_path / "store").ids == []


class TestProcesses:
    def test_ranks_of_torchrun_divide_the_shard(self, weights, few, tmp_path, monkeypatch, capsys):
        words = ("extract", "--weights", str(weights), "--videos", str(few), "--out", str(tmp_path), "--interval", "4")
        monkeypatch.setenv("WORLD_SIZE", "2")
        for rank, ids in ((1, ["u1"]), (0, ["u0", "u1", "u2"])):
            monkeypatch.setenv("RANK", str(rank))
            assert main([*words]) == 0
            assert FeatureStore(tmp_path).ids == ids
        text = capsys.readouterr().out
        assert "1 videos written" in text and "2 videos written" in text and "videos/h" in text
        monkeypatch.setenv("RANK", "1")
        assert main([*words[:-3], str(tmp_path / "b"), "--shard", "2/2"]) == 0  # part 4 of 4: nothing is left for it
        assert capsys.readouterr().out.endswith("b: 0 videos written\n")

    @pytest.mark.reliability
    def test_what_a_kill_left_is_removed_unless_others_write(self, weights, few, tmp_path):
        leftover = tmp_path / ".u0.safetensors.abc.tmp"
        leftover.write_bytes(b"half")
        busy = tmp_path / "busy"

        def hold() -> None:
            with writing(tmp_path):
                leftover.write_bytes(b"half")
                busy.touch()
                time.sleep(60)

        other = forked(hold)
        wait_for(busy.exists)
        extracted(weights, few, tmp_path)
        assert leftover.exists()
        other.kill()
        extracted(weights, few, tmp_path)
        assert not leftover.exists() and FeatureStore(tmp_path).ids == ["u0", "u1", "u2"]

    @pytest.mark.reliability
    def test_ten_kills_leave_the_store_as_if_nothing_had_happened(self, weights, fifty, tmp_path):
        straight = extracted(weights, fifty, tmp_path / "straight")
        out, rng = tmp_path / "killed", np.random.default_rng(0)
        for kill in range(10):
            child = forked(lambda: extracted(weights, fifty, out))
            wait_for(lambda kill=kill: len(list(out.glob("v*.safetensors"))) >= 4 * kill + 1)
            time.sleep(float(rng.uniform(0, 0.02)))
            child.kill()
            for path in out.glob("v*.safetensors"):
                assert path.read_bytes() == straight.file(path.stem).read_bytes()  # whole, or not there
        extracted(weights, fifty, out)
        assert files_of(out) == files_of(straight.path)

    @pytest.mark.reliability
    @pytest.mark.slow
    def test_ten_kills_at_any_moment_of_the_command(self, weights, fifty, tmp_path):
        """Processes of their own, killed while they import, open the store, decode, encode or write."""
        extracted(weights, fifty, tmp_path / "straight")
        out, rng = tmp_path / "killed", np.random.default_rng(1)
        words = ["extract", "--weights", weights, "--videos", fifty, "--out", out, "--interval", "4", "--batch", "8"]
        command = [sys.executable, "-c", COMMAND, *map(str, words)]
        whole = time.monotonic()
        subprocess.run([*command[:-5], str(tmp_path / "timed"), *command[-4:]], check=True, capture_output=True)
        whole = time.monotonic() - whole
        for _ in range(10):
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(float(rng.uniform(0.3, 0.95)) * whole)
            child.kill()
            child.wait()
        subprocess.run(command, check=True, capture_output=True)
        assert files_of(out) == files_of(tmp_path / "straight")

    @pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (uptal[ray])")
    @pytest.mark.slow
    def test_two_workers_of_a_ray_cluster_make_the_same_store(self, weights, few, tmp_path):
        straight = extracted(weights, few, tmp_path / "straight", threads=1)
        words = ["extract", "--weights", weights, "--videos", few, "--out", tmp_path / "ray", "--interval", "4"]
        words += ["--batch", "8", "--threads", "1", "--ray", "local", "--ray-parts", "2", "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", COMMAND, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        assert "3 videos written by 2 parts" in done.stdout
        assert files_of(tmp_path / "ray") == files_of(straight.path)

    def test_without_ray_the_extra_is_named(self, few, weights, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "ray", None)
        words = ("extract", "--weights", str(weights), "--videos", str(few), "--out", str(tmp_path / "s"))
        assert main([*words, "--ray", "local"]) == 1
        assert "pip install 'uptal[ray]'" in capsys.readouterr().err
        assert main([*words, "--ray", "local", "--shard", "1/2"]) == 1
        assert "both divide the videos" in capsys.readouterr().err


class TestDamage:
    @pytest.mark.reliability
    def test_usable_files_of_every_kind_have_features_and_the_others_are_listed_once(self, weights, tmp_path):
        """V1, V2, V7: turned, deep colour, odd sizes, one frame, fewer frames than a clip; and all that is broken."""
        folder = tmp_path / "videos"
        (folder / "healthy").mkdir(parents=True)
        (folder / "damaged").mkdir()
        healthy = videos.make_healthy(folder / "healthy")
        for path in [*healthy.values(), *videos.make_damaged(folder / "damaged").values()]:
            if path.is_file():  # stems alone would collide: the same content in several containers
                path.rename(path.with_name(f"{path.parent.name}_{path.stem}_{path.suffix[1:]}{path.suffix}"))
        store = extracted(weights, folder, tmp_path / "store", max_bad=1.0, threads=2)
        paths = find_videos(folder)
        listed = [json.loads(line)["video"] for line in (store.path / "quarantine.jsonl").read_text().splitlines()]
        assert sorted(listed) == sorted(str(path) for path in paths if path.parent.name == "damaged")
        assert store.ids == sorted(path.stem for path in paths if path.parent.name == "healthy")
        assert len(store.ids) > 10 and len(listed) > 10
        for id in store.ids:
            features = store.read(id)
            assert features.values.isfinite().all()
            length = (len(features.values) - 1) * features.timebase.stride + features.timebase.window
            assert abs(length / features.timebase.fps - features.duration) <= 8 / features.timebase.fps


class TestProgress:
    def test_the_time_left_follows_the_share_of_the_work(self, capsys):
        with Progress("extracting", total=2, every=0.0) as progress:
            progress._began -= 30.0
            progress.update(0, "9 videos/h", share=0.25)
        assert "extracting: 0/2, 90 s left, 9 videos/h" in capsys.readouterr().err
