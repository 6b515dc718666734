"""The commands, through the installed entry point and in this process: files, keys and exit codes users rely on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

import pytest

from uptal.cli import COMMANDS, main
from workshop import LABELS, make_corpus, wait_for

UPTAL = Path(sysconfig.get_path("scripts")) / "uptal"
TINY = [
    f"--{name}" for name in ("optim.batch=4", "aug.size=20", "data.resize=24", "data.workers=0", "optim.log_every=1")
]
HEAD = [
    f"--{name}" for name in ("small", "optim.epochs=1", "bmn.num_steps=12", "bmn.num_samples=4", "bmn.hidden=[8,8,8]")
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def installed(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """Runs `uptal` as a user does."""
    command = [str(UPTAL), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, **options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pretrain", "demo", "--videos", "nowhere", "--run", "run"), "nowhere"),
        (("pretrain", "dmeo", "--videos", ".", "--run", "run"), "dmeo"),
        (("pretrain", "demo", "--videos", ".", "--run", "run", "--optim.rl", "1"), "--optim.rl"),
        (("extract", "--weights", "slim-v1", "--videos", ".", "--out", "store"), "No videos"),
        (("train", "bmn", "--features", "store", "--annotations", "a.json", "--run", "run"), "store"),
    ],
)
def test_bad_input_by_the_installed_command(tmp_path, words, said):
    outcome = installed(*words, cwd=tmp_path)
    assert outcome.returncode != 0 and said.lower() in outcome.stderr.lower()
    assert "Traceback" not in outcome.stderr and "\n\n" not in outcome.stderr.strip()
    assert list(tmp_path.iterdir()) == []


def uptal(*words: str | Path) -> int:
    """Runs a command in this process, which saves the seconds of importing torch."""
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The whole way through: corpus, pre-trained run, store, localizer, results."""
    folder = make_corpus(tmp_path_factory.mktemp("place"))
    videos, annotations, store, bmn = (
        folder / "untrimmed",
        folder / "annotations.json",
        folder / "store",
        folder / "bmn",
    )
    done = installed(
        "pretrain", "demo", "--videos", folder / "trimmed", "--run", folder / "pal", *TINY, "--optim.max_steps", "4"
    )
    assert done.returncode == 0 and "4 steps in" in done.stdout
    assert re.fullmatch(r"\d+% of the time goes into waiting for data; .+\n", done.stderr)
    assert uptal("extract", "--weights", folder / "pal", "--videos", videos, "--out", store, "--interval", "4") == 0
    train = ("train", "bmn", "--features", store, "--annotations", annotations, "--run", bmn)
    assert uptal(*train, *HEAD) == 0
    subset = ("--annotations", annotations, "--subset", "validation")
    assert uptal("predict", bmn, "--features", store, *subset, "--out", folder / "found.json") == 0
    assert uptal("predict", bmn, "--features", store, "--proposals", "--out", folder / "proposals.json") == 0
    return folder


class TestLightness:
    @pytest.mark.parametrize(
        "code",
        [
            "import uptal",
            "import uptal.cli; uptal.cli.main(['--help'])",
            "import uptal.cli; uptal.cli.main(['--version'])",
        ],
    )
    def test_neither_torch_nor_decoder_is_loaded(self, code):
        code += "; import sys; print(sorted({'torch', 'av', 'numpy', 'jsonargparse', 'rich'} & sys.modules.keys()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"

    def test_evaluating_needs_no_torch(self):
        code = "import uptal.cli, sys; uptal.cli.main(['evaluate', '--help']); print('torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


