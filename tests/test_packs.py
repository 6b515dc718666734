"""Packs of videos: the frames of single files, whatever reads them; whole or not there; damage stays where it is."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

import videos
from uptal.cli import main
from uptal.errors import ConfigError, VideoError
from uptal.recipes.transcoding import measure_gain, read_manifest, transcode_folder
from uptal.video import find_videos, probe, read
from uptal.video import packs as packing
from uptal.video.packs import Window, in_pack, index_of, open_video, size_of, write_pack
from uptal.video.transcoding import TranscodeConfig

SMALL = TranscodeConfig(short_side=32, gop=4)
NAMES = ("a/plain.mp4", "a/turned.mp4", "b/matroska.mkv", "b/silent.avi")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Single files of several kinds."""
    place = tmp_path_factory.mktemp("files")
    for name in NAMES:
        (place / name).parent.mkdir(exist_ok=True)
    videos.write(place / NAMES[0], frames=30, keyframe_every=6)
    videos.write(place / NAMES[1], turn=(90, False, False), container={"movflags": "faststart"})
    videos.write(place / NAMES[2], stamps=videos.jittered_stamps(clock=1000), clock=1000)
    videos.write(place / NAMES[3], codec="mpeg4")
    return place


@pytest.fixture
def pack(files, tmp_path) -> Path:
    """The same in a pack."""
    target = tmp_path / "packed" / "some.uptalpack"
    write_pack(target, [(name, files / name, {}) for name in NAMES])
    return target


def sample(place: Path) -> list[Path]:
    return sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())


class TestReading:
    def test_a_pack_is_found_as_a_folder_is(self, files, pack):
        assert find_videos(pack.parent) == [pack / name for name in NAMES]
        assert in_pack(pack / NAMES[0]) == (pack, NAMES[0]) and in_pack(files / NAMES[0]) is None

    @pytest.mark.parametrize("name", NAMES)
    def test_frames_and_facts_are_those_of_the_file(self, name, files, pack):
        one, other = probe(files / name), probe(pack / name)
        for key in set(vars(one)) - {"path"}:
            assert torch.equal(*(torch.as_tensor(vars(each)[key]) for each in (one, other))) if key in (
                "times", "stamps", "keyframes"
            ) and one.stamps is not None else str(vars(one)[key]) == str(vars(other)[key]), key  # fmt: skip
        for indices in ([0], [9, 3, 3, 20], range(one.num_frames)):
            assert torch.equal(read(files / name, indices), read(pack / name, indices))
        assert size_of(pack / name) == (files / name).stat().st_size

    @pytest.mark.skipif(not importlib.util.find_spec("torchcodec"), reason="torchcodec is not installed")
    def test_torchcodec_reads_packs_too(self, files, pack):
        frames = [read(place, [0, 7, 20], backend="torchcodec") for place in (files / NAMES[0], pack / NAMES[0])]
        assert torch.equal(*frames)

    def test_a_window_is_a_file_of_its_own(self, files, pack):
        data = (files / NAMES[1]).read_bytes()
        with open_video(pack / NAMES[1]) as window:
            assert isinstance(window, Window) and window.read() == data and window.read(4) == b""
            assert window.seek(-10, os.SEEK_END) == len(data) - 10 and window.read(100) == data[-10:]
            assert window.seek(5) == 5 and window.seek(3, os.SEEK_CUR) == 8 and window.read(4) == data[8:12]

    def test_a_process_opens_a_pack_once(self, pack, monkeypatch):
        opened, plain = [], os.open
        monkeypatch.setattr(packing.os, "open", lambda path, *more: opened.append(path) or plain(path, *more))
        for name in NAMES:
            read(pack / name, [0, 5])
        assert opened == [pack]


