"""Features: what a second of video becomes does not depend on how, where and in how many attempts it was extracted."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import videos
from uptal.clipspec import ClipSpec
from uptal.encoders import build, load_encoder, save_encoder
from uptal.errors import CheckpointError, ConfigError, VideoError
from uptal.features import Features, FeatureStore, Sampling, Work, decode_clips, extract, lay_grid, resample
from uptal.features.lanes import Lanes
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.types import Timebase
from uptal.video import Quarantine, QuarantineError, probe, read
from workshop import CPU, forked, make_corpus, wait_for

SPEC = ClipSpec(frames=4, stride=2, size=20, resize=24)
EVERY_4 = ExtractConfig(interval=4)
MUTATIONS = int(os.environ.get("UPTAL_MUTATIONS", "500"))
"""How many damaged headers U2 tries; the full number is 10,000."""
DESCRIPTION = {"encoder_digest": "0" * 64, "width": 8, "interval": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), trimmed=0, untrimmed=6)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_encoder(folder, build("slim", width_multiplier=0.25), SPEC)
    return folder


def extracted(weights: Path, corpus: Path, out: Path, **options) -> FeatureStore:
    select = options.pop("select", lambda paths: paths)
    extract_folder(weights, corpus / "untrimmed", out, ExtractConfig(**{"interval": 4, **options}), select=select)
    return FeatureStore(out)


def files_of(store: FeatureStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.path.iterdir())}


class TestExtraction:
    def test_neither_threads_nor_order_change_a_bit(self, weights, corpus, tmp_path):
        one = extracted(weights, corpus, tmp_path / "one", threads=1, batch=8)
        reverse = extracted(weights, corpus, tmp_path / "reverse", threads=3, batch=8, select=lambda paths: paths[::-1])
        assert files_of(one) == files_of(reverse)
        assert one.ids == [f"u{number}" for number in range(6)]

    @pytest.mark.parametrize("batch", [1, 32])
    def test_the_batch_size_changes_no_more_than_rounding(self, batch, weights, corpus, tmp_path):
        """D4: libraries add up in another order for other batch sizes."""
        one = extracted(weights, corpus, tmp_path / "one", batch=8)
        other = extracted(weights, corpus, tmp_path / "other", batch=batch)
        for id in one.ids:
            a, b = one.read(id).values, other.read(id).values
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()))

    @pytest.mark.parametrize("batch", [20, 64])
    def test_on_a_cpu_neither_the_batch_nor_the_cores_change_a_bit(self, batch, weights, corpus, tmp_path):
        """Passes are of eight clips whatever waits, and two cores take two of them in the place of halves of one."""
        one = extracted(weights, corpus, tmp_path / "one", batch=8, device="cpu")
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(2)
            other = extracted(weights, corpus, tmp_path / "other", batch=batch, device="cpu")
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert files_of(one) == files_of(other)

    def test_passes_run_side_by_side_and_what_goes_wrong_in_one_is_raised(self):
        begun = threading.Barrier(2, timeout=30)

        def encoder(pictures):
            begun.wait()  # the first pass ends only if the second one begins before
            if pictures.sum() > 0:
                raise ArithmeticError("a spoilt pass")
            return pictures.mean((2, 3, 4))

        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            with Lanes(encoder, SPEC, CPU, batch=16) as lanes:
                clips = torch.zeros(8, 4, 3, 20, 20, dtype=torch.uint8)
                good, bad = lanes.submit(clips[:3]), lanes.submit(clips + 255)
                assert (lanes.size, lanes.count, good.result().shape) == (8, 2, (3, 3))
                with pytest.raises(ArithmeticError, match="spoilt"):
                    bad.result()
            threads: list[int] = []
            later = threading.Thread(target=lambda: threads.append(torch.get_num_threads()))
            later.start()
            later.join()
            assert threads == [2]
        finally:
            torch.set_num_threads(before)

    def test_a_video_alone_gives_what_it_gives_among_others(self, weights, corpus, tmp_path):
        all_of_them = extracted(weights, corpus, tmp_path / "all", batch=8)
        alone = extracted(weights, corpus, tmp_path / "alone", batch=8, select=lambda paths: paths[3:4])
        assert alone.file("u3").read_bytes() == all_of_them.file("u3").read_bytes()

    def test_features_are_those_of_the_frames_that_the_timebase_names(self, weights, corpus, tmp_path):
        """The short way by hand: read the frames of a clip, crop, normalise, encode."""
        store, path = extracted(weights, corpus, tmp_path), corpus / "untrimmed" / "u2.mp4"
        features, saved = store.read("u2"), load_encoder(weights)
        index = 5
        frames = read(path, [index * 4 + 2 * place for place in range(4)], SPEC.resize)[..., 2:22, 2:22]
        pictures = (frames.permute(1, 0, 2, 3)[None].float() / 255 - 0.45) / 0.225
        with torch.inference_mode():
            assert torch.allclose(saved.encoder(pictures)[0], features.values[index], atol=1e-5)  # another batch size
        assert features.timebase == Timebase(fps=10.0, stride=4.0, window=8.0)
        assert features.timebase.span(index) == (2.0, 2.8)
        assert features.duration == 8.0

    @pytest.mark.reliability
    def test_a_killed_extraction_goes_on_to_the_same_bytes(self, weights, corpus, tmp_path):
        straight = extracted(weights, corpus, tmp_path / "straight", batch=8)
        out = tmp_path / "killed"
        for count in (1, 3):
            child = forked(lambda: extracted(weights, corpus, out, batch=8, threads=1))
            wait_for(lambda count=count: len(list(out.glob("u*.safetensors"))) >= count)
            time.sleep(0.003 * count)
            child.kill()
            store = FeatureStore(out)
            for id in store.ids:
                assert store.file(id).read_bytes() == straight.file(id).read_bytes()  # whole, or not there
        whole = {path: path.stat().st_ino for path in out.glob("u*.safetensors")}
        resumed = extracted(weights, corpus, out, batch=8)
        assert {path: path.stat().st_ino for path in whole} == whole  # what was finished is not done again
        assert files_of(resumed) == files_of(straight)  # nothing half-written is left, either

    def test_shards_make_the_whole(self, weights, corpus, tmp_path):
        whole = extracted(weights, corpus, tmp_path / "whole", batch=8)
        for part in range(3):
            extracted(weights, corpus, tmp_path / "parts", batch=8, select=lambda paths, part=part: paths[part::3])
            assert len(FeatureStore(tmp_path / "parts").ids) == 2 * (part + 1)
        assert files_of(FeatureStore(tmp_path / "parts")) == files_of(whole)

    def test_a_finished_store_is_left_alone(self, weights, corpus, tmp_path):
        store = extracted(weights, corpus, tmp_path)
        before = {path: path.stat().st_mtime_ns for path in store.path.iterdir()}
        assert extract_folder(weights, corpus / "untrimmed", tmp_path, EVERY_4).videos == 0
        assert {path: path.stat().st_mtime_ns for path in store.path.iterdir()} == before

    def test_damaged_videos_are_set_aside_and_the_others_finished(self, weights, corpus, tmp_path, capsys):
        folder = tmp_path / "videos"
        make_corpus(tmp_path, trimmed=0, untrimmed=3)
        (tmp_path / "untrimmed").rename(folder)
        (folder / "a_text.mp4").write_text("no video")
        how = ExtractConfig(interval=4, threads=1)
        assert extract_folder(weights, folder, tmp_path / "store", how).videos == 3
        store = FeatureStore(tmp_path / "store")
        assert store.ids == ["u0", "u1", "u2"]
        listed = json.loads((store.path / "quarantine.jsonl").read_text())
        assert listed["video"].endswith("a_text.mp4") and listed["reason"]
        assert "1 of 4 videos could not be used" in capsys.readouterr().err
        (folder / "b_text.mp4").write_text("no video either")
        with pytest.raises(QuarantineError, match="2 of 5 videos cannot be used, 1 would be tolerated"):
            extract_folder(weights, folder, tmp_path / "store", EVERY_4)

    def test_damage_in_the_midst_leaves_nothing_of_the_video(self, weights, tmp_path):
        path = tmp_path / "spoilt.mp4"
        videos.with_spoilt_frames(path, 60, range(40, 60))
        store = FeatureStore.create(tmp_path / "store", DESCRIPTION)
        encoder, quarantine = load_encoder(weights).encoder, Quarantine(total=1)
        how = {"device": CPU, "work": Work(batch=4)}
        done = extract([path], store, encoder, SPEC, Sampling(interval=4), **how, quarantine=quarantine)
        assert (done.videos, store.ids, len(quarantine)) == (0, [], 1)
        with pytest.raises(VideoError, match=r"spoilt\.mp4"):
            extract([path], store, encoder, SPEC, Sampling(interval=4), **how)

    @pytest.mark.parametrize("option", [{"batch": 0}, {"threads": 0}])
    def test_impossible_options_are_refused(self, option, weights, corpus, tmp_path):
        with pytest.raises(ConfigError, match="batch and threads of at least 1"):
            extracted(weights, corpus, tmp_path, **option)

    def test_two_videos_of_one_name_are_refused(self, weights, corpus, tmp_path):
        for place in ("a", "b"):
            make_corpus(tmp_path / place, trimmed=0, untrimmed=1)
        with pytest.raises(ConfigError, match=r"1 stems occur more than once: .*u0\.mp4 and .*u0\.mp4\. Rename one"):
            extract_folder(weights, tmp_path, tmp_path / "store")

    def test_a_video_must_not_take_the_encoders_name(self, weights, tmp_path):
        make_corpus(tmp_path, trimmed=0, untrimmed=1)
        (tmp_path / "untrimmed" / "u0.mp4").rename(tmp_path / "untrimmed" / "encoder.mp4")
        with pytest.raises(ConfigError, match="rename the video"):
            extract_folder(weights, tmp_path / "untrimmed", tmp_path / "store")


class TestTime:
    def test_clips_of_a_constant_rate_lie_every_interval(self, corpus):
        grid = lay_grid(probe(corpus / "untrimmed" / "u0.mp4"), SPEC, 4)
        assert grid.frames.tolist() == [[4 * i, 4 * i + 2, 4 * i + 4, 4 * i + 6] for i in range(15)]

    def test_a_variable_rate_is_off_by_half_a_frame_at_most(self, tmp_path):
        """V4: each place of a clip shows the picture that is nearest in time to its place on the even grid."""
        path, clock = tmp_path / "variable.mp4", 9000
        videos.write(path, stamps=videos.jittered_stamps(clock=clock), clock=clock)
        info = probe(path)
        assert not info.constant_rate
        grid = lay_grid(info, SPEC, 4)
        gaps = np.diff(info.times).max()
        for index, clip in enumerate(grid.frames[:-1]):
            wanted = grid.timebase.span(index)[0] + 2 * np.arange(4) / info.fps
            assert np.abs(info.times[clip] - wanted).max() <= gaps / 2 + 1e-9
            for frame, second in zip(clip, wanted, strict=True):
                assert np.abs(info.times - second).min() == pytest.approx(abs(info.times[frame] - second), abs=1e-12)

    def test_the_clips_show_the_frames_of_the_grid(self, tmp_path):
        path, clock = tmp_path / "variable.mp4", 9000
        videos.write(path, stamps=videos.jittered_stamps(clock=clock), clock=clock)
        spec = replace(SPEC, size=64, resize=64)
        grid = lay_grid(probe(path), spec, 3)
        for clip, wanted in zip(decode_clips(path, spec, grid), grid.frames, strict=True):
            assert torch.equal(clip, read(path, wanted.tolist(), 64)[..., 16:80])

    def test_a_video_shorter_than_a_clip_repeats_its_last_frame(self, tmp_path):
        path = tmp_path / "short.mp4"
        videos.write(path, frames=3)
        grid = lay_grid(probe(path), SPEC, 4)
        assert grid.frames.tolist() == [[0, 2, 2, 2]]
        assert next(iter(decode_clips(path, SPEC, grid))).shape == (4, 3, 20, 20)

    bases = st.builds(
        Timebase,
        fps=st.floats(1, 240),
        stride=st.floats(0.5, 64),
        window=st.floats(1, 512),
    )

    @given(base=bases, index=st.floats(0, 1e5))
    def test_index_to_seconds_and_back(self, base, index):
        assert base.index(base.centre(index)) == pytest.approx(index, rel=1e-9, abs=1e-6)

    @given(base=bases, seconds=st.floats(0, 1e5))
    def test_seconds_to_index_and_back(self, base, seconds):
        assert base.centre(base.index(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-6)

    @given(base=bases, index=st.integers(0, 10**5))
    def test_the_centre_is_the_middle_of_the_span(self, base, index):
        start, end = base.span(index)
        assert start < base.centre(index) < end
        assert base.centre(index) == pytest.approx((start + end) / 2, rel=1e-9)
        assert end - start == pytest.approx(base.window / base.fps, rel=1e-6)
        assert base.span(index + 1)[0] - start == pytest.approx(base.stride / base.fps, rel=1e-5)


def tiled(count: int, width: int = 3) -> Features:
    """Features whose spans tile a video exactly."""
    values = torch.from_numpy(np.random.default_rng(count).normal(size=(count, width)).astype(np.float32))
    return Features("tiled", values, Timebase(fps=25.0, stride=16.0, window=16.0), count * 16 / 25)


class TestResample:
    @settings(max_examples=60, deadline=None)
    @given(count=st.integers(1, 60), steps=st.integers(1, 80))
    def test_on_an_exact_tiling_it_is_interpolate(self, count, steps):
        features = tiled(count)
        expected = F.interpolate(features.values.T[None], size=steps, mode="linear", align_corners=False)[0]
        assert torch.allclose(resample(features, steps), expected, atol=2e-5)  # places are float32 there, float64 here

    def test_as_many_steps_as_features_change_nothing(self):
        features = tiled(12)
        assert torch.allclose(resample(features, 12), features.values.T, atol=1e-6)  # places are up to 1e-15 off

    @settings(max_examples=40, deadline=None)
    @given(
        count=st.integers(2, 40),
        steps=st.integers(1, 50),
        stride=st.floats(2, 40),
        window=st.floats(2, 60),
        fps=st.floats(5, 60),
    )
    def test_a_feature_that_is_its_own_time_stays_so(self, count, steps, stride, window, fps):
        """Whatever the timebase: a ramp over the features' centres, read at a second, is that second."""
        base = Timebase(fps=fps, stride=stride, window=window)
        centres = [base.centre(index) for index in range(count)]
        duration = base.span(count - 1)[1]
        read_at = resample(Features("ramp", torch.tensor(centres)[:, None], base, duration), steps)[0].double()
        middles = (torch.arange(steps).double() + 0.5) / steps * duration
        assert torch.allclose(read_at, middles.clamp(centres[0], centres[-1]), rtol=1e-5, atol=1e-4)  # float32 values

    def test_beyond_the_ends_it_is_constant(self):
        features = replace(tiled(4), duration=40.0)
        assert torch.equal(resample(features, 10)[:, -5:], features.values[-1][:, None].expand(-1, 5))