class TestHelp:
    def test_the_overview_names_every_command(self, capsys):
        assert main(["--help"]) == 0
        text = capsys.readouterr().out
        assert all(re.search(rf"^  {name}\b", text, re.MULTILINE) for name in COMMANDS)
        assert main([]) == 2

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_option_says_its_default_or_that_it_is_required(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "10000")  # an option a line
        words = {"pretrain": ["demo"], "train": ["bmn"], "bench": ["pretrain", "demo"], "reproduce": ["onset"]}
        words = words.get(command, [])
        assert main([command, *words, "--help"]) == 0
        text = capsys.readouterr().out
        options = [" ".join(part.split()) for part in re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]]
        assert len(options) > 3
        for option in options:
            name = option.split()[0]
            if name not in ("-h,", "--config", "--print_config") and "Path to a configuration file." not in option:
                assert re.search(r"default: .*\)|\(required", option), option

    def test_settings_say_what_they_are_for_and_where_they_come_from(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "10000")
        main(["pretrain", "paper", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert re.search(r"--optim\.lr LR +Learning rate \(Sec\. 4\.1\.1\).*default: 0\.0001\)", text)
        assert re.search(r"--contrast\.queue QUEUE +K, keys kept as negatives.*default: 16384\)", text)
        main(["pretrain", "demo", "--help"])
        assert re.search(r"--optim\.lr LR .*default: 0\.002\)", capsys.readouterr().out)  # the recipe's own

    def test_the_installed_command_answers(self):
        done = installed("--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"uptal \d+\.\d+\.\d+\n", done.stdout)

    def test_a_reader_that_leaves_early_is_no_error_on_the_screen(self):
        done = subprocess.run(
            ["bash", "-c", f"{UPTAL} --help | (exec <&-; sleep 1)"], capture_output=True, text=True, env=ENVIRONMENT
        )
        assert done.stderr == ""


class TestTheWayThrough:
    def test_a_run_holds_what_the_contract_says(self, place):
        assert {path.name for path in (place / "pal").iterdir() if not path.name.startswith(".")} == {
            "config.yaml", "environment.json", "log.jsonl", "checkpoints", "encoder.safetensors", "encoder.json",
        }  # fmt: skip
        lines = [json.loads(line) for line in (place / "pal" / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        keys = {"step", "epoch", "loss", "accuracy", "lr", "videos_per_s", "data_wait"}
        assert all(line.keys() >= keys for line in lines)
        environment = json.loads((place / "pal" / "environment.json").read_text())
        assert {"python", "packages", "machine", "command", "time", "device"} <= environment.keys()

    def test_a_finished_run_says_so_and_is_left_alone(self, place, capsys):
        before = (place / "pal" / "encoder.safetensors").read_bytes()
        words = ("--videos", place / "trimmed", "--run", place / "pal", *TINY, "--optim.max_steps", "4")
        assert uptal("pretrain", "demo", *words) == 0
        assert "finished before, at step 4; nothing was left to train" in capsys.readouterr().out
        assert (place / "pal" / "encoder.safetensors").read_bytes() == before
        assert uptal("pretrain", "demo", *words, "--resume", "never") == 1
        assert "already holds a run. Use --resume auto" in capsys.readouterr().err

    @pytest.mark.parametrize("source", ["pal", "pal/config.yaml"])
    def test_a_run_can_be_repeated_from_its_folder(self, source, place, tmp_path):
        assert uptal("pretrain", place / source, "--run", tmp_path / "again") == 0
        for name in ("encoder.safetensors", "config.yaml"):
            assert (tmp_path / "again" / name).read_bytes() == (place / "pal" / name).read_bytes()

    def test_a_supervised_run_remembers_its_labels(self, place, tmp_path):
        words = ("--videos", place / "trimmed", "--labels", place / "trimmed.csv", "--run", tmp_path / "tac")
        assert uptal("pretrain", "tac", "--small", *words, *TINY, "--optim.max_steps", "2") == 0
        assert uptal("pretrain", tmp_path / "tac", "--run", tmp_path / "again") == 0
        runs = [(tmp_path / run / "encoder.safetensors").read_bytes() for run in ("tac", "again")]
        assert runs[0] == runs[1]

    def test_classes_may_come_from_a_list_of_kinetics(self, place, tmp_path, capsys):
        rows = [f"{LABELS[n % 2]},t{n:02},0,10,train" for n in range(13)]  # one more than there are files
        (tmp_path / "train.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
        words = ["--videos", place / "trimmed", "--labels", tmp_path / "train.csv", "--run", tmp_path / "run"]
        assert uptal("pretrain", "demo_tac", *words, *TINY, "--optim.max_steps=1") == 0
        assert "1 videos of" in capsys.readouterr().err

    def test_a_run_can_start_from_another(self, place, tmp_path):
        words = ("--videos", place / "trimmed", "--run", tmp_path / "next", *TINY, "--optim.max_steps", "0")
        assert uptal("pretrain", "demo", *words, "--init", place / "pal") == 0
        files = [folder / "encoder.safetensors" for folder in (place / "pal", tmp_path / "next")]
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_settings_come_from_a_file_and_later_options_win(self, place, tmp_path, capsys):
        (tmp_path / "c.yaml").write_text("optim:\n  lr: 0.5\n  weight_decay: 0.25\nseed: 7\n")
        words = ("--videos", place / "trimmed", "--run", tmp_path / "run", *TINY, "--config", tmp_path / "c.yaml")
        assert uptal("pretrain", "demo", *words, "--optim.lr", "0.125", "--optim.max_steps", "0") == 0
        config = (tmp_path / "run" / "config.yaml").read_text()
        assert "lr: 0.125\n" in config and "weight_decay: 0.25\n" in config and "seed: 7\n" in config
        capsys.readouterr()
        assert uptal("pretrain", "demo", *words, "--print_config") == 0
        assert "weight_decay: 0.25\n" in capsys.readouterr().out

    def test_a_store_holds_what_the_contract_says(self, place, capsys):
        names = {path.name for path in (place / "store").iterdir()}
        assert names == {"store.json", "encoder.safetensors", "encoder.json"} | {f"u{i}.safetensors" for i in range(6)}
        words = ("extract", "--weights", place / "pal", "--videos", place / "untrimmed", "--out", place / "store")
        assert uptal(*words, "--interval", "4") == 0
        assert "0 videos written" in capsys.readouterr().out

    def test_shards_share_the_videos_out(self, place, tmp_path, capsys):
        for part in ("1/2", "2/2"):
            words = ("--weights", place / "store", "--videos", place / "untrimmed", "--out", tmp_path / "store")
            assert uptal("extract", *words, "--shard", part, "--interval", "4") == 0
            assert "3 videos written" in capsys.readouterr().out
        for number in range(6):
            files = [folder / f"u{number}.safetensors" for folder in (place / "store", tmp_path / "store")]
            assert files[0].read_bytes() == files[1].read_bytes()

    def test_predictions_are_a_submission_that_evaluation_reads(self, place, tmp_path, capsys):
        found = json.loads((place / "found.json").read_text())["results"]
        assert sorted(found) == ["u4", "u5"]
        assert all(row.keys() == {"segment", "label", "score"} for rows in found.values() for row in rows)
        assert {row["label"] for rows in found.values() for row in rows} <= set(LABELS)
        words = ("--truth", place / "annotations.json", "--found", place / "found.json", "--json", tmp_path / "e.json")
        assert uptal("evaluate", "detection", *words) == 0
        scores = json.loads((tmp_path / "e.json").read_text())
        assert list(scores["mAP"]) == [f"{t / 100:.2f}" for t in range(50, 100, 5)]
        assert scores["average_mAP"] == pytest.approx(sum(scores["mAP"].values()) / 10)
        assert scores["videos"] == {"truth": 2, "found": 2, "missing": 0}
        assert scores["protocol"] == "activitynet" and scores["settings"]["subset"] == "validation"
        assert "detection (activitynet)" in capsys.readouterr().out

    def test_proposals_are_evaluated_as_fractions(self, place, tmp_path):
        words = (
            "--truth",
            place / "annotations.json",
            "--found",
            place / "proposals.json",
            "--json",
            tmp_path / "p.json",
        )
        assert uptal("evaluate", "proposals", *words) == 0
        scores = json.loads((tmp_path / "p.json").read_text())
        assert list(scores["AR"]) == ["1", "5", "10", "100"]
        assert all(0 <= value <= 1 for value in [*scores["AR"].values(), scores["AUC"]])
        rows = json.loads((place / "proposals.json").read_text())["results"]
        assert sorted(rows) == [f"u{number}" for number in range(6)]

    def test_the_truth_itself_is_perfect(self, place, tmp_path):
        truth = json.loads((place / "annotations.json").read_text())["database"]
        rows = {id: [{**row, "score": 0.5} for row in video["annotations"]] for id, video in truth.items()}
        (tmp_path / "same.json").write_text(json.dumps({"results": rows}))
        words = (
            "--truth",
            place / "annotations.json",
            "--found",
            tmp_path / "same.json",
            "--json",
            tmp_path / "e.json",
        )
        assert uptal("evaluate", "detection", *words, "--tiou", "0.3,0.9") == 0
        assert json.loads((tmp_path / "e.json").read_text())["mAP"] == {"0.30": 1.0, "0.90": 1.0}

    def test_detect_writes_what_the_contract_says(self, place, tmp_path):
        words = (
            place / "bmn",
            place / "untrimmed" / "u0.mp4",
            place / "untrimmed" / "u5.mp4",
            "--out",
            tmp_path / "out",
        )
        done = installed("detect", *words, "--annotations", place / "annotations.json")
        assert (done.returncode, done.stderr) == (0, "")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "detections.json", "u0.csv", "u0.srt", "u5.csv", "u5.srt", "report.html",
        }  # fmt: skip
        assert sorted(json.loads((tmp_path / "out" / "detections.json").read_text())["results"]) == ["u0", "u5"]
        assert (tmp_path / "out" / "u0.csv").read_text().startswith("video,start,end,label,score\n")

    def test_a_page_of_everything(self, place, tmp_path, capsys):
        words = ("--videos", place / "untrimmed", "--annotations", place / "annotations.json")
        more = ("--found", place / "found.json", "--features", place / "store", "--out", tmp_path / "page.html")
        assert uptal("report", *words, *more) == 0
        assert (tmp_path / "page.html").read_text().lower().startswith("<!doctype html>")
        assert f"open {tmp_path / 'page.html'}" in capsys.readouterr().out

    def test_the_doctor_knows_machine_and_data(self, place, tmp_path, capsys):
        assert uptal("doctor", "--json", tmp_path / "m.json") == 0
        machine = json.loads((tmp_path / "m.json").read_text())
        assert machine["h264"] == {"decode": True, "encode": True}
        words = (
            "--videos",
            place / "untrimmed",
            "--annotations",
            place / "annotations.json",
            "--json",
            tmp_path / "d.json",
        )
        assert uptal("doctor", "data", *words, "--decode") == 0
        data = json.loads((tmp_path / "d.json").read_text())
        assert (data["videos"], data["annotated"], data["unreadable"], data["durations"]) == (6, 6, [], [])

    def test_the_built_in_corpus_fits_the_commands(self, tmp_path, capsys):
        words = (
            "--out",
            tmp_path,
            "--trimmed",
            "3",
            "--untrimmed",
            "2",
            "--size",
            "32",
            "--seed",
            "5",
            "--workers",
            "1",
        )
        assert uptal("synthesize", *words) == 0
        assert len(list((tmp_path / "trimmed").glob("*.mp4"))) == 3
        assert len(list((tmp_path / "untrimmed").glob("*.mp4"))) == 2
        assert (
            uptal("doctor", "data", "--videos", tmp_path / "untrimmed", "--annotations", tmp_path / "annotations.json")
            == 0
        )
        assert "2 videos match" in capsys.readouterr().out
        assert (tmp_path / "trimmed.csv").read_text().count("\n") == 4


@pytest.mark.reliability
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_saves_and_leaves_nobody_behind(number, place, tmp_path):
    """P6: Ctrl-C and schedulers reach the workers too; the run still ends with a checkpoint and exit code 0, and it
    leaves neither processes nor shared memory."""
    before = _shared_memory()
    words = ["pretrain", "demo", "--videos", place / "trimmed", "--run", tmp_path / "run", *TINY, "--data.workers", "2"]
    command = [str(UPTAL), *map(str, words), "--optim.max_steps", "1000000", "--optim.epochs", "1000000"]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )
    log = tmp_path / "run" / "log.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 5, seconds=60)
    wait_for(lambda: _has_shared_memory(run.pid), seconds=30)  # it uses some, so there is something to leave behind
    os.killpg(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 0
    stopped, wait = errors.splitlines()
    assert re.fullmatch(r"\S+: stopped and saved at step \d+; the same command goes on from there", stopped)
    assert re.match(r"\d+% of the time goes into waiting for data", wait)
    assert len(list((tmp_path / "run" / "checkpoints").glob("step_*"))) == 1
    wait_for(lambda: not _children_of_session(run.pid), seconds=10)
    left = _shared_memory() - before
    wait_for(lambda: not left & _shared_memory(), seconds=10)  # what other tests have there for a moment goes by itself


def _children_of_session(session: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(path.name)) == session:
                found.append(int(path.name))
    return found


def _shared_memory() -> set[str]:
    """Names of the segments of shared memory that this machine has."""
    return {path.name for path in Path("/dev/shm").glob("*")}


def _has_shared_memory(session: int) -> bool:
    """Whether a process of this session maps such a segment, be it without a name already."""
    for process in _children_of_session(session):
        with suppress(OSError):
            if "/dev/shm/" in Path(f"/proc/{process}/maps").read_text():
                return True
    return False
