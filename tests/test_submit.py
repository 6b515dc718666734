"""Runs as jobs of a cluster, through submitit: what SLURM is asked for; a job that is stopped in time and goes on."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from test_train import assert_same_run, final, log_of
from uptal.cli import main
from uptal.errors import ConfigError
from uptal.recipes.running import pretrain
from uptal.recipes.submitting import JobConfig, submit
from workshop import make_corpus, tiny, wait_for

submitit = pytest.importorskip("submitit", reason="submitit is not installed; it is an option")

LOCAL = JobConfig(processes=1, gpus=0, hours=0.1)


@pytest.fixture(autouse=True)
def outside_any_group(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.reliability
def test_a_job_that_is_stopped_in_time_is_queued_again_and_ends_as_the_undisturbed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))  # sums depend on it
    videos = make_corpus(tmp_path / "corpus", trimmed=12, untrimmed=0) / "trimmed"
    cfg = tiny(batch=6, max_steps=60, checkpoint_every=1000)
    pretrain(cfg, videos, tmp_path / "straight")
    words = ["pretrain", str(tmp_path / "straight"), "--videos", str(videos), "--run", str(tmp_path / "run")]
    job = submit(words, LOCAL, tmp_path / "logs", "local")
    log = tmp_path / "run" / "log.jsonl"
    wait_for(lambda: log.is_file() and len(log_of(tmp_path / "run")) > 2, 60)
    (task,) = children(job._process.pid)
    os.kill(task, signal.SIGUSR2)  # what SLURM sends before the time limit, by submitit's choice
    assert job.result() == 0
    said = job.paths.stdout.read_text()
    assert "Requeued job" in said
    assert said.count("Starting with JobEnvironment") == 2
    assert final(tmp_path / "run").step == 60
    assert_same_run(tmp_path / "straight", tmp_path / "run")


def test_a_command_that_fails_is_a_job_that_fails(tmp_path):
    job = submit(["pretrain", "paper", "--videos", str(tmp_path / "none"), "--run", "r"], LOCAL, tmp_path, "local")
    with pytest.raises(submitit.core.utils.FailedJobError, match="exit code 1"):
        job.result()
    assert "does not exist" in job.paths.stderr.read_text()


def test_slurm_is_asked_for_what_was_said(tmp_path, monkeypatch, capsys):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"sbatch": f'cp "$1" {tmp_path}/job.sh\necho Submitted batch job 4711', "srun": ""}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    options = "--nodes 4 --hours 10 --grace 90 --partition gpu --account lab --extra.qos high --cpus 12"
    words = ["submit", "--slurm", "--logs", str(tmp_path / "logs"), *options.split(), "--", "pretrain", "paper"]
    assert main(words) == 0
    assert "job 4711" in capsys.readouterr().out
    asked = {line[8:] for line in (tmp_path / "job.sh").read_text().splitlines() if line.startswith("#SBATCH ")}
    for expected in (
        "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=12", "--time=600", "--partition=gpu",
        "--account=lab", "--qos=high", "--signal=USR2@90", "--open-mode=append", "--job-name=uptal",
    ):  # fmt: skip
        assert expected in asked, expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "pretrain", "paper"], "--slurm or --local"),
        (["--slurm"], "behind `--`"),
        (["--slurm", "--", "nonsense"], "found nonsense"),
        (["--slurm", "--", "submit", "--slurm"], "behind `--`"),
        (["--slurm", "--grace", "3600", "--hours", "1", "--", "pretrain", "paper"], "leaves nothing"),
        (["--local", "--nodes", "2", "--", "pretrain", "paper"], "one node"),
    ],
)
def test_requests_that_make_no_sense_are_refused(words, said, capsys):
    assert main(["submit", *words]) != 0
    assert said in capsys.readouterr().err


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="login node"):
        submit(["pretrain"], replace(LOCAL, nodes=2), tmp_path, "slurm")


def children(process: int) -> list[int]:
    """Child processes, as Linux lists them."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
