"""The paper's tables as experiments: the smoke profile end to end, cells kept by their settings, folders, printing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uptal.cli import main
from uptal.errors import ConfigError
from uptal.evidence.cells import Candidate, read_cell, run_cells
from uptal.evidence.corpora import Corpus, corpus
from uptal.evidence.films import Films, Material, Split, draw_films
from uptal.evidence.folders import SIZE, read_folder
from uptal.evidence.measures import MEASURES
from uptal.evidence.methods import CLIPS
from uptal.evidence.printing import cells, collect, drawing, markdown
from uptal.evidence.profiles import PROFILES, localizer
from uptal.evidence.results import RunFile, read_run
from uptal.evidence.rows import rows
from uptal.evidence.scores import encode_videos
from uptal.evidence.study import run_study
from uptal.evidence.tables import EXPERIMENTS, TABLE3, TABLE4, chosen
from uptal.evidence.tiny import Tiny
from uptal.recipes.pretrain import PretrainConfig, recipe
from uptal.synthetic import CorpusConfig, synthesize

SMOKE = PROFILES["smoke"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Films]:
    where = corpus("smoke")
    where = replace(where, split=Split(trimmed=24, trimmed_test=6, untrimmed=3, untrimmed_test=2))
    return where, draw_films(where.config, where.split, tmp_path_factory.mktemp("films"))


def known(where: Corpus):
    return rows(where.size, where.batch, where.lr)


def numbers(out: Path) -> dict[str, dict[str, float]]:
    """Numbers of every cell by the part of the file's name before the seed."""
    found = {}
    for file in (out / "tables").glob("*.jsonl"):
        found[file.name.split("-s0-")[0].removeprefix("smoke-")] = read_cell(file)
    return found


def smoke_command(out: Path, *words: str) -> str:
    """In a process of its own, without the checks of shapes, which take longer than the training."""
    command = [sys.executable, "-m", "uptal", "reproduce", "tables", "--profile", "smoke", *words]
    command += ["--out", str(out), "--work", str(out / "work")]
    return subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout


def what_must_hold(out: Path) -> None:
    found = numbers(out)
    assert all(math.isfinite(value) and 0 <= value <= 100 for scores in found.values() for value in scores.values())
    assert found["tac-classes"]["knn"] > found["random-classes"]["knn"] + 15  # points; one of 48 videos is 2.1
    losses = [json.loads(line)["loss"] for log in out.glob("work/tables/*/log.jsonl")
              for line in log.read_text().splitlines()]  # fmt: skip
    assert losses and all(map(math.isfinite, losses))


def test_every_table_runs_in_the_smoke_profile(tmp_path):
    printed = smoke_command(tmp_path, "--row", "random,pal,tac")
    assert all(experiment.title in printed for experiment in EXPERIMENTS.values())
    assert {path.name for path in tmp_path.glob("*.*")} == {
        f"{name}-smoke-smoke.{ending}" for name in EXPERIMENTS for ending in ("md", "html", "svg")
    }
    what_must_hold(tmp_path)


@pytest.mark.slow
def test_every_row_of_every_table_runs_in_the_smoke_profile(tmp_path):
    smoke_command(tmp_path)
    what_must_hold(tmp_path)
    assert set(numbers(tmp_path)) == {
        f"{rows(32)[line.method].name}-{measure}"
        for experiment in EXPERIMENTS.values() for line in experiment.lines for measure in experiment.measures
    }  # fmt: skip


def test_stopped_and_continued_gives_the_numbers_of_a_run_that_was_not_stopped(smoke, tmp_path):
    where, films = smoke
    one, measures = Candidate(where, known(where)["pal"], 0, SMOKE), ("classes", "gtad")
    assert not run_cells(one, films, measures, tmp_path / "a", tmp_path / "wa", until=0.0)
    assert not list(tmp_path.glob("a/*"))
    for name in "ab":
        assert run_cells(one, films, measures, tmp_path / name, tmp_path / f"w{name}", until=None)
    for measure in measures:
        first, second = (read_cell(one.file(tmp_path / name, measure)) for name in "ab")
        assert first == second and first


