"""The doctor finds what is broken and says what to do; what is healthy passes without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import videos
from uptal.cli import main
from uptal.clipspec import ClipSpec
from uptal.encoders import build, save_encoder
from uptal.features import FeatureStore
from uptal.recipes.extracting import ExtractConfig, extract_folder
from uptal.recipes.running import pretrain
from workshop import make_corpus, tiny

SPEC = ClipSpec(frames=4, stride=2, size=20, resize=24)


def doctor(*words: str | Path, out: Path) -> tuple[int, dict]:
    code = main(["doctor", *map(str, words), "--json", str(out)])
    return code, json.loads(out.read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"), trimmed=8, untrimmed=2)


@pytest.fixture
def store(corpus, tmp_path) -> FeatureStore:
    torch.manual_seed(0)
    save_encoder(tmp_path / "weights", build("slim", width_multiplier=0.25), SPEC)
    extract_folder(tmp_path / "weights", corpus / "untrimmed", tmp_path / "store", ExtractConfig(interval=4))
    return FeatureStore(tmp_path / "store")


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "pal"
    pretrain(tiny(max_steps=2, checkpoint_every=1), corpus / "trimmed", path)
    return path


class TestStore:
    def test_a_healthy_one_passes(self, store, tmp_path):
        code, found = doctor("store", store.path, out=tmp_path / "found.json")
        assert (code, found["problems"], found["videos"]) == (0, [], 2)
        assert found["features"] == sum(len(store.read(id).values) for id in store.ids)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("cut", "cannot be read"),
            ("other encoder", "made by encoder ffffffffffff"),
            ("width", "of width 32"),
            ("nan", "holds NaN or infinity"),
            ("count", "seconds would be wrong"),
            ("interval", "its interval is 5, the store's 4"),
            ("leftover", "left half-written by a kill"),
            ("encoder", "SHA-256"),
        ],
    )
    def test_each_kind_of_damage_is_named(self, damage, said, store, tmp_path, capsys):
        file, video = store.file("u0"), store.read("u0")
        values, base = video.values.clone(), {"fps": 10.0, "stride": 4.0, "window": 8.0}
        facts = {"encoder_digest": store.encoder_digest, "duration": repr(video.duration)}
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:50])
        elif damage == "leftover":
            (store.path / ".u0.safetensors.x.tmp").touch()
        elif damage == "encoder":
            weights = store.path / "encoder.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        else:
            if damage == "nan":
                values[0, 0] = float("nan")
            elif damage == "width":
                values = values[:, :5].contiguous()
            elif damage == "count":
                values = values[:-2].contiguous()
            elif damage == "interval":
                base, values = base | {"stride": 5.0}, values[:12].contiguous()
            elif damage == "other encoder":
                facts["encoder_digest"] = "f" * 64
            save_file({"features": values}, file, metadata=facts | {"timebase": json.dumps(base)})
        code, found = doctor("store", store.path, out=tmp_path / "found.json")
        assert code == 1 and len(found["problems"]) == 1 and said in found["problems"][0]
        assert "store: 1 problem is listed above" in capsys.readouterr().err


class TestRun:
    def test_a_healthy_one_passes(self, run, tmp_path):
        code, found = doctor("run", run, out=tmp_path / "found.json")
        assert (code, found["problems"], found["step"], found["finished"]) == (0, [], 2, True)
        assert found["checkpoints"] == {"whole": [1, 2], "damaged": 0}
        assert found["log"]["last"]["step"] == 2 and found["products"] == ["encoder.safetensors"]

    def test_a_damaged_checkpoint_and_what_is_left(self, run, tmp_path):
        weights = run / "checkpoints" / "step_00000002" / "weights.safetensors"
        before = weights.read_bytes()
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        try:
            code, found = doctor("run", run, out=tmp_path / "found.json")
        finally:
            weights.write_bytes(before)
        assert (code, found["step"], found["finished"]) == (1, 1, False)
        assert found["checkpoints"] == {"whole": [1], "damaged": 1} and "damaged" in found["problems"][0]

    def test_no_run_is_said_in_words(self, tmp_path, capsys):
        assert main(["doctor", "run", str(tmp_path / "nothing")]) == 1
        assert "there is no such run folder" in capsys.readouterr().err
        assert main(["doctor", "run"]) == 1
        assert "uptal doctor run RUN" in capsys.readouterr().err


class TestData:
    def test_present_missing_cut_and_of_another_length(self, corpus, tmp_path):
        folder = tmp_path / "videos"
        folder.mkdir()
        for name in ("u0", "u1"):
            (folder / f"{name}.mp4").write_bytes((corpus / "untrimmed" / f"{name}.mp4").read_bytes())
        videos.DAMAGED["cut.mkv"][0](folder / "cut.mkv")
        database = {"u0": 6.4, "u1": 9.9, "absent": 5.0}
        entries = {id: {"duration": d, "subset": "training", "annotations": []} for id, d in database.items()}
        (tmp_path / "truth.json").write_text(json.dumps({"database": entries}))
        words = ("--videos", folder, "--annotations", tmp_path / "truth.json", "--digests")
        code, found = doctor("data", *words, out=tmp_path / "found.json")
        assert code == 1 and (found["videos"], found["present"], found["missing"]) == (3, 2, ["absent"])
        assert found["truncated"] == [str(folder / "cut.mkv")] == [bad["video"] for bad in found["unreadable"]]
        assert found["durations"] == [{"video": "u1", "annotated": 9.9, "file": 7.2}]
        assert [Path(file["video"]).name for file in found["files"]] == ["u0.mp4", "u1.mp4"]
