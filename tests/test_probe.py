"""Classification transfer: lists in the layouts of the field, features that separate classes do, others do not."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from uptal.annotations.cliplists import Labelled, match_files, read_clip_list
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.errors import AnnotationError
from uptal.metrics.classification import top_k, wilson
from uptal.recipes.probing import ProbeConfig, labelled_videos, nearest
from uptal.recipes.spread_clips import VideoClips, spread_clips
from uptal.video import read

CLASSES = ("Dark", "Light")
SPEC = ClipSpec(frames=4, stride=2, size=20, resize=24)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two classes that any encoder can tell apart by brightness, lists as UCF101 has them, and an untrained encoder."""
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for kind, level in zip(CLASSES, (60, 190), strict=True):
        (folder / "videos" / kind).mkdir(parents=True)
        for number in range(8):
            with av.open(str(folder / "videos" / kind / f"{kind}{number}.mp4"), "w") as file:
                stream = file.add_stream("libx264", rate=10, options={"preset": "ultrafast", "threads": "1"})
                stream.width = stream.height = 32
                stream.pix_fmt = "yuv420p"
                for _ in range(6 + number):
                    picture = np.clip(rng.normal(level, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                    file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                file.mux(stream.encode(None))
    train = [f"{kind}/{kind}{number}.avi {index + 1}" for index, kind in enumerate(CLASSES) for number in range(5)]
    test = [f"{kind}/{kind}{number}.avi" for kind in CLASSES for number in (5, 6, 7, 99)]
    (folder / "train.txt").write_text("\n".join(train) + "\n")
    (folder / "test.txt").write_text("\n".join(test) + "\n")
    torch.manual_seed(0)
    save_encoder(folder / "encoder", build("slim", width_multiplier=0.25), SPEC)
    return folder


class TestLists:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("A/v_A_g01.avi 1\nB/v_B.avi 2\n", [("A/v_A_g01", "A"), ("B/v_B", "B")]),
            ("A/v_A_g01.avi\n", [("A/v_A_g01", "A")]),
            ("smile/x.y_0.avi smile 0\n\n", [("smile/x.y_0", "smile")]),
            ("x.avi 3\n", [("x", "3")]),
            ("video,label\na.b,run\nc.mp4,sit down\n", [("a.b", "run"), ("c", "sit down")]),
            (
                "label,youtube_id,time_start,time_end,split,is_cc\nhigh kick,0wR5jVB-WPk,417,427,val,0\n",
                [("high kick/0wR5jVB-WPk_000417_000427", "high kick")],
            ),
        ],
    )
    def test_every_layout_is_read(self, text, expected, tmp_path):
        (tmp_path / "list").write_text(text)
        assert [(entry.names[0], entry.label) for entry in read_clip_list(tmp_path / "list")] == expected

    @pytest.mark.parametrize("text", ["", "\n\n", "x.avi\n", "label,youtube_id\n,abc\n"])
    def test_what_has_no_class_is_refused_with_its_line(self, text, tmp_path):
        (tmp_path / "list").write_text(text)
        with pytest.raises(AnnotationError, match=r"list(, line \d)?: "):
            read_clip_list(tmp_path / "list")

    @pytest.mark.parametrize(("name", "counts"), [("ucf101", (9537, 3783, 101)), ("hmdb51", (3570, 1530, 51))])
    def test_the_published_lists_have_their_published_sizes(self, name, counts, real_videos):
        folder = real_videos / "split-lists" / "coviar"
        if not folder.is_dir():
            pytest.skip(f"no split lists at {folder}")
        train, test = (read_clip_list(folder / f"{name}_split1_{part}.txt") for part in ("train", "test"))
        assert (len(train), len(test), len({entry.label for entry in train})) == counts

    def test_files_are_found_whatever_their_ending(self):
        paths = [Path("v/A/x.mp4"), Path("v/B/x.mp4"), Path("v/y.webm")]
        entries = [Labelled(("B/x",), "B"), Labelled(("C/y",), "C"), Labelled(("C/x",), "C")]
        found, missing = match_files(entries, paths)
        assert found == [(paths[1], "B"), (paths[2], "C")] and missing == ["C/x"]  # two files are called x

    def test_a_video_on_both_lists_is_refused(self, place):
        with pytest.raises(AnnotationError, match="10 videos are also trained on"):
            labelled_videos(place / "videos", place / "train.txt", place / "train.txt")