def test_what_one_table_has_measured_is_not_measured_again(smoke, tmp_path):
    where, films = smoke
    one = Candidate(where, known(where)["luminance"], 0, SMOKE)
    assert run_cells(one, films, ("classes",), tmp_path, tmp_path / "w", None)
    before = one.file(tmp_path, "classes").read_text()
    assert run_cells(one, films, ("classes",), tmp_path, tmp_path / "w", None)
    assert one.file(tmp_path, "classes").read_text() == before
    assert not (tmp_path / "w").exists()  # nothing is trained


def test_what_the_onset_study_has_trained_is_not_trained_again(smoke, tmp_path):
    where, films = smoke
    one, measures = Candidate(where, known(where)["pal"], 0, SMOKE), ("classes", "gtad")
    run_study(one.study, films, [SMOKE.pairs], tmp_path / "onset", tmp_path / "wa", measure=False)
    for name in "ab":
        assert run_cells(one, films, measures, tmp_path / name, tmp_path / f"w{name}", until=None)
    assert not (tmp_path / "wa/tables").exists() and (tmp_path / "wb/tables").exists()
    for measure in measures:
        first, second = (read_run(one.file(tmp_path / name, measure)).points[0] for name in "ab")
        assert all(first[key] == second[key] for key in ("scores", "steps", "videos", "clips", "pairs"))


def test_rows_see_as_many_clips_as_pal_or_say_what_else():
    for row in rows(32).values():
        if row.kind != "trained" or row.config is None:
            continue
        videos = row.steps_for(8000) * row.config.optim.batch
        assert (videos if row.equal == "videos" else row.clips_of(videos) / CLIPS) == 8000, row.name


def test_the_rows_of_the_tables_are_the_recipes_of_the_paper():
    same = {"moco_1": "t3_0", "t3_1": "t3_1", "pal_no_paste": "t3_2", "pal_same": "t3_3", "pal": "t3_4"}
    same |= {name: name for name in ("t4_0", "t4_1", "t4_3", "t5_hard", "t5_0_04", "t5_04_06", "t5_0_1")}
    for name, paper in same.items():
        ours, theirs = rows(32)[name].config, recipe(paper)
        assert ours is not None
        assert (ours.paste, ours.data.timeline, ours.head.ft_layers) == (
            theirs.paste, theirs.data.timeline, theirs.head.ft_layers
        ), name  # fmt: skip


def test_single_frames_show_no_motion():
    row = rows(32)["tac_frame"]
    assert row.config is not None and row.config.clip.frames == 1 and row.config.method == "supervised"


def test_numbers_of_the_paper_fit_the_columns():
    for experiment in EXPERIMENTS.values():
        assert all(line.method in rows(32) for line in experiment.lines)
        assert all(key in MEASURES[name].columns for name, key in experiment.columns)
        assert all(len(line.paper) == len(experiment.columns) for line in experiment.lines if line.paper)


def test_other_settings_have_other_files(smoke, tmp_path):
    where, _ = smoke
    row = known(where)["pal"]
    sizes = (SMOKE, replace(SMOKE, pairs=65), replace(SMOKE, head_epochs=3))
    files = {Candidate(where, row, seed, size).file(tmp_path, "gtad") for seed in (0, 1) for size in sizes}
    assert len(files) == 6
    assert localizer("gtad", PROFILES["cpu"], 0) != localizer("gtad", PROFILES["gpu"], 0)


def _write(where: Corpus, method: str, seed: int, out: Path, score: float) -> None:
    one = Candidate(where, known(where)[method], seed, SMOKE)
    scores = dict.fromkeys(MEASURES["gtad"].columns, score)
    RunFile(one.file(out, "gtad"), one.settings("gtad"), ()).with_point({"budget": 64, "scores": scores})


