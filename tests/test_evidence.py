"""The onset study: real training on frames in memory, resumable, equal budgets, honest before a corpus is frozen."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from uptal.cli import main
from uptal.encoders import build
from uptal.errors import ConfigError, UptalError
from uptal.evidence.corpora import Corpus, allow, corpus
from uptal.evidence.curves import onset_svg
from uptal.evidence.films import Films, InMemory, draw_films
from uptal.evidence.measures import by_heads
from uptal.evidence.methods import CLIPS, Warm, method, methods, warm_start
from uptal.evidence.results import open_run, read_runs
from uptal.evidence.scores import HEADS, NAMES
from uptal.evidence.study import Study, _Training, budgets, kept_encoder, run_study
from uptal.evidence.summary import collect, compared, markdown, mean_sd, print_summary
from uptal.pretext.pal import PAL
from uptal.synthetic import render_video
from uptal.synthetic.frozen import CORPORA, DIGESTS

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Films]:
    where = corpus("smoke")
    return where, draw_films(where.config, where.split, tmp_path_factory.mktemp("films"))


def rows(where: Corpus):
    return methods(where.config.shape[0], where.batch, where.lr)


def test_frames_in_memory_are_those_of_the_corpus(smoke):
    where, films = smoke
    drawn, _ = render_video(where.config, "trimmed", 5)
    path = films.paths()[5]
    source = InMemory({path.stem: films.trimmed[5]}, 25.0)
    frames = source.read(source.probe(path), path, [3, 40])
    assert frames.permute(0, 2, 3, 1).numpy().tolist() == drawn[[3, 40]].tolist()


def test_a_drawn_corpus_is_read_back(smoke, tmp_path):
    where, _ = smoke
    few = replace(where.split, trimmed=3, trimmed_test=1, untrimmed=1, untrimmed_test=1)
    first, again = (draw_films(where.config, few, tmp_path) for _ in range(2))
    assert torch.equal(first.trimmed, again.trimmed) and len(list(tmp_path.iterdir())) == 1


def test_all_methods_encode_equally_many_clips():
    for row in methods(32).values():
        if row.kind == "trained":
            assert row.config is not None
            assert row.clips_of(row.steps_for(8000) * row.config.optim.batch) == 8000 * CLIPS


def test_pal_plus_is_a_variant_of_pal_by_its_name_in_the_results():
    known = methods(32)
    assert known["pal_plus"].name == "pal+head.boundary=1.0"
    assert known["pal_plus"].config == method("pal", known, {"head.boundary": 1.0}).config
    more = {"paste.beta": [0, 1]}
    assert method("pal_plus", known, more) == method("pal", known, {"head.boundary": 1.0} | more)


def test_queues_hold_equally_many_batches():
    depths = {row.config.contrast.queue / row.config.optim.batch for row in methods(32).values() if row.config}
    assert depths == {4}


def test_an_interrupted_run_gives_the_numbers_of_one_that_was_not(smoke, tmp_path):
    where, films = smoke
    study = Study(where, rows(where)["pal"], 0)
    whole, complete = run_study(study, films, [16, 160], tmp_path / "a", tmp_path / "wa")
    assert complete and all(math.isfinite(value) for point in whole.points for value in point["scores"].values())
    logs = [json.loads(line) for line in next((tmp_path / "wa").glob("*/log.jsonl")).read_text().splitlines()]
    assert all(math.isfinite(line["loss"]) for line in logs) and logs[-1]["step"] == 20
    _, complete = run_study(study, films, [16, 160], tmp_path / "b", tmp_path / "wb", until=0.0)
    assert not complete
    run_study(study, films, [16], tmp_path / "b", tmp_path / "wb")
    parts, complete = run_study(study, films, [16, 160], tmp_path / "b", tmp_path / "wb")
    assert complete
    assert [point["scores"] for point in parts.points] == [point["scores"] for point in whole.points]
    assert [(p["budget"], p["steps"], p["pairs"], p["clips"]) for p in parts.points] == [
        (16, 2, 16, 128), (160, 20, 160, 1280)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["pal", "tac"])
def test_a_warm_start_is_from_the_encoder_of_the_other_row_at_its_budget(smoke, tmp_path, name):
    """`tac` draws numbers while it trains, for its dropout: they must not depend on when the start was trained."""
    where, films = smoke
    known = rows(where)
    study = Study(where, warm_start(known[name], "moco@016", known), 0)
    training = _Training(study, films, tmp_path / "w")
    trainer = training._new_trainer(None)
    assert trainer is not None
    (kept,) = (tmp_path / "w").glob("smoke-moco-s0-*/encoders/16.safetensors")
    task = trainer.task
    for part in (task.online, task.momentum) if isinstance(task, PAL) else (task,):
        found, start = part.backbone.state_dict(), load_file(kept)
        assert found.keys() == start.keys() and all(torch.equal(found[name], start[name]) for name in start)
    whole, _ = run_study(study, films, [16, 32], tmp_path / "a", tmp_path / "w")
    assert whole.config["warm"] == {"method": "moco", "budget": 16, "digest": kept.parent.parent.name[-12:]}
    assert whole.config["method"] == f"{name}+warm=moco@16" and "warm" not in Study(where, known[name], 0).settings()
    run_study(study, films, [16], tmp_path / "b", tmp_path / "w2")
    parts, complete = run_study(study, films, [16, 32], tmp_path / "b", tmp_path / "w2")
    assert complete and [point["scores"] for point in parts.points] == [point["scores"] for point in whole.points]
    cold, _ = run_study(Study(where, known[name], 0), films, [16], tmp_path / "c", tmp_path / "w")
    assert cold.points[0]["scores"] != whole.points[0]["scores"]
    _, complete = run_study(study, films, [16], tmp_path / "d", tmp_path / "w3", until=0.0)
    assert not complete


def test_the_row_that_a_warm_start_is_from_is_not_spoilt_by_it(smoke, tmp_path):
    where, films = smoke
    known = rows(where)
    study = Study(where, warm_start(known["pal"], "moco@4000", known), 0)
    start = Study(where, known["moco"], 0)
    first, last = (kept_encoder(start, budget, tmp_path) for budget in (2000, 2016))
    assert _Training(study, films, tmp_path)._start(Warm(known["moco"], 2016), None) == last
    assert first.exists()
    with _Training(start, films, tmp_path).folder.locked():  # it is being trained on
        assert _Training(study, films, tmp_path)._start(Warm(known["moco"], 2016), None) == last
    with pytest.raises(ConfigError, match=r"--warm moco@1600: .*trained beyond 1600 pairs before"):
        _Training(study, films, tmp_path)._start(Warm(known["moco"], 1600), None)


def test_a_warm_start_needs_the_same_encoder():
    known = methods(32)
    with pytest.raises(ConfigError, match=r"--warm moco@2000: .*has the encoder \('slim', \{\}\), and moco has"):
        warm_start(method("pal", known, {"encoder": "slim"}), "moco@2000", known)


@pytest.mark.parametrize("said", ["moco", "moco@", "moco@0", "moco@3", "random@16", "pel@16", "tac@32000"])
def test_a_warm_start_that_cannot_be_is_refused(said, capsys):
    assert main(["reproduce", "onset", "--corpus", "smoke", "--method", "pal", "--warm", said]) == 1
    assert "--warm" in capsys.readouterr().err


def test_what_was_measured_is_not_run_again(smoke, tmp_path):
    where, films = smoke
    study = Study(where, rows(where)["frame_difference"], 0)
    first, _ = run_study(study, films, [16], tmp_path, tmp_path / "w")
    again, complete = run_study(study, films, [16], tmp_path, tmp_path / "w")
    assert complete and again.points == first.points
    assert set(first.points[0]["scores"]) == set(NAMES) - set(HEADS)


def test_what_was_trained_only_is_measured_later_with_the_same_numbers(smoke, tmp_path):
    where, films = smoke
    study = Study(where, rows(where)["pal"], 0)
    at_once, _ = run_study(study, films, [16, 32], tmp_path / "a", tmp_path / "wa")
    nothing, complete = run_study(study, films, [16, 32], tmp_path / "b", tmp_path / "wb", measure=False)
    assert complete and not nothing.points
    # no time to train: what is kept is all that is needed
    later, complete = run_study(study, films, [16, 32], tmp_path / "b", tmp_path / "wb", until=0.0)
    assert complete
    assert [point["scores"] for point in later.points] == [point["scores"] for point in at_once.points]
    assert [point["steps"] for point in later.points] == [2, 4]
    assert not any("trained_on" in point for point in later.points)  # it was here


def test_localizers_can_be_asked_for_later_and_are_in_the_table_and_the_figure(smoke, tmp_path, capsys):
    where, films = smoke
    study = Study(where, rows(where)["pal"], 0)
    first, _ = run_study(study, films, [16, 32], tmp_path, tmp_path / "w")
    after, complete = run_study(study, films, [16], tmp_path, tmp_path / "w", until=0.0, heads=by_heads)
    assert complete and [point["budget"] for point in after.points] == [16, 32]
    scores = after.points[0]["scores"]
    assert all(0 <= scores[name] <= 100 for name in HEADS) and scores["bmn_auc"] > 0
    assert {name: scores[name] for name in NAMES if name not in HEADS} == first.points[0]["scores"]
    assert after.points[1] == first.points[1]
    print_summary(tmp_path, where)
    said = capsys.readouterr().out
    assert f"{scores['bmn_auc']:.1f}" in said and "–" in said
    drawn = onset_svg(collect(read_runs(tmp_path), where), "smoke")
    assert NAMES["gtad_map"] in drawn and drawn.count('<g transform="translate(') == 8


def test_a_kept_encoder_that_does_not_say_what_it_is_is_refused(smoke, tmp_path):
    where, films = smoke
    study = Study(where, rows(where)["pal"], 0)
    run_study(study, films, [16], tmp_path / "a", tmp_path / "w", measure=False)
    (kept,) = (tmp_path / "w").rglob("encoders/16.safetensors")
    save_file(load_file(kept), kept)
    with pytest.raises(UptalError, match=r"16\.safetensors: does not say of which step"):
        run_study(study, films, [16], tmp_path / "a", tmp_path / "w")


@pytest.mark.parametrize("said", [",", "many", "0,16", "16;32"])
def test_budgets_that_are_no_numbers_are_refused(said, capsys):
    assert main(["reproduce", "onset", "--corpus", "smoke", f"--at={said}", "--only-print"]) == 1
    assert "--at expects numbers of region pairs" in capsys.readouterr().err


def test_the_smoke_command_tells_taught_from_untaught(tmp_path):
    """In a process of its own, without the checks of shapes, which take longer than the training."""
    words = ["reproduce", "onset", "--corpus", "smoke", "--method", "random,tac", "--pairs", "1200"]
    words += ["--out", str(tmp_path), "--work", str(tmp_path / "w")]
    subprocess.run([sys.executable, "-m", "uptal", *words], check=True, timeout=300, capture_output=True)
    found = {file.config["method"]: file.points[-1]["scores"]["knn"] for file in read_runs(tmp_path / "onset")}
    assert found["tac"] > found["random"] + 15  # points; one of 48 videos is 2.1


def test_pal_waits_until_a_corpus_is_frozen():
    where = replace(corpus("smoke"), name="X", frozen=False)
    for name, row in rows(where).items():
        if name.startswith("pal"):
            with pytest.raises(ConfigError, match="not frozen"):
                allow(row, where)
        else:
            allow(row, where)


def test_a_corpus_whose_frames_have_changed_is_refused(monkeypatch):
    monkeypatch.setattr("uptal.evidence.corpora.DIGESTS", {"B": "0" * 64})
    with pytest.raises(ConfigError, match="other frames"):
        corpus("B")


def test_test_videos_come_after_those_of_the_corpus():
    found = corpus("C")
    assert found.split.trimmed == CORPORA["C"].num_trimmed
    assert found.config.num_trimmed > CORPORA["C"].num_trimmed


def test_budgets_double():
    assert budgets(512_000)[:3] == [2000, 4000, 8000] and budgets(512_000)[-1] == 512_000 and budgets(50) == [50]


def test_results_of_other_settings_have_other_files(smoke, tmp_path):
    where, _ = smoke
    known = rows(where)
    changed = method("pal", known, {"head.ft_last_relu": False})
    assert changed.config is not None and not changed.config.head.ft_last_relu
    paths = {open_run(tmp_path, Study(where, row, seed).settings()).path
             for row in (known["pal"], changed) for seed in (0, 1)}  # fmt: skip
    assert len(paths) == 4
    with pytest.raises(ConfigError, match=r"head\.ft_last_relu"):
        method("pal", known, {"head.last_relu": False} | {"ft_last_relu": False})


def test_committed_results_still_belong_to_todays_settings():
    folder = ROOT / "benchmarks" / "results" / "onset"
    places = {name: corpus(name) for name in DIGESTS}
    mine = [file for file in read_runs(folder) if file.config["corpus"] in places]
    mine = [file for file in mine if file.config["corpus_digest"] == places[file.config["corpus"]].digest]
    for file in mine:
        where = places[file.config["corpus"]]
        row = rows(where).get(file.config["method"])  # None for rows with other settings
        if row is not None:
            if row.kind == "trained" and row.config is not None:
                row = replace(row, config=replace(row.config, device=file.config["training"]["device"]))
            assert open_run(folder, Study(where, row, file.config["seed"]).settings()).path == file.path
    assert len(mine) >= 7


@pytest.mark.parametrize(
    ("setting", "same", "other"),
    [("data.timeline.regions", 1, 2), ("contrast.positives", "own", None), ("contrast.background", False, None),
     ("contrast.own_outside", False, True), ("contrast.motion", [], ["still"]), ("head.boundary", 0.0, 0.5),
     ("paste.ramp", 0.0, 2.0)],
)  # fmt: skip
def test_settings_that_came_later_belong_to_a_run_only_where_they_change_it(smoke, setting, same, other):
    where, _ = smoke
    plain = Study(where, rows(where)["pal"], 0)
    unchanged = method("pal", rows(where), {setting: same})
    assert Study(where, replace(unchanged, name="pal"), 0).settings() == plain.settings()
    if other is not None:
        changed = Study(where, replace(method("pal", rows(where), {setting: other}), name="pal"), 0)
        assert changed.settings() != plain.settings()


def test_results_of_an_earlier_corpus_are_left_out(smoke, tmp_path):
    where, _ = smoke
    settings = Study(where, rows(where)["pal"], 0).settings()
    open_run(tmp_path, settings | {"corpus_digest": "old"}).with_point({"budget": 2000, "scores": {"knn": 1.0}})
    open_run(tmp_path, settings).with_point({"budget": 2000, "scores": {"knn": 2.0}})
    assert collect(read_runs(tmp_path), where) == {("pal", 2000): {0: {"knn": 2.0}}}


def test_a_difference_within_two_standard_errors_is_a_tie():
    assert mean_sd([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert compared({0: 3.0, 1: 3.2, 2: 2.9}, {0: 1.0, 1: 1.1, 2: 1.0}) == "+2.0 (3 seeds)"
    assert compared({0: 3.0, 1: 1.0}, {0: 1.0, 1: 2.9}).startswith("tie")
    assert "no test" in compared({0: 3.0}, {0: 1.0})


def test_a_budget_as_markdown_pairs_by_seed_and_brackets_what_may_be_chance():
    def of(knn: float, auc20: float) -> dict[str, float]:
        return {"knn": float(knn), "auc20": float(auc20)}

    points = {
        ("random", 0): {0: of(10, 10)},
        ("tac", 16): {0: of(90, 90)},
        ("pal", 32): {0: of(20, 10), 1: of(22, 14), 2: of(21, 12)},
        ("moco", 32): {1: of(20, 10), 0: of(17, 14), 3: of(0, 0)},
        ("moco", 64): {0: of(1, 1)},
        ("random2", 16): {0: of(2, 2)},
    }
    assert markdown(points, 32).splitlines() == [
        "| at 32 pairs | seeds | class, kNN | AUC20 |",
        "|---|---|---|---|",
        "| moco | 3 | 12.3 ± 10.8 | 8.0 ± 7.2 |",
        "| pal | 3 | 21.0 ± 1.0 | 12.0 ± 2.0 |",
        "| random | 1 | 10.0 | 10.0 |",
        "| tac | 1 | 90.0 | 90.0 |",
        "",
        "| paired by seed | seeds | class, kNN | AUC20 |",
        "|---|---|---|---|",
        "| pal over moco | 2 | +2.5 ± 0.5 | (+0.0 ± 4.0) |",
    ]
    points["pal+x", 32] = {0: of(23, 11), 1: of(25, 15)}
    assert (
        markdown(points, 32, rows=["pal", "pal+x"]).splitlines()[-1]
        == "| pal+x over pal | 2 | +3.0 ± 0.0 | +1.0 ± 0.0 |"
    )
    assert markdown(points, 64, rows=["random", "moco"]).splitlines()[2:] == [
        "| random | 1 | 10.0 | 10.0 |", "| moco | 1 | 1.0 | 1.0 |"
    ]  # fmt: skip


def test_the_tables_of_the_page_are_those_of_the_results():
    """`<!-- onset CORPUS PAIRS ROWS -->` stands above each of them."""
    page = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    found = re.findall(r"<!-- onset (\w) (\d+) (\S+) -->\n\n(.*?)\n\n(?!\| paired)", page, re.DOTALL)
    assert found
    for name, budget, rows, table in found:
        points = collect(read_runs(ROOT / "benchmarks" / "results" / "onset"), corpus(name))
        assert table == markdown(points, int(budget), rows=rows.split(";" if ";" in rows else ","))


def test_rows_of_other_settings_are_shown_by_their_names_in_the_results(capsys):
    words = ["reproduce", "onset", "--corpus", "B", "--out", str(ROOT / "benchmarks" / "results"), "--table", "16000"]
    other = "pal+contrast.motion=[reversed]"
    assert main([*words, "--rows", f"pal;{other}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in said[2:4]] == ["| pal", f"| {other}"]
    assert said[-1].startswith(f"| {other} over pal | 3 |")
    assert main([*words, "--method", "pal", "--set", "contrast.motion=[reversed]"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == said[3]
    assert main([*words[:-2], "--rows", "pal"]) == 1 and "give one of them" in capsys.readouterr().err
    assert main([*words, "--rows", "pal;pel"]) == 1
    assert "nothing of pel has been measured on corpus B. There are frame_difference; moco;" in capsys.readouterr().err


def test_the_figure_has_a_line_for_each_method():
    scores = dict.fromkeys(NAMES, 40.0)
    points = {("random", 0): {0: scores}, ("pal", 2000): {0: scores, 1: dict.fromkeys(NAMES, 50.0)}}
    picture = onset_svg(points, "a & b")
    assert picture.count("stroke-dasharray") == 9 and picture.count("<circle") == 8 and "a &amp; b" in picture


def test_the_command_says_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["reproduce", "onset", "--corpus", "smoke", "--method", "pel", "--out", str(tmp_path)]) == 1
    assert "Methods: random" in capsys.readouterr().err
    assert main(["reproduce", "onset", "--corpus", "Q"]) == 1
    assert "Corpora: A, B, C" in capsys.readouterr().err


def test_the_control_sees_where_things_change_and_nothing_of_what_stays():
    control = build("uptal.evidence.motion.FrameDifference", grid=2)
    still = torch.rand(1, 3, 1, 8, 8).expand(-1, -1, 4, -1, -1)
    assert torch.equal(control(still), torch.zeros(1, 4))
    moving = still.clone()
    moving[:, :, 1::2, 4:, :4] += 0.5  # every step changes the lower left field by a half
    assert torch.allclose(control(moving), torch.tensor([[0.0, 0.0, 5.0, 0.0]]), atol=1e-5)
    assert torch.equal(control(still[:, :, :1]), torch.zeros(1, 4))
    with pytest.raises(ConfigError, match="grid must be at least 1"):
        build("uptal.evidence.motion.FrameDifference", grid=0)