class TestDamage:
    def test_a_cut_off_pack_costs_the_videos_behind_the_cut(self, files, pack):
        entries = json.loads(index_of(pack).read_text())["videos"]
        data = pack.read_bytes()
        pack.write_bytes(data[: entries[2]["offset"] + 10])
        for name in NAMES[:2]:
            assert torch.equal(read(pack / name, [3]), read(files / name, [3]))
        for name in NAMES[2:]:
            with pytest.raises(VideoError, match=rf"{name}: some\.uptalpack is cut off: it has \d+ bytes of"):
                probe(pack / name)

    def test_damaged_bytes_are_told_as_in_a_file(self, files, pack):
        entry = json.loads(index_of(pack).read_text())["videos"][0]
        with open(pack, "r+b") as file:
            file.seek(entry["offset"])
            file.write(bytes(entry["length"]))
        with pytest.raises(VideoError, match="it is not a video that FFmpeg recognises"):
            probe(pack / NAMES[0])
        assert probe(pack / NAMES[1]).num_frames == probe(files / NAMES[1]).num_frames

    @pytest.mark.parametrize(
        ("content", "said"),
        [(None, "copy it, too"), ("{", "is damaged"), ('{"format": 2}', "is of format 2, expected 1"),
         ('{"format": 1, "videos": [{"name": "a.mp4"}]}', "is damaged .KeyError: 'offset'"),
         ('{"format": 1, "videos": [{"name": "a.mp4", "offset": -1, "length": 2}]}', "a place is negative"),
         *((f'{{"format": 1, "videos": [{{"name": "{name}", "offset": 0, "length": 2}}]}}', "leads out of the pack")
           for name in ("../a.mp4", "a/../../b.mp4", "/tmp/a.mp4", ""))],
    )  # fmt: skip
    def test_an_index_that_is_of_no_use(self, content, said, pack):
        index_of(pack).unlink()
        if content is not None:
            index_of(pack).write_text(content)
        for look in (lambda: find_videos(pack.parent), lambda: probe(pack / NAMES[0])):
            with pytest.raises(VideoError, match=said):
                look()

    def test_what_is_not_there(self, pack):
        with pytest.raises(VideoError, match=r"some\.uptalpack holds no video of this name"):
            probe(pack / "c.mp4")
        pack.unlink()
        with pytest.raises(VideoError, match="does not exist"):
            probe(pack / NAMES[0])


