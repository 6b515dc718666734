"""Bad input: one paragraph that says what was found and what to do, an exit code, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from uptal import checkpoint
from uptal.cli import main
from workshop import forked, make_corpus

TINY = [
    f"--{name}" for name in ("optim.batch=4", "aug.size=20", "data.resize=24", "data.workers=0", "optim.log_every=1")
]
HEAD = [
    f"--{name}" for name in ("small", "optim.epochs=1", "bmn.num_steps=12", "bmn.num_samples=4", "bmn.hidden=[8,8,8]")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = make_corpus(tmp_path_factory.mktemp("place"))
    pal = ("pretrain", "demo", "--videos", folder / "trimmed", "--run", folder / "pal", *TINY, "--optim.max_steps", "2")
    store, annotations = folder / "store", folder / "annotations.json"
    assert run(*pal) == 0
    assert run("extract", "--weights", folder / "pal", "--videos", folder / "untrimmed", "--out", store) == 0
    bmn = ("train", "bmn", "--features", store, "--annotations", annotations, "--run", folder / "bmn")
    assert run(*bmn, *HEAD) == 0
    return folder


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail; returns its only paragraph in one line."""

    def check(*words: str | Path, code: int = 1) -> str:
        capsys.readouterr()
        assert run(*words) == code
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "\n\n" not in said.err.strip()
        assert said.err.startswith(f"uptal {words[0]}: " if words[0] in COMMANDS else "uptal: ")
        return " ".join(said.err.split())

    return check


COMMANDS = ("demo", "pretrain", "extract", "train", "predict", "detect", "evaluate", "report", "doctor", "synthesize")


