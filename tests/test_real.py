"""Real clips under the corpora's protocol: what a folder says of classes, sequences with exact edges, the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uptal.cli import main
from uptal.commands.reproduce.real import ROWS, _row, _rows_of, _steps, paired
from uptal.errors import ConfigError
from uptal.evidence.real import LENGTH, SEQUENCES, read_set, sequences
from uptal.synthetic import CorpusConfig, synthesize

ROOT = Path(__file__).parents[1]

CORPUS = CorpusConfig(num_trimmed=12, num_untrimmed=0, num_classes=2, size=32, trimmed_frames=24, seed=5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """`classes`, with a subfolder for each of two, `plain`, without, and `lists`, the same with lists."""
    base = tmp_path_factory.mktemp("real")
    synthesize(base / "made", CORPUS, workers=1, progress=False)
    labels = [line.split(",") for line in (base / "made" / "trimmed.csv").read_text("utf-8").split()[1:]]
    for name, label in labels:
        for place in (base / "classes" / label, base / "plain", base / "lists" / label):
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{name}.mp4").symlink_to(base / "made" / "trimmed" / f"{name}.mp4")
    half = len(labels) // 2
    for list_name, some in (("trainlist01.txt", labels[:half]), ("testlist01.txt", labels[half:])):
        lines = [f"{label}/{name}.mov" for name, label in some]
        (base / "lists" / list_name).write_text("\n".join(lines), encoding="utf-8")
    return base


def test_subfolders_are_classes_and_what_is_tested_on_is_not_trained_on(folders):
    one = read_set(folders / "classes")
    assert one.videos is not None and len(one.videos.classes) == 2
    tested = {path for path, _ in one.videos.test}
    assert len(tested) == 4 and len(one.videos.train) == 8 and not tested & set(one.unlabelled)
    assert {label for _, label in one.videos.test} == set(one.videos.classes)
    assert read_set(folders / "classes").videos == one.videos


def test_lists_go_before_subfolders_and_a_plain_folder_has_no_classes(folders):
    listed, plain = read_set(folders / "lists"), read_set(folders / "plain")
    assert listed.videos is not None and len(listed.videos.train) == len(listed.videos.test) == 6
    assert len(listed.unlabelled) == 6
    assert plain.videos is None and len(plain.unlabelled) == 12


def test_a_sequence_is_one_run_of_the_wanted_class_among_others():
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    rows, runs = sequences(target, 1, seed=3)
    assert rows.shape == (SEQUENCES, LENGTH)
    for row, (begin, end) in zip(rows, runs, strict=True):
        wanted = target.numpy()[row] == 1
        assert 1 <= end - begin <= 3 and wanted[begin:end].all() and wanted.sum() == end - begin
    assert set(runs[:, 0]) == set(range(LENGTH))  # every place occurs
    assert np.array_equal(rows, sequences(target, 1, seed=3)[0])


def test_the_command_scores_every_row_on_every_set(folders, tmp_path, capsys):
    words = ["reproduce", "real", str(folders / "classes"), str(folders / "plain"), "--out", str(tmp_path)]
    words += ["--work", str(tmp_path / "work"), "--rows", "random,frame_difference", "--device", "cpu"]
    assert main(words) == 0
    found = json.loads((tmp_path / "real.json").read_text("utf-8"))
    assert [row["row"] for row in found["rows"]] == ["random", "frame_difference"]
    assert found["videos"]["classes"] == {"trained_on": 8, "tested_on": 4}
    for row in found["rows"]:
        assert list(row["sets"]) == ["classes"]
        for score in row["sets"]["classes"].values():
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 100
    assert "| frame_difference | classes |" in capsys.readouterr().out
    assert len(list((tmp_path / "work" / "videos").iterdir())) == 20
    other = [*words[:2], *words[2:], "--weights", f"again={tmp_path / 'work' / 'random-s0'}", "--rows", "random"]
    assert main(other) == 0
    again = json.loads((tmp_path / "real.json").read_text("utf-8"))["rows"]
    assert [row["row"] for row in again] == ["random", "again"]
    assert again[0]["sets"] == found["rows"][0]["sets"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "swim"], r"no row 'swim'\. Rows: random, "),
        (["--variant", "pal contrast.tau=[1"], r"--variant contrast\.tau=\[1: the value is no YAML"),
        (["--variant", "pal paste.source"], r"--variant expects NAME=VALUE"),
        (["--variant", "pal paste.sauce=own"], r"pal has no setting 'paste\.sauce'"),
        (["--weights", "path"], "--weights expects NAME=PATH"),
    ],
)
def test_what_cannot_be_meant_is_named(folders, tmp_path, words, said, capsys):
    assert main(["reproduce", "real", str(folders / "classes"), "--work", str(tmp_path), *words]) == 1
    assert re.search(said, capsys.readouterr().err)


def test_variants_are_rows_with_other_settings_and_as_many_clips():
    name, cfg = _row("pal contrast.motion=[still,reversed] data.timeline.regions=2")
    assert name == "pal contrast.motion=[still,reversed] data.timeline.regions=2"
    assert cfg == replace(
        ROWS["pal"](), contrast=replace(ROWS["pal"]().contrast, motion=("still", "reversed")),
        data=replace(ROWS["pal"]().data, timeline=replace(ROWS["pal"]().data.timeline, regions=2)),
    )  # fmt: skip
    assert _steps(cfg, 4800) == 150
    assert [_steps(ROWS[row](), 4800) for row in ("pal", "pal_no_paste", "moco")] == [300, 300, 300]


def test_folders_without_classes_leave_nothing_to_score(folders, tmp_path, capsys):
    assert main(["reproduce", "real", str(folders / "plain"), "--work", str(tmp_path)]) == 1
    assert "nothing to score" in capsys.readouterr().err


def test_a_class_of_one_video_cannot_be_divided(folders, tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{label}.mp4").symlink_to(folders / "made" / "trimmed" / "trimmed_00000.mp4")
    with pytest.raises(ConfigError, match="needs two videos or more"):
        read_set(tmp_path)


def test_differences_are_paired_by_seed_and_bracketed_where_they_may_be_chance():
    def row(name: str, seed: int, value: float) -> dict:
        return {"row": name, "seed": seed, "sets": {"tricks": {"knn": {"value": value}, "end": {"value": -value}}}}

    rows = [
        row("pal", 0, 1.0),
        row("pal", 1, 2.0),
        row("x", 1, 5.0),
        row("x", 0, 4.5),
        row("x", 2, 9.0),
        row("y", 0, 1.0),
    ]
    assert paired(rows).splitlines()[2:] == ["| x | 2 | tricks | +3.2 ± 0.2 | -3.2 ± 0.2 |"]
    assert paired(rows[:1]) == ""


def test_the_differences_of_the_page_are_those_of_the_results(capsys):
    """`<!-- real FILE FILE -->` stands above each table."""
    page = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    found = re.findall(r"<!-- real ([^\n]+) -->\n\n(.*?)\n\n", page, re.DOTALL)
    assert found
    results = ROOT / "benchmarks" / "results"
    for files, rows in found:
        assert rows == paired(_rows_of([results / name for name in files.split()]))
        assert main(["reproduce", "real", "--print", *(str(results / name) for name in files.split())]) == 0
        assert rows in capsys.readouterr().out


def test_without_folders_there_is_nothing_to_do(capsys):
    assert main(["reproduce", "real"]) == 1 and "Give folders of clips" in capsys.readouterr().err