class TestTranscode:
    def packed(self, files: Path, out: Path, size: int = 1) -> int:
        return transcode_folder(files, out, SMALL, pack=size)

    def test_packed_copies_are_the_single_ones(self, files, tmp_path):
        assert transcode_folder(files, tmp_path / "single", SMALL) == self.packed(files, tmp_path / "packs", 2**30) == 4
        single, packs = find_videos(tmp_path / "single"), find_videos(tmp_path / "packs")
        assert [in_pack(path) for path in packs] == [
            (tmp_path / "packs" / "pack-00000.uptalpack", path.relative_to(tmp_path / "single").as_posix())
            for path in single
        ]
        for one, other in zip(single, packs, strict=True):
            with open_video(other) as file:
                assert file.read() == one.read_bytes()
        index = json.loads((tmp_path / "packs" / "pack-00000.uptalpack.json").read_text())
        assert all(
            each.keys() >= {"name", "offset", "length", "sha256", "frames", "seconds"} for each in index["videos"]
        )
        gain = measure_gain(files, tmp_path / "packs", 2)
        assert gain is not None and gain.videos == 2

    def test_nothing_is_done_twice_and_new_videos_make_new_packs(self, files, tmp_path):
        place, out = tmp_path / "videos", tmp_path / "out"
        place.mkdir()
        for name in NAMES[:2]:
            os.link(files / name, place / Path(name).name)
        assert self.packed(place, out) == 2 and self.packed(place, out) == 0
        before = {path: path.read_bytes() for path in out.glob("pack-*")}
        os.link(files / NAMES[2], place / "0.mkv")
        assert self.packed(place, out) == 1
        assert {path: path.read_bytes() for path in before} == before
        assert [in_pack(path) for path in find_videos(out)][-1] == (out / "pack-00002.uptalpack", "0.mp4")
        (place / "plain.mp4").write_bytes((files / NAMES[1]).read_bytes())
        with pytest.raises(ConfigError, match=r"plain.mp4 is another file than the one whose copy is"):
            self.packed(place, out)

    @pytest.mark.parametrize("killed_at", range(8))
    def test_a_kill_at_any_file_leaves_what_the_same_command_finishes(self, killed_at, files, tmp_path, monkeypatch):
        """Packs of one copy each: eight files get their names, an index after each pack."""
        self.packed(files, tmp_path / "straight")
        replace, count = os.replace, []

        def kill(source, target):
            if Path(target).name.startswith("pack-"):
                count.append(target)
                if len(count) > killed_at:
                    raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr("uptal.files.os.replace", kill)
        with pytest.raises(KeyboardInterrupt):
            self.packed(files, tmp_path / "killed")
        monkeypatch.undo()
        (tmp_path / "killed" / ".pack-00000.uptalpack.x.tmp").write_text("half")
        self.packed(files, tmp_path / "killed")
        names = sample(tmp_path / "killed")
        assert names == sample(tmp_path / "straight") and not any(".copies" in str(name) for name in names)
        for name in names:
            if name.name.startswith("pack-"):
                assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
        assert {entry["copy"] for entry in read_manifest(tmp_path / "killed")} == {
            str(Path(name).with_suffix(".mp4")) for name in NAMES
        }

    def test_bad_videos_are_left_out(self, files, tmp_path):
        place = tmp_path / "videos"
        place.mkdir()
        os.link(files / NAMES[0], place / "good.mp4")
        (place / "bad.mp4").write_text("no video")
        assert self.packed(place, tmp_path / "out") == 1
        assert [path.name for path in find_videos(tmp_path / "out")] == ["good.mp4"]

    def test_packs_can_be_transcoded_again_and_other_settings_are_refused(self, files, pack, tmp_path):
        assert transcode_folder(pack.parent, tmp_path / "out", SMALL) == 4
        assert sample(tmp_path / "out") == sorted(
            [*(Path(name).with_suffix(".mp4") for name in NAMES), Path("manifest.jsonl"), Path("transcode.json")]
        )
        with pytest.raises(ConfigError, match="holds copies made with"):
            self.packed(pack.parent, tmp_path / "out")


def test_every_command_that_reads_a_folder_reads_packs(files, tmp_path, capsys):
    """Transcode, pre-train, extract, look: the same weights and features as from single files."""
    out = {name: tmp_path / name for name in ("single", "packs")}
    sizes = ["--optim.batch=3", "--aug.size=20", "--data.resize=24", "--data.workers=1", "--optim.max_steps=2"]
    for name, more in (("single", []), ("packs", ["--pack", "--pack-mib", "1"])):
        words = ["--videos", str(files), "--out", str(out[name]), "--short_side", "32", "--sample", "0", *more]
        assert main(["transcode", *words]) == 0
        run = ["--videos", str(out[name]), "--run", str(tmp_path / f"run_{name}")]
        assert main(["pretrain", "demo", *run, *sizes]) == 0
        store = ["--videos", str(out[name]), "--out", str(tmp_path / f"store_{name}"), "--interval", "4"]
        assert main(["extract", "--weights", str(tmp_path / f"run_{name}"), *store]) == 0
    assert "4 videos copied, 1 packs" in capsys.readouterr().out
    for file in ("run_{}/encoder.safetensors", "store_{}/plain.safetensors", "store_{}/silent.safetensors"):
        one, other = ((tmp_path / file.format(name)).read_bytes() for name in out)
        assert one == other
    page = ["report", "--videos", str(out["packs"]), "--features", str(tmp_path / "store_packs")]
    assert main([*page, "--out", str(tmp_path / "page.html")]) == 0
    assert "data:video/mp4" in (tmp_path / "page.html").read_text()