def pretrain(videos: Path, out: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("pretrain", "demo", "--videos", videos, "--run", out, *TINY, "--optim.max_steps", "2", *more)


class TestVideos:
    def test_none_found(self, refused, tmp_path):
        (tmp_path / "empty").mkdir()
        text = refused(*pretrain(tmp_path / "empty", tmp_path / "run"))
        assert "No videos found in" in text and "no files at all" in text and ".mp4" in text
        assert not (tmp_path / "run").exists()

    def test_a_folder_of_text_files(self, refused, tmp_path):
        (tmp_path / "texts").mkdir()
        for name in ("a.txt", "b.txt", "c.md"):
            (tmp_path / "texts" / name).write_text("text")
        for words in (
            pretrain(tmp_path / "texts", tmp_path / "run"),
            ("report", "--videos", tmp_path / "texts", "--out", tmp_path / "page.html"),
            ("doctor", "data", "--videos", tmp_path / "texts"),
        ):
            assert "2 .txt files, 1 .md file" in refused(*words)

    def test_text_files_that_are_called_videos(self, refused, tmp_path):
        (tmp_path / "videos").mkdir()
        for number in range(8):
            (tmp_path / "videos" / f"{number}.mp4").write_text("text")
        text = refused(*pretrain(tmp_path / "videos", tmp_path / "run"))
        assert "of 8 videos cannot be used" in text and ".mp4: it is a text file, not a video" in text

    def test_a_missing_folder(self, refused, tmp_path):
        assert "does not exist" in refused(*pretrain(tmp_path / "nowhere", tmp_path / "run"))

    def test_an_unreadable_folder(self, refused, tmp_path):
        closed = tmp_path / "closed"
        closed.mkdir()
        (closed / "a.mp4").touch()
        user = os.geteuid()
        for folder in [*reversed(tmp_path.parents[:3]), tmp_path]:
            folder.chmod(folder.stat().st_mode | 0o055)
        closed.chmod(0)
        if user == 0:
            os.seteuid(65534)  # nobody: root may read everything
        try:
            text = refused("doctor", "data", "--videos", closed)
        finally:
            os.seteuid(user)
            closed.chmod(0o755)
        assert f"The folder {closed} cannot be listed (Permission denied)" in text

    def test_nothing_but_unreadable_videos(self, refused, place, tmp_path):
        (tmp_path / "videos").mkdir()
        (tmp_path / "videos" / "a.mp4").write_text("not a video")
        words = ("--videos", tmp_path / "videos", "--out", tmp_path / "store")
        text = refused("extract", "--weights", place / "pal", *words)
        assert "none of the 1 videos can be read" in text and "it is a text file" in text

    def test_a_demo_that_cannot_end_well_does_not_begin(self, refused, tmp_path):
        out = ("--out", tmp_path / "demo")
        assert "asks for a GPU" in refused("demo", *out, "--device", "cuda")
        assert "nowhere" in refused("demo", *out, "--weights", tmp_path / "nowhere")
        assert "--steps" in refused("demo", *out, "--full", "--videos", tmp_path)
        assert "--videos DIR" in refused("demo", *out, "--steps", "3")
        assert list(tmp_path.iterdir()) == []

    def test_fewer_videos_than_a_batch(self, refused, place, tmp_path):
        text = refused(*pretrain(place / "trimmed", tmp_path / "run", "--optim.batch", "64"))
        assert "64" in text and "12" in text and "--optim.batch" in text


class TestAnnotations:
    def train(self, place: Path, annotations: Path, out: Path) -> tuple[str | Path, ...]:
        return ("train", "bmn", "--features", place / "store", "--annotations", annotations, "--run", out, *HEAD)

    def test_absent_videos(self, refused, place, tmp_path):
        (tmp_path / "a.csv").write_text("video,start,end,label\nsomebody_else,1,2,left\n")
        assert "no video of subset 'training' has features" in refused(
            *self.train(place, tmp_path / "a.csv", tmp_path / "run")
        )
        words = ("--features", place / "store", "--annotations", tmp_path / "a.csv", "--out", tmp_path / "f.json")
        assert "holds none of the 1 videos asked for" in refused("predict", place / "bmn", *words)
        video, out = place / "untrimmed" / "u0.mp4", tmp_path / "out"
        for words in (
            ("detect", place / "bmn", video, "--out", out, "--annotations", tmp_path / "a.csv"),
            ("report", "--videos", place / "untrimmed", "--out", out, "--annotations", tmp_path / "a.csv"),
        ):
            assert "names none of the" in refused(*words)
        assert list(tmp_path.iterdir()) == [tmp_path / "a.csv"]

    def test_some_absent_videos_are_named(self, place, tmp_path, capsys):
        content = json.loads((place / "annotations.json").read_text())
        content["database"]["gone"] = content["database"]["u0"]
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert run(*self.train(place, tmp_path / "a.json", tmp_path / "run")) == 0
        assert "1 annotated videos have no features" in capsys.readouterr().err
        report = ("report", "--videos", place / "trimmed", "--out", tmp_path / "page.html")
        names = [path.stem for path in (place / "trimmed").iterdir()]
        content["database"][names[0]] = content["database"]["u0"]
        (tmp_path / "b.json").write_text(json.dumps(content))
        assert run(*report, "--annotations", tmp_path / "b.json") == 0
        assert "at hand but not annotated" in capsys.readouterr().err

    def test_doctor_fails_where_nothing_fits(self, place, tmp_path, capsys):
        (tmp_path / "a.csv").write_text("video,start,end,label\nsomebody_else,1,2,left\n")
        words = ("doctor", "data", "--videos", place / "untrimmed", "--annotations", tmp_path / "a.csv")
        assert run(*words) == 1
        assert "names none of the videos" in capsys.readouterr().out

    def test_a_segment_that_ends_before_it_starts(self, refused, place, tmp_path):
        content = json.loads((place / "annotations.json").read_text())
        content["database"]["u1"]["annotations"][1]["segment"] = [5.0, 2.0]
        (tmp_path / "a.json").write_text(json.dumps(content))
        text = refused(*self.train(place, tmp_path / "a.json", tmp_path / "run"))
        assert "u1" in text and "5.0" in text and "2.0" in text

    def test_a_missing_or_broken_file(self, refused, place, tmp_path):
        assert "nowhere.json" in refused(*self.train(place, tmp_path / "nowhere.json", tmp_path / "run"))
        (tmp_path / "broken.json").write_text('{"database": {')
        assert "broken.json" in refused(*self.train(place, tmp_path / "broken.json", tmp_path / "run"))

    def test_a_subset_that_is_not_there(self, refused, place, tmp_path):
        words = ("--features", place / "store", "--annotations", place / "annotations.json", "--out", tmp_path / "f")
        text = refused("predict", place / "bmn", *words, "--subset", "test")
        assert "'test'" in text and "'training'" in text and "'validation'" in text
        words = ("--features", place / "store", "--out", tmp_path / "f")
        assert "give --annotations" in refused("predict", place / "bmn", *words, "--subset", "test")

    def test_labels_of_other_videos(self, refused, place, tmp_path):
        words = ("--videos", place / "trimmed", "--run", tmp_path / "run", *TINY)
        assert "give --labels FILE" in refused("pretrain", "tac", "--small", *words)
        (tmp_path / "l.csv").write_text("video,label\nx,left\n")
        text = refused("pretrain", "tac", "--small", *words, "--labels", tmp_path / "l.csv")
        assert "names none of the 12 videos" in text and "t00, t01, t02" in text


@pytest.mark.reliability
class TestFullDisk:
    """Files may not grow beyond a limit, as on a full disk."""

    def limited(self, limit: int, words: tuple[str | Path, ...], errors: Path) -> str:
        def work() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with open(errors, "w") as sys.stderr:
                assert run(*words) == 1

        assert forked(work).wait(60) == 0
        text = errors.read_text()
        assert "Traceback" not in text and len(text.splitlines()) == 1
        return text

    def test_while_a_checkpoint_is_saved(self, place, tmp_path):
        shutil.copytree(place / "pal", tmp_path / "run")
        words = pretrain(place / "trimmed", tmp_path / "run", "--optim.max_steps", "4")
        text = self.limited(20_000, words, tmp_path / "errors")
        assert "the checkpoint could not be written" in text and "make room" in text
        found, passed_over = checkpoint.newest_valid(tmp_path / "run" / "checkpoints")
        assert found is not None and found.step == 2 and not passed_over
        assert run(*words) == 0  # with room again it goes on

    def test_while_copies_are_written(self, place, tmp_path):
        words = ("transcode", "--videos", place / "untrimmed", "--out", tmp_path / "small", "--short_side", "32")
        text = self.limited(2_000, words, tmp_path / "errors")
        assert "File too large" in text and "Make room" in text
        assert not [path for path in (tmp_path / "small").rglob("*") if path.suffix in (".mp4", ".jsonl")]

    def test_while_features_are_written(self, place, tmp_path):
        shutil.copytree(place / "store", tmp_path / "store")
        for id in ("u1", "u4"):
            (tmp_path / "store" / f"{id}.safetensors").unlink()
        words = ("extract", "--weights", place / "pal", "--videos", place / "untrimmed", "--out", tmp_path / "store")
        text = self.limited(600, words, tmp_path / "errors")
        assert "cannot be written (File too large). Make room" in text
        assert run(*words) == 0
        for path in (place / "store").iterdir():
            assert (tmp_path / "store" / path.name).read_bytes() == path.read_bytes()


class TestSettings:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--vidoes", "x"], "Did you mean --videos?"),
            (["--optim.batsh", "3"], "Did you mean --optim.batch?"),
            (["--optim.batch", "many"], '"optim.batch"'),
            (["--optim.schedule", "cosin"], "cosine"),
            (["--trust_import"], "Did you mean --trust-imports?"),
        ],
    )
    def test_wrong_options(self, words, said, refused, place, tmp_path):
        text = refused(*pretrain(place / "trimmed", tmp_path / "run", *words), code=2)
        assert said in text and "`uptal pretrain --help` lists the options" in text

    @pytest.mark.parametrize(
        ("content", "meant"),
        [("optim:\n  batsh: 3\n", "--optim.batch"), ("sead: 3\n", "--seed"), ("otpim:\n  lr: 0.1\n", "--optim")],
    )
    def test_misspelt_keys_of_a_file(self, content, meant, refused, place, tmp_path):
        (tmp_path / "c.yaml").write_text(content)
        words = pretrain(place / "trimmed", tmp_path / "run", "--config", tmp_path / "c.yaml")
        assert f"Did you mean {meant}" in refused(*words, code=2)
        stored = yaml.safe_load((place / "pal" / "config.yaml").read_text())
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(stored | yaml.safe_load(content)))
        text = refused("pretrain", tmp_path / "run.yaml", "--run", tmp_path / "run")
        assert f"did you mean '{meant[2:]}'" in text

    @pytest.mark.parametrize(
        ("key", "value", "expected"),
        [
            ("lr", "fast", "must be float"),
            ("batch", 3.5, "must be int"),
            ("algorithm", "lion", "adamw"),
            ("keep", 0, "1"),
        ],
    )
    def test_wrong_values_of_a_file(self, key, value, expected, refused, place, tmp_path):
        stored = yaml.safe_load((place / "pal" / "config.yaml").read_text())
        stored["optim"][key] = value
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(stored))
        text = refused("pretrain", tmp_path / "run.yaml", "--run", tmp_path / "run")
        assert f"optim.{key}" in text and expected in text and repr(value) in text

    def test_numbers_that_yaml_takes_for_text_are_numbers(self, place, tmp_path):
        stored = yaml.safe_load((place / "pal" / "config.yaml").read_text())
        text = yaml.safe_dump(stored).replace("lr: 0.002", "lr: 2e-3")
        assert "2e-3" in text
        (tmp_path / "run.yaml").write_text(text)
        assert run("pretrain", tmp_path / "run.yaml", "--run", tmp_path / "run") == 0
        assert "lr: 0.002\n" in (tmp_path / "run" / "config.yaml").read_text()

    @pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "\0"])
    def test_files_that_are_no_settings(self, content, refused, tmp_path):
        (tmp_path / "c.yaml").write_text(content)
        assert "c.yaml" in refused("pretrain", tmp_path / "c.yaml", "--run", tmp_path / "run")

    def test_code_in_a_file_is_not_run(self, refused, place, tmp_path):
        """U5: neither YAML tags nor class names."""
        canary = tmp_path / "canary"
        (tmp_path / "tag.yaml").write_text(f"seed: !!python/object/apply:os.mknod ['{canary}']\n")
        refused("pretrain", tmp_path / "tag.yaml", "--run", tmp_path / "run")
        (tmp_path / "evil_encoder.py").write_text(f"open({str(canary)!r}, 'w')\n")
        stored = yaml.safe_load((place / "pal" / "config.yaml").read_text()) | {"encoder": "evil_encoder.Encoder"}
        (tmp_path / "class.yaml").write_text(yaml.safe_dump(stored))
        sys.path.insert(0, str(tmp_path))
        try:
            text = refused("pretrain", tmp_path / "class.yaml", "--run", tmp_path / "run")
        finally:
            sys.path.remove(str(tmp_path))
        assert "--trust-imports" in text and not canary.exists()

    def test_names_that_do_not_exist(self, refused, place, tmp_path):
        assert "Did you mean `uptal pretrain`?" in refused("pretrian", code=2)
        text = refused("pretrain", "dmo", "--videos", place / "trimmed", "--run", tmp_path / "run")
        assert "There is no recipe 'dmo'" in text and "t3_4" in text
        assert "Localizers: bmn" in refused("train", "bnm", "--run", tmp_path / "run")
        assert "i3d" in refused(*pretrain(place / "trimmed", tmp_path / "run", "--encoder", "i3dd"))
        words = ("--weights", place / "pal", "--videos", place / "untrimmed", "--out", tmp_path / "s", "--shard", "3/2")
        assert "such as 2/8, found '3/2'" in refused("extract", *words)

    def test_other_settings_for_a_run_that_is_there(self, refused, place):
        before = {path: path.read_bytes() for path in (place / "pal").rglob("*") if path.is_file()}
        text = refused(*pretrain(place / "trimmed", place / "pal", "--head.width", "32"))
        assert "head.width: 64 there, 32 here" in text and "another --run" in text
        assert {path: path.read_bytes() for path in before} == before