class TestScores:
    def test_top_k_by_hand(self):
        scores, target = np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]), np.array([2, 1])
        assert (top_k(scores, target), top_k(scores, target, 2), top_k(scores, target, 3)) == (0.0, 0.5, 1.0)

    def test_the_interval_is_the_published_one(self):
        """Brown, Cai and DasGupta 2001, the textbook's case of 0 and 10 of 10."""
        assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
        assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)

    def test_the_nearest_video_decides(self):
        bank = VideoClips(torch.eye(3)[:, None], torch.tensor([0, 1, 1]))
        clips = torch.tensor([[[0.9, 0.1, 0.0]], [[0.0, 0.2, 0.9]]])
        assert nearest(bank, clips, ProbeConfig(neighbours=1)).argmax(1).tolist() == [0, 1]

    def test_clips_are_spread_evenly_and_short_videos_looped(self, place):
        path = place / "videos" / "Light" / "Light7.mp4"  # 13 frames
        clips = spread_clips(path, SPEC, 3)
        assert clips.shape == (3, 4, 3, 20, 20)
        assert torch.equal(clips[0, 0], read(path, [0], 24)[0, :, 2:22, 2:22])
        short = spread_clips(place / "videos" / "Light" / "Light0.mp4", ClipSpec(frames=8, size=20, resize=24), 2)
        assert torch.equal(short[0, 0], short[0, 6])  # 6 frames: the seventh is the first again


class TestCommand:
    def probe(self, place: Path, out: Path, method: str, *more: str) -> dict:
        words = ["probe", method, "--weights", place / "encoder", "--videos", place / "videos", "--json", out]
        lists = ["--train-list", place / "train.txt", "--test-list", place / "test.txt"]
        assert main([str(word) for word in [*words, *lists, "--clips", "3", *more]]) == 0
        return json.loads(out.read_text())

    @pytest.mark.parametrize("method", ["knn", "linear"])
    def test_frozen_features_tell_bright_from_dark(self, method, place, tmp_path, capsys):
        found = self.probe(place, tmp_path / "a.json", method)
        assert found["top1"] == 1.0 and found["top5"] is None and found["chance"] == 0.5
        assert found["videos"] == {"train": 10, "test": 6, "missing": 2} and found["interval"][0] < 0.7
        assert "2 videos of the lists are not there" in capsys.readouterr().out
        again = self.probe(place, tmp_path / "b.json", method)
        assert again["top1"] == found["top1"]

    def test_fine_tuning_learns_with_the_one_loop(self, place, tmp_path):
        run = tmp_path / "run"
        options = ("--run", str(run), "--epochs", "6", "--batch", "5", "--workers", "0", "--lr", "0.01")
        found = self.probe(place, tmp_path / "a.json", "finetune", *options, "--seeds", "[0,1]")
        assert set(found["by_seed"]) == {"0", "1"}
        assert found["top1"] >= 0.75  # six videos and two runs: chance is 0.5
        assert (run / "seed0" / "log.jsonl").is_file() and (run / "seed1" / "encoder.safetensors").is_file()
        assert self.probe(place, tmp_path / "b.json", "finetune", *options, "--seeds", "[0,1]")["top1"] == found["top1"]

    def test_fine_tuning_needs_a_place(self, place, capsys):
        lists = ["--train-list", str(place / "train.txt"), "--test-list", str(place / "test.txt")]
        words = ["probe", "finetune", "--weights", str(place / "encoder"), "--videos", str(place / "videos")]
        assert main([*words, *lists]) == 1
        assert "--run RUN" in capsys.readouterr().err