def test_a_table_says_tie_and_keeps_the_papers_numbers_apart(smoke, tmp_path):
    where, _ = smoke
    for seed, (none, one, two) in enumerate(((1.0, 1.2, 3.0), (1.1, 0.9, 3.3), (0.9, 1.0, 3.1))):
        for method, score in (("t4_0", none), ("t4_1", one), ("pal", two)):
            _write(where, method, seed, tmp_path, score)
    result = collect(TABLE4, where, SMOKE, TABLE4.lines, known(where), tmp_path)
    heads, body = cells(result)
    by_title = {row[0]: dict(zip(heads, row, strict=True)) for row in body}
    assert by_title["0 layers"]["mAP"] == "1.0 ± 0.1" and by_title["0 layers"]["paper mAP"] == "30.8"
    assert by_title["1 layer"]["mAP against 0 layers"] == "tie (3 seeds)"
    assert by_title["2 layers (PAL)"]["mAP against 0 layers"] == "+2.1 (3 seeds)"
    assert by_title["3 layers"]["mAP"] == "–" and by_title["3 layers"]["seeds"] == "0"
    assert "other data" in markdown(result) and "its numbers mean nothing" in markdown(result)
    assert drawing(result).count("<circle") == 9 and drawing(result).count("± 0.1") == 1


def test_rows_can_be_chosen_from_all_tables():
    assert [line.method for line in chosen(TABLE3, "moco_4,pal", rows(32))] == ["moco_4", "pal"]
    assert chosen(TABLE3, None, rows(32)) == TABLE3.lines
    with pytest.raises(ConfigError, match=r"no row 'pel'.*others: "):
        chosen(TABLE3, "pel", rows(32))


def test_pal_waits_until_a_corpus_is_frozen(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("uptal.commands.reproduce.tables.corpus", lambda name: replace(corpus("smoke"), frozen=False))
    words = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(["reproduce", "table4", "--corpus", "X", *words]) == 1
    assert "not frozen" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_videos_of_different_lengths_have_the_features_of_equal_ones(smoke):
    _, films = smoke
    encoder, spec = Tiny().eval(), replace(PretrainConfig().clip, size=18, resize=20)
    block = encode_videos(encoder, films.trimmed[:3], spec)
    alone = encode_videos(encoder, [films.trimmed[0], films.trimmed[1][:32], films.trimmed[2]], spec)
    np.testing.assert_allclose(alone[2], block[2], rtol=1e-4, atol=1e-5)  # another batch size rounds differently
    assert len(alone[1]) == 3 and len(alone[0]) == 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    config = CorpusConfig(
        size=32, num_trimmed=20, num_untrimmed=5, trimmed_frames=32, untrimmed_frames=96, num_classes=2
    )
    synthesize(out, config, workers=1, progress=False)
    return out


def test_a_folder_takes_the_place_of_a_corpus(folder, tmp_path):
    where, films = read_folder(folder)
    assert isinstance(films, Material) and (where.split.trimmed, where.split.trimmed_test) == (16, 4)
    assert films.trimmed[0].shape == (32, 3, SIZE, SIZE) and len(films.labels) == 20 and len(films.classes) == 2
    assert {video.subset for video in films.videos[: where.split.untrimmed]} == {"training"}
    assert {query.video for query in films.queries} == {video.id for video in films.videos}
    words = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "w"), "--row", "random"]
    for name in ("table2", "table7"):
        assert main(["reproduce", name, "--corpus", str(folder), *words]) == 0
    assert set(numbers(tmp_path / "out")) == {f"{where.name}-random-{name}" for name in ("lgi", "classes", "finetune")}
    assert read_folder(folder)[0].digest == where.digest


def test_a_folder_without_lists_is_refused_in_words(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"has no trimmed\.csv.*uptal synthesize"):
        read_folder(tmp_path)
    (tmp_path / "trimmed.csv").write_text("video,label\ntrimmed_00000,wave\n")
    (tmp_path / "annotations.json").write_text((folder / "annotations.json").read_text())
    for kind in ("trimmed", "untrimmed"):
        (tmp_path / kind).symlink_to(folder / kind)
    with pytest.raises(ConfigError, match="found 1 trimmed videos"):
        read_folder(tmp_path)
