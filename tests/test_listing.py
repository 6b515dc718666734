"""Runs that are given only what a list names, through the command: which files, what is said, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

import videos
from uptal.annotations.cliplists import match_list, read_clip_list
from uptal.cli import main

HEADER = "label,youtube_id,time_start,time_end,split"
QUICK = ["--optim.batch=2", "--aug.size=20", "--data.resize=24", "--data.workers=0", "--optim.max_steps=0"]
IDS = {"train": ("-aaaaaaaaaa", "bb_bbbbbbbb", "ccccccccccc"), "val": ("ddddddddddd", "eeeeeeeeeee")}


@pytest.fixture
def kinetics(tmp_path) -> Path:
    """Train and val below one folder, a folder a class, as Kinetics is usually kept; and its list."""
    videos.write(tmp_path / "one.mp4")
    rows = [HEADER]
    for split, ids in IDS.items():
        for number, id in enumerate(ids):
            label = ("high kick", "yoga")[number % 2]
            file = tmp_path / "k400" / split / label.replace(" ", "_") / f"{id}_000010_000020.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(tmp_path / "one.mp4", file)
            rows.append(f"{label},{id},10,20,{split if split == 'train' else 'validate'}")
    (tmp_path / "k400.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def pretrain(place: Path, *words: str | Path, recipe: str = "demo", run: str = "run") -> int:
    parts = ("pretrain", recipe, "--videos", place / "k400", "--run", place / run, *QUICK, *words)
    return main([str(part) for part in parts])


def config(place: Path, run: str = "run") -> dict:
    return yaml.safe_load((place / run / "config.yaml").read_text())


class TestRuns:
    def test_the_training_split_of_kinetics_is_taken_out_of_a_folder_that_holds_both(self, kinetics, capsys):
        assert pretrain(kinetics, "--list", kinetics / "k400.csv", "--split", "train") == 0
        text = capsys.readouterr().err
        assert "3 of 3 listed videos are in" in text and "3 of the folder's 5 videos are used" in text
        found = config(kinetics)
        assert found["files"]["count"] == 3
        assert found["list"] == str(kinetics / "k400.csv") and found["split"] == "train"

    def test_a_list_of_several_splits_says_that_all_are_used(self, kinetics, capsys):
        assert pretrain(kinetics, "--list", kinetics / "k400.csv") == 0
        assert "holds train (3), val (2); all are used, --split takes one" in capsys.readouterr().err
        assert config(kinetics)["files"]["count"] == 5

    def test_names_of_what_is_not_there_are_said(self, kinetics, capsys):
        (kinetics / "l.csv").write_text(
            (kinetics / "k400.csv").read_text() + "yoga,gone0000000,1,11,train\nyoga,gone1111111,1,11,train\n"
        )
        assert pretrain(kinetics, "--list", kinetics / "l.csv", "--split", "train") == 0
        text = capsys.readouterr().err
        assert "3 of 5 listed videos" in text
        assert "2 are not, such as yoga/gone0000000_000001_000011, yoga/gone1111111_000001_000011." in text

    def test_classes_and_a_list_go_together(self, kinetics):
        words = ("--labels", kinetics / "k400.csv", "--list", kinetics / "k400.csv", "--split", "train")
        assert pretrain(kinetics, *words, recipe="demo_tac") == 0
        assert config(kinetics)["files"]["count"] == 3

    def test_a_run_is_repeated_with_its_list(self, kinetics):
        assert pretrain(kinetics, "--list", kinetics / "k400.csv", "--split", "train") == 0
        assert main(["pretrain", str(kinetics / "run"), "--run", str(kinetics / "again")]) == 0
        assert config(kinetics) == config(kinetics, "again")

    def test_a_run_goes_on_with_its_own_list_only(self, kinetics, capsys):
        assert pretrain(kinetics, "--list", kinetics / "k400.csv", "--split", "train") == 0
        (kinetics / "moved.csv").write_bytes((kinetics / "k400.csv").read_bytes())
        assert pretrain(kinetics, "--list", kinetics / "moved.csv", "--split", "train") == 0
        for other in (("--list", kinetics / "k400.csv", "--split", "val"), ()):
            capsys.readouterr()
            assert pretrain(kinetics, *other) == 1
            assert "holds a run with other settings (files.count: 3 there" in capsys.readouterr().err


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "words", "said"),
        [
            (f"{HEADER}\nyoga,zzz,1,2,train\n", (), "names none of the 5 videos"),
            (f"{HEADER}\nyoga,zzz,1,2,train\n", ("--split", "val"), "has no split 'val', but train (1)"),
            ("zzz\n", ("--split", "val"), "has no column 'split'; leave out --split"),
            ("\n", (), "the list is empty"),
            (f"{HEADER}\nyoga,,1,2,train\n", (), "line 2: the column 'youtube_id' is empty"),
        ],
    )
    def test_a_list_that_gives_nothing(self, text, words, said, kinetics, capsys):
        (kinetics / "l").write_text(text)
        assert pretrain(kinetics, "--list", kinetics / "l", *words) == 1
        assert said in capsys.readouterr().err and not (kinetics / "run").exists()

    def test_labels_for_a_recipe_without(self, kinetics, capsys):
        assert pretrain(kinetics, "--labels", kinetics / "k400.csv") == 1
        text = capsys.readouterr().err
        assert "learns without labels, so --labels would go unused" in text and "--list" in text

    def test_a_split_without_a_list(self, kinetics, capsys):
        assert pretrain(kinetics, "--split", "train") == 1
        assert "give --list FILE" in capsys.readouterr().err

    def test_a_name_that_two_files_have(self, kinetics, capsys):
        twin = kinetics / "k400" / "replacement" / "ddddddddddd_000010_000020.mp4"
        twin.parent.mkdir()
        os.link(kinetics / "one.mp4", twin)
        (kinetics / "l").write_text("ddddddddddd_000010_000020\n")
        assert pretrain(kinetics, "--list", kinetics / "l") == 1
        text = capsys.readouterr().err
        assert "fits 2 files alike" in text and str(twin) in text
        (kinetics / "l").write_text("replacement/ddddddddddd_000010_000020\n")
        assert pretrain(kinetics, "--list", kinetics / "l") == 0


class TestNames:
    @pytest.mark.parametrize(
        ("line", "file"),
        [
            ("train/a/x.mp4", "train/a/x"),
            ("/else/where/val/a/x.mp4", "val/a/x"),
            ("./train/a/x", "train/a/x"),
            ("train\\a\\x.avi", "train/a/x"),
            ("y.mp4", "train/high kick/y"),
            ("train/high kick/y.mp4 3", "train/high kick/y"),
            ("high kick/y.mp4 kick 3", "train/high kick/y"),
            ("y,3", "train/high kick/y"),
            ("z 1", "train/z 1"),
            ("z.2 1", "train/z.2"),
            ("z.2", "train/z.2"),
        ],
    )
    def test_a_line_names_the_file_that_shares_most_folders_with_it(self, line, file, tmp_path):
        names = ("train/a/x", "val/a/x", "train/high kick/y", "train/z 1", "train/z", "train/z.2")
        paths = [Path("folder", f"{name}.webm") for name in names]
        (tmp_path / "list").write_text(line + "\n")
        matched = match_list(read_clip_list(tmp_path / "list", classes=False), paths)
        assert [path for path, _ in matched.found] == [Path("folder", f"{file}.webm")]

    @pytest.mark.parametrize(("line", "fits"), [("x.mp4", 2), ("a/x", 2), ("b/x", 2), ("w.mp4", 0), ("train/a", 0)])
    def test_a_line_that_names_none_or_several_is_told(self, line, fits, tmp_path):
        paths = [Path("folder/train/a/x.mp4"), Path("folder/val/a/x.mp4")]
        (tmp_path / "list").write_text(line + "\n")
        matched = match_list(read_clip_list(tmp_path / "list", classes=False), paths)
        assert matched.found == [] and [len(places) for places in matched.unclear.values()] == [fits] * bool(fits)
        assert len(matched.missing) == (fits == 0)

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("youtube_id,time_start,time_end,split\nabc,1,11,test\n", ("abc_000001_000011", "abc")),
            ("video\na/b.mp4\n", ("a/b",)),
            ("\ufefflabel,youtube_id,time_start,time_end,split\nyoga,abc,1,11,test\n", ("yoga/abc_000001_000011",)),
        ],
    )
    def test_tables_need_no_class_here(self, text, names, tmp_path):
        (tmp_path / "list").write_text(text, encoding="utf-8")
        (entry,) = read_clip_list(tmp_path / "list", classes=False)
        assert entry.names[: len(names)] == names and entry.split in ("test", "")