class TestModels:
    def test_a_checkpoint_of_another_architecture(self, refused, place, tmp_path):
        shutil.copytree(place / "pal" / "checkpoints", tmp_path / "run" / "checkpoints")
        more = ("--encoder_options", '{"width_multiplier": 0.5}')
        text = refused(*pretrain(place / "trimmed", tmp_path / "run", *more, "--optim.max_steps", "4"))
        assert "step 2 is of another model" in text and "size mismatch" in text and "another --run" in text

    def test_weights_to_start_from_of_another_architecture(self, refused, place, tmp_path):
        more = ("--init", place / "pal", "--encoder_options", '{"width_multiplier": 0.5}')
        text = refused(*pretrain(place / "trimmed", tmp_path / "run", *more))
        assert "width_multiplier=1.0" in text and "width_multiplier=0.5" in text

    def test_an_encoder_whose_description_is_of_another(self, refused, place, tmp_path):
        for name in ("encoder.safetensors", "encoder.json"):
            shutil.copy(place / "pal" / name, tmp_path)
        record = json.loads((tmp_path / "encoder.json").read_text())
        record["options"]["width_multiplier"] = 0.5
        (tmp_path / "encoder.json").write_text(json.dumps(record))
        words = ("--weights", tmp_path, "--videos", place / "untrimmed", "--out", tmp_path / "store")
        text = refused("extract", *words)
        assert "do not fit Slim" in text and not (tmp_path / "store").exists()

    def test_nothing_where_a_model_should_be(self, refused, place, tmp_path):
        words = ("--videos", place / "untrimmed", "--out", tmp_path / "store")
        assert "no encoder there" in refused("extract", "--weights", tmp_path, *words)
        video, out = place / "untrimmed" / "u0.mp4", ("--out", tmp_path / "out")
        assert "holds no localizer. Make one" in refused("detect", tmp_path, video, *out)
        assert "holds an encoder and no localizer" in refused("detect", place / "pal", video, *out)
        assert "does not exist. Make one" in refused("detect", tmp_path / "nowhere", video, *out)
        assert "not a feature store" in refused(
            "predict", place / "bmn", "--features", tmp_path, "--out", tmp_path / "f.json"
        )
        assert list(tmp_path.iterdir()) == []

    def test_a_run_and_a_store_do_not_share_a_folder(self, refused, place, tmp_path):
        before = {path: path.read_bytes() for name in ("store", "pal") for path in (place / name).glob("encoder.*")}
        assert "is a feature store" in refused(*pretrain(place / "trimmed", place / "store"))
        words = ("--videos", place / "untrimmed", "--out")
        assert "is the folder of a run" in refused("extract", "--weights", place / "pal", *words, place / "pal")
        shutil.copy(place / "pal" / "encoder.safetensors", tmp_path)
        assert "holds another encoder" in refused("extract", "--weights", "slim-v1", *words, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]
        assert all(path.read_bytes() == content for path, content in before.items()) and len(before) == 4
        assert not (place / "pal" / "store.json").exists() and not (place / "store" / "config.yaml").exists()

    def test_an_encoder_in_the_place_of_a_run(self, refused, place, tmp_path):
        video = place / "untrimmed" / "u0.mp4"
        assert "Leave it out" in refused("detect", "slim-v1", video, "--out", tmp_path / "out")

    def test_features_of_another_encoder(self, refused, place, tmp_path):
        words = ("--videos", place / "trimmed", "--run", tmp_path / "other", *TINY, "--optim.max_steps", "0")
        assert run("pretrain", "demo", *words, "--seed", "1") == 0
        out = ("--videos", place / "untrimmed", "--out", tmp_path / "store")
        assert run("extract", "--weights", tmp_path / "other", *out) == 0
        text = refused("predict", place / "bmn", "--features", tmp_path / "store", "--out", tmp_path / "f.json")
        assert "was trained on features with encoder_digest" in text and "uptal extract --weights" in text
        text = refused("extract", "--weights", place / "pal", *out)
        assert "holds features made differently (encoder_digest" in text and "another --out" in text

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_where_there_is_none(self, refused, place, tmp_path):
        store = ("--features", place / "store", "--annotations", place / "annotations.json")
        videos = ("--videos", place / "untrimmed")
        for words in (
            pretrain(place / "trimmed", tmp_path / "run", "--device", "cuda"),
            ("extract", "--weights", place / "pal", *videos, "--out", tmp_path / "s", "--device", "cuda"),
            ("train", "bmn", *store, "--run", tmp_path / "r", *HEAD, "--device", "cuda:1"),
            ("detect", place / "bmn", place / "untrimmed" / "u0.mp4", "--out", tmp_path / "o", "--device", "cuda"),
        ):
            text = refused(*words)
            assert "asks for a GPU" in text and "Use --device cpu" in text
        assert list(tmp_path.iterdir()) == []
        text = refused(*pretrain(place / "trimmed", tmp_path / "run", "--device", "gpu"))
        assert "'gpu' is not a device" in text

    def test_a_place_where_one_may_not_write(self, refused, place, tmp_path):
        (tmp_path / "file").write_text("a file where a folder should be")
        assert "cannot be used as a run folder" in refused(*pretrain(place / "trimmed", tmp_path / "file"))
        words = ("--features", place / "store", "--out", tmp_path / "file" / "f.json")
        assert "cannot be written" in refused("predict", place / "bmn", *words)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trimmed=-1", "--trimmed must be 0 or more, found -1"),
        ("--untrimmed=-2", "--untrimmed must be 0 or more, found -2"),
        ("--num_classes=1", "--num_classes must be 2 to"),
        ("--size=15", "--size must be even"),
    ],
)
def test_synthesize_speaks_of_its_options(option, said, tmp_path, capsys):
    assert main(["synthesize", "--out", str(tmp_path / "corpus"), option]) == 1
    assert said in capsys.readouterr().err and not (tmp_path / "corpus").exists()