class TestStore:
    def test_what_is_written_is_read(self, tmp_path):
        store = FeatureStore.create(tmp_path, DESCRIPTION)
        features = Features("a b", torch.randn(5, 8), Timebase(fps=29.97, stride=16.0, window=15.0), 12.345678901234)
        store.write(features)
        back = FeatureStore(tmp_path).read("a b")
        assert torch.equal(back.values, features.values)
        assert (back.id, back.timebase, back.duration) == ("a b", features.timebase, features.duration)
        assert "a b" in store and "b" not in store and store.width == 8

    def test_a_store_of_other_features_is_refused_and_both_sides_named(self, tmp_path):
        store = FeatureStore.create(tmp_path, DESCRIPTION)
        store.write(Features("a", torch.randn(5, 8), Timebase(fps=25.0, stride=4.0, window=15.0), 1.0))
        with pytest.raises(
            ConfigError, match=r"made differently \(interval: 4 there, 16 here\)\. Choose another --out"
        ):
            FeatureStore.create(tmp_path, DESCRIPTION | {"interval": 16})

    def test_a_store_without_features_is_anybodys(self, tmp_path):
        """As it is left when the first video already failed."""
        FeatureStore.create(tmp_path, DESCRIPTION)
        (tmp_path / "encoder.json").write_text("{}")
        FeatureStore.create(tmp_path, DESCRIPTION | {"interval": 16})
        assert FeatureStore(tmp_path).description["interval"] == 16
        assert not (tmp_path / "encoder.json").exists()

    def test_another_encoder_cannot_complete_a_store(self, weights, corpus, tmp_path):
        extracted(weights, corpus, tmp_path / "store")
        torch.manual_seed(1)
        save_encoder(tmp_path / "other", build("slim", width_multiplier=0.25), SPEC)
        with pytest.raises(ConfigError, match=r"made differently \(encoder_digest: "):
            extracted(tmp_path / "other", corpus, tmp_path / "store")

    def test_a_feature_file_of_another_encoder_is_refused(self, tmp_path):
        foreign = FeatureStore.create(tmp_path / "foreign", DESCRIPTION | {"encoder_digest": "f" * 64})
        foreign.write(tiled(3))
        store = FeatureStore.create(tmp_path / "store", DESCRIPTION)
        store.file("tiled").write_bytes(foreign.file("tiled").read_bytes())
        with pytest.raises(CheckpointError, match=r"made by encoder f{12}, the store is of 0{12}\. Delete"):
            store.read("tiled")

    def test_the_digest_follows_the_content(self, tmp_path):
        store = FeatureStore.create(tmp_path, DESCRIPTION)
        digests = [store.digest()]
        for id in ("x", "y"):
            store.write(replace(tiled(3), id=id))
            digests.append(store.digest())
        store.write(replace(tiled(4), id="x"))
        digests.append(store.digest())
        assert len(set(digests)) == 4

    @pytest.mark.parametrize("damage", ["cut", "empty", "no_timebase", "gone"])
    def test_a_damaged_file_says_which_and_what_to_do(self, damage, tmp_path):
        store = FeatureStore.create(tmp_path, DESCRIPTION)
        store.write(tiled(3))
        file = store.file("tiled")
        if damage == "no_timebase":
            save_file({"features": torch.zeros(3, 8)}, file, metadata={"encoder_digest": "0" * 64})
        elif damage == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: 40 if damage == "cut" else 0])
        with pytest.raises(CheckpointError, match=r"tiled\.safetensors: cannot be read \(.*\)\. Delete it and extract"):
            store.read("tiled")

    @pytest.mark.reliability
    def test_no_mutation_of_a_file_does_more_than_be_refused(self, tmp_path):
        """U2: bytes of the header and of its length, anything for anything."""
        store = FeatureStore.create(tmp_path, DESCRIPTION)
        store.write(tiled(3))
        file, rng = store.file("tiled"), np.random.default_rng(0)
        whole = file.read_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        refused = 0
        for _ in range(MUTATIONS):
            spoilt = bytearray(whole)
            for place in rng.integers(0, end, rng.integers(1, 6)):
                spoilt[place] = rng.integers(0, 256)
            file.write_bytes(spoilt)
            try:
                store.read("tiled")
            except (CheckpointError, ConfigError):
                refused += 1
        assert refused > MUTATIONS // 2
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # kB

    @pytest.mark.parametrize("content", [None, "", "{", "[1, 2]"])
    def test_a_folder_that_is_no_store_says_how_to_make_one(self, content, tmp_path):
        if content is not None:
            (tmp_path / "store.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"not a feature store .*uptal extract --weights RUN"):
            FeatureStore(tmp_path)
